"""When a training has failed although it could go on to its last step, and what to say then.

A step whose gradient is not finite is skipped, so NaN in a weight or a loss would skip them all and
export the weights that training began with.
"""

from __future__ import annotations

import math
from typing import Any

from codepmp_ray.errors import TrainingError
from codepmp_ray.training.metrics import evaluation_losses

# An overflow skips a step or two; what is not finite ten times does not get better by itself.
MOST_SKIPPED_IN_A_ROW = 10

_REMEDY = (
    "Look for NaN in the initial weights (they were loaded as they are), then lower learning_rate "
    "or set bf16=false. To begin again with the same settings, delete {folder}."
)


def too_many_skipped(row: dict[str, Any], folder: str) -> TrainingError:
    """`row` is that of the last skipped step."""
    return TrainingError(
        f"Training stopped after step {row['step']} of {row['total_steps']}: "
        f"{MOST_SKIPPED_IN_A_ROW} steps in a row were skipped because their gradients were not "
        f"finite, {MOST_SKIPPED_IN_A_ROW} is the limit (loss {row['loss']:.4g}, gradient norm "
        f"{row['grad_norm']:.4g}). Nothing was exported.",
        _REMEDY.format(folder=folder),
    )


def first_evaluation_failed(row: dict[str, Any], folder: str) -> TrainingError:
    """`row` is that of the evaluation before the first step, one of whose losses is not finite."""
    losses = evaluation_losses(row)
    prefix = next(name for name, loss in losses.items() if not math.isfinite(loss))
    pairs = "held-out pairs" if prefix == "eval_" else f"pairs of {prefix.split('/')[1]}"
    return TrainingError(
        f"Training stopped before step 1 of {row['total_steps']}: the initial weights have a loss "
        f"of {losses[prefix]:.4g} on {row[f'{prefix}num_pairs']} {pairs}, and only a finite "
        "one can be trained on. Nothing was exported.",
        _REMEDY.format(folder=folder),
    )


def nothing_learned(total_steps: int, folder: str) -> TrainingError:
    return TrainingError(
        f"Training stopped after step {total_steps} of {total_steps}: every step was skipped "
        "because no gradient was finite, at least one step has to be taken. Nothing was exported.",
        _REMEDY.format(folder=folder),
    )
