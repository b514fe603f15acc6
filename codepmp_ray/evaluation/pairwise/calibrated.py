"""What the rewards of pairs are worth beyond their order: AUC, log-loss, calibration error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
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
    `ece`: expected calibration error over equally full bins.
    """
    sides = np.stack([np.asarray(chosen, float), np.asarray(rejected, float)])
    _, prompt = np.unique(np.asarray(prompts), return_inverse=True)
    num = min(bootstrap.num_bootstrap, _MAX_RESAMPLES)
    draws = np.array([
        _figures(sides[:, np.repeat(np.arange(len(prompt)), counts[prompt].astype(int))])
        for block in resample_counts(int(prompt.max()) + 1, num, bootstrap.seed)
        for counts in block
    ])  # fmt: skip
    low, high = percentiles(draws, bootstrap.confidence)
    found = zip(("auc", "log_loss", "ece"), _figures(sides), low, high, strict=True)
    return {name: asdict(Interval(*map(float, ends))) for name, *ends in found}


def _figures(sides: Floats) -> tuple[float, float, float]:
    num, gaps = sides.shape[1], sides[0] - sides[1]
    above = rankdata(sides.ravel())[:num].sum() - num * (num + 1) / 2
    return above / num**2, float(log_losses(gaps).mean()), expected_error(gaps)
