"""RewardBench's figures (Lambert et al. 2024) by its own sections and weights. Paper, Table 6.

A section's score is the mean of its subsets' accuracies weighted by their numbers of prompts, with
math-prm raised to the 984 of the code subsets. The total is the mean of the four sections; where
the prior sets were scored, their plain mean joins it with half the weight of a section. Equal
rewards are wrong. As in analysis/get_benchmark_results.py of allenai/reward-bench, commit 05a9005.

Table 6's column "Summary" is none of the four sections. RewardBench knows a prior set of that kind,
`summarize`; it is shown by that name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.pairwise.accuracy import (
    Bootstrap,
    Outcomes,
    accuracy_by_section,
    weighted_accuracy,
)
from codepmp_ray.evaluation.tasks.reward_bench import PRIOR_SETS, SECTIONS, SUBSETS, canonical

TIE = 0.0
TOTAL, PRIOR = "Total", "Prior Sets"
_SECTION_WEIGHT, _PRIOR_WEIGHT = 2, 1


def reward_bench(
    chosen: npt.ArrayLike,
    rejected: npt.ArrayLike,
    subsets: Sequence[str],
    prompts: Sequence[str] | None = None,
    bootstrap: Bootstrap | None = None,
) -> dict[str, Any]:
    """JSON values: `sections` and `subsets` with intervals, and which subsets are `missing`.

    Sections of some subsets are means of those, as the official program makes them; `is_complete`
    says whether all are there. Raises InputError for a subset that RewardBench does not have.
    """
    settings = bootstrap or Bootstrap()
    outcomes = Outcomes.of(chosen, rejected, prompts, TIE)
    subsets = [canonical(name) or name for name in subsets]
    present = set(subsets)
    if unknown := sorted(present - {*SUBSETS, *PRIOR_SETS}):
        raise InputError(
            f"RewardBench has no subset {unknown[0]!r}.", f"It has {', '.join(SUBSETS)}."
        )
    weights: dict[str, dict[str, float]] = {
        name: {subset: float(weight) for subset, weight in parts.items() if subset in present}
        for name, parts in SECTIONS.items()
    }
    weights[PRIOR] = {subset: 1.0 for subset in PRIOR_SETS if subset in present}
    weights = {name: parts for name, parts in weights.items() if parts}
    weights[TOTAL] = _total(weights)
    sections = weighted_accuracy(outcomes, np.asarray(subsets), weights, settings)
    missing = [subset for subset in SUBSETS if subset not in present]
    return {
        "sections": {name: asdict(interval) for name, interval in sections.items()},
        "subsets": {
            name: asdict(found)
            for name, found in accuracy_by_section(outcomes, subsets, settings).items()
        },
        "missing": missing,
        "is_complete": not missing,
    }


def _total(weights: dict[str, dict[str, float]]) -> dict[str, float]:
    """Weights of subsets in the total: each section's share, spread as within the section."""
    total: dict[str, float] = {}
    for name, parts in weights.items():
        share = _PRIOR_WEIGHT if name == PRIOR else _SECTION_WEIGHT
        for subset, weight in parts.items():
            total[subset] = share * weight / sum(parts.values())
    return total
