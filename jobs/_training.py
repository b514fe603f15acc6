"""What the two training jobs share: the line that they end with."""

from __future__ import annotations

import math
from typing import Any

from codepmp_ray.config.recipe import Recipe
from codepmp_ray.runs import MODEL_FOLDER, open_stage


def outcome(recipe: Recipe, stage: str, summary: dict[str, Any]) -> str:
    """One line from the summary of a training stage: what was trained, how well, where it is."""
    objective = getattr(recipe, stage).objective
    model = open_stage(recipe, stage).store.locate(MODEL_FOLDER)
    return f"{objective}: {_result(summary)}; model in {model}"


def _result(summary: dict[str, Any]) -> str:
    text = f"{summary['num_steps']} steps on {summary['num_pairs']} pairs{_too_long(summary)}"
    if summary["best_step"] is not None:
        text += f", exported step {summary['best_step']}"
    if summary["num_skipped_steps"]:
        text += f", {summary['num_skipped_steps']} steps skipped (gradient not finite)"
    if not all(map(_is_finite, (summary["final_loss"], summary["eval_loss"]))):
        text += ", the last loss is not finite"
    if not summary["eval_num_pairs"]:
        return f"{text}; no pairs were held out"
    if summary["eval_accuracy"] is None:
        return (
            f"{text}; loss on {summary['eval_num_pairs']} held-out pairs {summary['eval_loss']:.3f}"
        )
    return (
        f"{text}; accuracy on {summary['eval_num_pairs']} held-out pairs "
        f"{summary['eval_accuracy_before']:.2f} -> {summary['eval_accuracy']:.2f}"
    )


def _is_finite(value: float | None) -> bool:
    return value is None or math.isfinite(value)


def _too_long(summary: dict[str, Any]) -> str:
    """What exceeded max_length, by source; empty if nothing did."""
    parts = []
    for name, counts in summary["sources"].items():
        found = [
            f"{count} {done}"
            for key, done in (("num_over_max_length", "rejected"), ("num_truncated", "cut"))
            if (count := counts.get(key))
        ]
        if found:
            parts.append(f"{name} {' and '.join(found)}")
    return f" (over max_length: {', '.join(parts)})" if parts else ""
