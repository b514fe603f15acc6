"""A figure at several sizes (samples, pairs), measured on the same problems, and draws of it.

What is fitted to a curve is fitted again to every draw: that is its interval. Of one thing at every
size the problems are resampled, together for all sizes. Of trainings the draws are those of
Student's t with the covariances between sizes over problems and over trainings: the same error as
`estimates.estimate` gives a single mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from codepmp_ray.errors import InputError
from codepmp_ray.estimates import MIN_TRAININGS
from codepmp_ray.resampling import Floats, resampled_means


@dataclass(frozen=True)
class Curve:
    """`mean` [sizes] and `draws` [draws, sizes] at increasing `sizes`.

    `num_trainings` at each size; None where the figures are of one thing each.
    """

    sizes: Floats
    mean: Floats
    draws: Floats
    num_trainings: int | None = None

    @property
    def is_known(self) -> bool:
        """Whether the draws allow for other trainings, where there are trainings."""
        return self.num_trainings is None or self.num_trainings >= MIN_TRAININGS


def curve(
    sizes: Sequence[float], values: Sequence[Floats], num_draws: int = 2_000, seed: int = 0
) -> Curve:
    """From figures by problem: one array [problems], or [trainings, problems], for each size.

    Raises InputError for sizes that do not increase and for figures of other problems.
    """
    places = np.asarray(sizes, float)
    if len(places) != len(values) or not len(places):
        raise InputError(f"{len(values)} figures were given for {len(places)} sizes.")
    if not (np.diff(places) > 0).all() or places[0] <= 0:
        raise InputError(f"Sizes must be positive and increase, not {places.tolist()}.")
    tables = [np.asarray(value, float) for value in values]
    if len(shapes := {table.shape for table in tables}) > 1 or 0 in tables[0].shape or any(
        np.isnan(table).any() for table in tables
    ):  # fmt: skip
        raise InputError(
            f"Every size needs a figure for the same problems; there are {sorted(shapes)} and no "
            "NaN is allowed.",
        )
    stacked = np.stack(tables)
    if stacked.ndim == 2:
        draws = resampled_means(stacked.T, num_draws, seed)
        return Curve(places, stacked.mean(axis=1), draws)
    mean, num_trainings = stacked.mean(axis=(1, 2)), stacked.shape[1]
    return Curve(places, mean, mean + _noise(stacked, num_draws, seed), num_trainings)


def _noise(stacked: Floats, num_draws: int, seed: int) -> Floats:
    """Errors of the means [draws, sizes] of [sizes, trainings, problems]."""
    num_sizes, num_trainings, num_problems = stacked.shape
    covariance = np.zeros((num_sizes, num_sizes))
    for means, num in ((stacked.mean(axis=1), num_problems), (stacked.mean(axis=2), num_trainings)):
        if num > 1:
            covariance += np.cov(means).reshape(num_sizes, num_sizes) / num
    generator = np.random.default_rng(seed)
    df = max(num_trainings - 1, 1)
    normal = generator.multivariate_normal(np.zeros(num_sizes), covariance, num_draws)
    return normal / np.sqrt(generator.chisquare(df, num_draws) / df)[:, None]
