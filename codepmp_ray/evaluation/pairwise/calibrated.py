"""What the rewards of pairs are worth beyond their order: AUC, log-loss, calibration error.

Intervals are over prompts, as those of accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from codepmp_ray.evaluation.pairwise.accuracy import Bootstrap
from codepmp_ray.resampling import (
    Floats,
    Interval,
    cluster_sums,
    percentiles,
    resample_counts,
    resampled,
)
from codepmp_ray.scoring.calibration import log_losses, surprises

_MAX_RESAMPLES = 1_000
_CELLS = 2_000_000


def calibration(
    chosen: npt.ArrayLike, rejected: npt.ArrayLike, prompts: Sequence[str], bootstrap: Bootstrap
) -> dict[str, Any]:
    """JSON values of rewards [pairs].

    `auc`: chance that the chosen answer of any pair has a higher reward than the rejected one of
    any pair, ties half. `log_loss`: of the chosen answer's chance, in nats. `ece`: expected
    calibration error over equally full bins.
    """
    left, right = np.asarray(chosen, float), np.asarray(rejected, float)
    off = surprises(left - right)
    columns = np.concatenate([np.ones((len(off), 1)), log_losses(left - right)[:, None], off], 1)
    sums, _ = cluster_sums(columns, prompts)
    num = min(bootstrap.num_bootstrap, _MAX_RESAMPLES)

    def figures(sums: Floats) -> Floats:
        means = sums[:, 1:] / sums[:, :1]
        return np.stack([means[:, 0], np.abs(means[:, 1:]).sum(axis=1)], axis=1)

    point = figures(sums.sum(axis=0, keepdims=True))[0]
    draws = resampled(sums, num, figures, bootstrap.seed)
    low, high = percentiles(draws, bootstrap.confidence)
    auc = _auc_interval(left, right, np.unique(np.asarray(prompts), return_inverse=True)[1],
                        bootstrap, num)  # fmt: skip
    made = [
        Interval(float(p), float(a), float(b)) for p, a, b in zip(point, low, high, strict=True)
    ]
    return {"auc": asdict(auc), "log_loss": asdict(made[0]), "ece": asdict(made[1]),
            "num_bins": off.shape[1]}  # fmt: skip


def _auc_interval(
    left: Floats, right: Floats, prompt: npt.NDArray[np.intp], bootstrap: Bootstrap, num: int
) -> Interval:
    _, group = np.unique(np.concatenate([left, right]), return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    owner, is_chosen = np.tile(prompt, 2)[order], (order < len(left))

    def auc(weights: Floats) -> Floats:
        """Of weights of the answers [rows, 2 x pairs], in the order of their rewards."""
        up, down = (
            np.add.reduceat(np.where(mask, weights, 0.0), starts, axis=1)
            for mask in (is_chosen, ~is_chosen)
        )
        below = np.cumsum(down, axis=1) - down / 2
        return (up * below).sum(axis=1) / (up.sum(axis=1) * down.sum(axis=1))

    point = float(auc(np.ones((1, 2 * len(left))))[0])
    step = max(1, _CELLS // (2 * len(left)))
    draws = []
    for counts in resample_counts(int(prompt.max()) + 1, num, bootstrap.seed):
        draws += [auc(counts[i : i + step, owner]) for i in range(0, len(counts), step)]
    (low,), (high,) = percentiles(np.concatenate(draws)[:, None], bootstrap.confidence)
    return Interval(point, float(low), float(high))
