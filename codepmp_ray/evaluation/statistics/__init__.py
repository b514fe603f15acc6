"""Best-of-N for every k from one pool per problem, baselines, intervals and comparisons.

Functions of pools take arrays [problems, candidates] and give [problems, ks]; functions of
intervals and comparisons take figures by problem. Expectations are exact (over all subsets, ties
shared equally); where something is sampled, its Monte Carlo error is returned beside it.
"""

from __future__ import annotations

from codepmp_ray.evaluation.statistics.comparison import (
    Comparison,
    Difference,
    bootstrap_intervals,
    bootstrap_ratio,
    compare,
    compare_gaps,
    detectable_difference,
    holm,
    mcnemar,
    paired_difference,
)
from codepmp_ray.evaluation.statistics.picks import (
    best_of_k,
    default_ks,
    expected_best_score,
    model_prior_scores,
    one_draw_sd,
    oracle,
    padded,
    random_choice,
)
from codepmp_ray.evaluation.statistics.stopping import StopSettings, fit_threshold
from codepmp_ray.evaluation.statistics.voting import majority, vote_weights, weighted_majority
from codepmp_ray.resampling import Floats, Interval, unseen_share

__all__ = [
    "Comparison",
    "Difference",
    "Floats",
    "Interval",
    "StopSettings",
    "best_of_k",
    "bootstrap_intervals",
    "bootstrap_ratio",
    "compare",
    "compare_gaps",
    "default_ks",
    "detectable_difference",
    "expected_best_score",
    "fit_threshold",
    "holm",
    "majority",
    "mcnemar",
    "model_prior_scores",
    "one_draw_sd",
    "oracle",
    "padded",
    "paired_difference",
    "random_choice",
    "unseen_share",
    "vote_weights",
    "weighted_majority",
]
