"""What the rewards of pairs are worth beyond their order: AUC, log-loss, calibration error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from scipy.stats import rankdata

from codepmp_ray.evaluation.pairwise.accuracy import Bootstrap
from codepmp_ray.resampling import Floats, Interval, percentiles, resample_counts
from codepmp_ray.scoring.calibration import expected_error, log_losses

_MAX_RESAMPLES = 500


def calibration(
    chosen: npt.ArrayLike, rejected: npt.ArrayLike, prompts: Sequence[str], bootstrap: Bootstrap
) -> dict[str, Any]:
    """JSON values of rewards [pairs], with intervals over prompts.

    `auc`: chance that the chosen answer of any pair has a higher reward than the rejected one of
    any pair, ties half. `log_loss`: of the chosen answer's chance, in nats; ln 2 knows nothing.
    `ece`: expected calibration error over equally full bins. A resample shows a larger one than the
    pairs themselves, so its interval is moved back by that difference. `ece_by_chance`: what the
    same rewards would show on as many pairs if they were calibrated (consistency resampling,
    Broecker and Smith 2007); an `ece` within it is no sign of an error.
    """
    sides = np.stack([np.asarray(chosen, float), np.asarray(rejected, float)])
    _, prompt = np.unique(np.asarray(prompts), return_inverse=True)
    num = min(bootstrap.num_bootstrap, _MAX_RESAMPLES)
    draws = np.array([
        _figures(sides[:, np.repeat(np.arange(len(prompt)), counts[prompt].astype(int))])
        for block in resample_counts(int(prompt.max()) + 1, num, bootstrap.seed)
        for counts in block
    ])  # fmt: skip
    figures = _figures(sides)
    draws[:, 2] = np.maximum(draws[:, 2] + figures[2] - draws[:, 2].mean(), 0.0)
    by_chance = _calibrated_errors(sides[0] - sides[1], num, bootstrap.seed)
    low, high = percentiles(np.column_stack([draws, by_chance]), bootstrap.confidence)
    means = (*figures, by_chance.mean())
    found = zip(("auc", "log_loss", "ece", "ece_by_chance"), means, low, high, strict=True)
    return {name: asdict(Interval(*map(float, ends))) for name, *ends in found}


def _calibrated_errors(gaps: Floats, num: int, seed: int) -> Floats:
    """Errors [num] where each pair's better side is right as often as its gap says."""
    sure, random = np.abs(gaps), np.random.default_rng(seed)
    right = (random.random(len(gaps)) < expit(sure) for _ in range(num))
    return np.array([expected_error(np.where(is_right, sure, -sure)) for is_right in right])


def _figures(sides: Floats) -> tuple[float, float, float]:
    num, gaps = sides.shape[1], sides[0] - sides[1]
    above = rankdata(sides.ravel())[:num].sum() - num * (num + 1) / 2
    return above / num**2, float(log_losses(gaps).mean()), expected_error(gaps)
