"""Benchmarks of pairs by the figures that their authors report: ties, parts, micro or macro.

Equal rewards are wrong; in RewardBench 2's best of four they share. Sources:
get_benchmark_results.py (commit 05a9005), run_v2.py and utils.py (0016644) of
allenai/reward-bench, Lambert et al. 2024, Malik et al. 2025; scripts/utils.py of THU-KEG/RM-Bench,
Liu et al. 2024; Tan et al. 2024 (JudgeBench); Frick et al. 2024 (PPE); the evaluation scripts of
iNeil77/Themis (CodeRewardBench).

Paper, Table 6: its column "Summary" is none of RewardBench's sections. RewardBench knows a prior
set of that kind, `summarize`; it is shown by that name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.pairwise.accuracy import (
    Bootstrap,
    Outcomes,
    accuracy_by_section,
    weighted_accuracy,
)
from codepmp_ray.evaluation.tasks.preference_sets import DOMAINS, REWARD_BENCH_2, STYLES, TIES
from codepmp_ray.evaluation.tasks.reward_bench import PRIOR_SETS, SECTIONS, SUBSETS, canonical
from codepmp_ray.resampling import Floats, intervals, resampled_means, share_limits

Rows = Sequence[dict[str, Any]]
Made = dict[str, Any]
TOTAL, PRIOR = "Total", "Prior Sets"
LEVELS = ("hard", "normal", "easy")
_SECTION_WEIGHT, _PRIOR_WEIGHT = 2, 1


def official(task: str, rows: Rows, bootstrap: Bootstrap) -> Made | None:
    """JSON values of PAIR_SCORE rows of a task; None for a set without figures of its own.

    `sections` are the figures that are reported, `parts` those of the set's parts, each with its
    interval over prompts; `missing` names parts without rows.
    """
    made = BENCHMARKS.get(task)
    return None if made is None or not rows else made(rows, bootstrap)


def _part(row: dict[str, Any]) -> str:
    return row["section"].partition("/")[2] or row["section"]


def _outcomes(rows: Rows) -> Outcomes:
    chosen, rejected = ([row[f"{side}_score"] for row in rows] for side in ("chosen", "rejected"))
    return Outcomes.of(chosen, rejected, [row["problem_id"] for row in rows], 0.0)


def _by(rows: Rows, names: list[str], bootstrap: Bootstrap) -> Made:
    found = accuracy_by_section(_outcomes(rows), names, bootstrap)
    return {name: asdict(value) for name, value in found.items()}


def _weighted(
    rows: Rows, names: list[str], weights: Mapping[str, Mapping[str, float]], bootstrap: Bootstrap
) -> Made:
    found = weighted_accuracy(_outcomes(rows), names, weights, bootstrap)
    return {name: asdict(value) for name, value in found.items()}


def _micro(rows: Rows, bootstrap: Bootstrap) -> Made:
    """All pairs together."""
    parts = _by(rows, list(map(_part, rows)), bootstrap)
    return {"sections": _by(rows, [TOTAL] * len(rows), bootstrap), "parts": parts, "missing": []}


def _macro(rows: Rows, bootstrap: Bootstrap) -> Made:
    """The plain mean of the parts."""
    parts = list(map(_part, rows))
    means = _weighted(rows, parts, {TOTAL: dict.fromkeys(parts, 1.0)}, bootstrap)
    return {"sections": means, "parts": _by(rows, parts, bootstrap), "missing": []}


def _criteria_and_languages(rows: Rows, bootstrap: Bootstrap) -> Made:
    """CodeRewardBench: by criterion and by language, and all pairs together."""
    found = _micro(rows, bootstrap)
    criteria, languages = zip(*(_part(row).split("/") for row in rows), strict=True)
    found["parts"] = _by(rows, [*criteria], bootstrap) | _by(rows, [*languages], bootstrap)
    return found


def _reward_bench(rows: Rows, bootstrap: Bootstrap) -> Made:
    """A section is the mean of its subsets weighted by their official numbers of prompts.

    The total is the mean of the sections; where the prior sets were scored, their plain mean joins
    it with half the weight of a section. Raises InputError for a subset that there is not.
    """
    subsets = [canonical(_part(row)) or _part(row) for row in rows]
    if unknown := sorted({*subsets} - {*SUBSETS, *PRIOR_SETS}):
        raise InputError(
            f"RewardBench has no subset {unknown[0]!r}.", f"It has {', '.join(SUBSETS)}."
        )
    known = {**SECTIONS, PRIOR: dict.fromkeys(PRIOR_SETS, 1)}
    weights = {
        name: {subset: float(weight) for subset, weight in parts.items() if subset in subsets}
        for name, parts in known.items()
        if not parts.keys().isdisjoint(subsets)
    }
    weights[TOTAL] = {
        subset: (_PRIOR_WEIGHT if name == PRIOR else _SECTION_WEIGHT) * weight / sum(parts.values())
        for name, parts in weights.items()
        for subset, weight in parts.items()
    }
    return {
        "sections": _weighted(rows, subsets, weights, bootstrap),
        "parts": _by(rows, subsets, bootstrap),
        "missing": [subset for subset in SUBSETS if subset not in subsets],
    }


def _rm_bench(rows: Rows, bootstrap: Bootstrap) -> Made:
    """Three styles of each answer, every chosen against every rejected; means over the domains.

    Of the 3 x 3 accuracies the diagonal is "normal", above it "hard" (a plain right answer against
    a fancier wrong one), below it "easy".
    """
    cells = {f"{one}/{other}": LEVELS[1 + (STYLES.index(one) > STYLES.index(other))
                                      - (STYLES.index(one) < STYLES.index(other))]
             for one in STYLES for other in STYLES}  # fmt: skip
    domains = [name for name in DOMAINS if name in set(map(_part, rows))]

    def mean(variants: Sequence[str], of: Sequence[str] = domains) -> dict[str, float]:
        return {f"{domain} {variant}": 1.0 for domain in of for variant in variants}

    weights = {level: mean([v for v, of in cells.items() if of == level]) for level in LEVELS}
    weights |= {domain: mean([*cells], [domain]) for domain in domains} | {TOTAL: mean([*cells])}
    of_cells = {variant: mean([variant]) for variant in cells}
    names = [f"{_part(row)} {row['variant']}" for row in rows]
    return {
        "sections": _weighted(rows, names, weights, bootstrap),
        "parts": _weighted(rows, names, of_cells, bootstrap),
        "missing": [name for name in DOMAINS if name not in domains],
    }


def _reward_bench_2(rows: Rows, bootstrap: Bootstrap) -> Made:
    """Best of four by part, ties by their own score, and the plain mean of the six parts."""
    answers: dict[str, tuple[str, str, dict[int, float], dict[int, float]]] = {}
    for row in rows:
        name, _, places = row["variant"].rpartition("|")
        right, wrong = map(int, places.split("/"))
        item = answers.setdefault(row["problem_id"], (_part(row), name, {}, {}))
        item[2][right], item[3][wrong] = row["chosen_score"], row["rejected_score"]
    by_part: dict[str, list[tuple[str, Floats, Floats]]] = {}
    for part, name, good, bad in answers.values():
        rewards = np.array([*good.values()]), np.array([*bad.values()])
        by_part.setdefault(part, []).append((name, *rewards))
    values = {
        part: _ties(items) if part == TIES else np.array([_best_of_four(*i[1:]) for i in items])
        for part, items in by_part.items()
    }
    draws = {
        part: resampled_means(found[:, None], bootstrap.num_bootstrap, bootstrap.seed + number)
        for number, (part, found) in enumerate(values.items())  # parts share no prompt
    }
    values[TOTAL] = np.array([found.mean() for found in values.values()])
    draws[TOTAL] = np.mean([*draws.values()], axis=0)
    made = {}
    for part, found in values.items():
        num = len(answers) if part == TOTAL else len(found)
        limits = share_limits(draws[part], bootstrap.confidence, num)
        made[part] = asdict(intervals([found.mean()], *limits)[0])
    missing = [name for name in REWARD_BENCH_2 if name not in by_part]
    return {"sections": {TOTAL: made.pop(TOTAL)}, "parts": made, "missing": missing}


def _best_of_four(right: Floats, wrong: Floats) -> float:
    """Whether the right answer has the highest reward, which it shares with wrong ones that do."""
    return 1 / (1 + (wrong == right[0]).sum()) if right[0] >= wrong.max() else 0.0


def _ties(items: Sequence[tuple[str, Floats, Floats]]) -> Floats:
    """Scores [couples] of a question with one right answer ("ref") and with many ("tied").

    Three tenths each for right answers above all wrong ones in either, a fifth each for right
    answers being nearer to each other than to wrong ones (in the one with many, and in both), one
    hundredth for by how much. Raises InputError for a question without its other half.
    """
    stats: dict[str, dict[str, tuple[float, float]]] = {"ref": {}, "tied": {}}
    for name, right, wrong in items:
        kind, _, number = name.partition(":")
        of_kind = stats.get(kind, {})
        of_kind[number] = float(right.max() - right.min()), float(right.min() - wrong.max())
    couples = sorted(stats["ref"].keys() & stats["tied"].keys())
    if 2 * len(couples) != len(items):
        raise InputError(
            f"{len(items)} questions of RewardBench 2's part {TIES} make {len(couples)} couples of "
            '"ref:NUMBER" and "tied:NUMBER".',
            "Give both rows of every couple.",
        )
    spread = np.array([stats["tied"][name][0] for name in couples])
    ref, tied = (np.array([of[name][1] for name in couples]) for of in stats.values())
    both = np.minimum(tied, ref)
    with np.errstate(divide="ignore", invalid="ignore"):
        beyond = np.nan_to_num(np.tanh(both / spread - 1), nan=0.0)
    right = 0.3 * (tied > 0) + 0.3 * (ref > 0)
    return right + 0.2 * (tied > spread) + 0.2 * (both > spread) + 0.01 * beyond


BENCHMARKS: dict[str, Callable[[Rows, Bootstrap], Made]] = {
    "reward_bench": _reward_bench,
    "reward_bench_2": _reward_bench_2,
    "rm_bench": _rm_bench,
    "judge_bench": _micro,
    "ppe_human": _micro,
    "ppe_correctness": _macro,
    "code_reward_bench": _criteria_and_languages,
}
