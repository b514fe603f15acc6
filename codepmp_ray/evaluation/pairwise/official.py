"""Benchmarks of pairs by the figures that their authors report: ties, parts, micro or macro.

RewardBench and RM-Bench have files of their own. Of the others: how equal rewards count, which
means of parts are reported, and, of RewardBench 2, best of four and ties. Sources: rewardbench's
run_v2.py and utils.py (allenai/reward-bench, commit 0016644), Malik et al. 2025; Tan et al. 2024
(JudgeBench); Frick et al. 2024 (PPE); evaluation scripts of iNeil77/Themis (CodeRewardBench).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from codepmp_ray.evaluation.pairwise.reward_bench import reward_bench
from codepmp_ray.evaluation.pairwise.rm_bench import by_prompt, rm_bench
from codepmp_ray.evaluation.tasks.preference_sets import REWARD_BENCH_2, TIES
from codepmp_ray.resampling import Floats, resample_counts, share_limits

Rows = Sequence[dict[str, Any]]
Made = dict[str, Any]
TOTAL = "total"


def official(task: str, rows: Rows, bootstrap: Bootstrap) -> Made | None:
    """JSON values of PAIR_SCORE rows of a task; None for a set without figures of its own."""
    made = _BENCHMARKS.get(task)
    return None if made is None or not rows else made(rows, bootstrap)


def has_wrong_ties(task: str) -> bool:
    """Equal rewards are wrong in every benchmark."""
    return task in _BENCHMARKS


def _part(row: dict[str, Any]) -> str:
    return row["section"].partition("/")[2]


def _outcomes(rows: Rows) -> Outcomes:
    chosen, rejected = ([row[f"{side}_score"] for row in rows] for side in ("chosen", "rejected"))
    return Outcomes.of(chosen, rejected, [row["problem_id"] for row in rows], 0.0)


def _micro(rows: Rows, bootstrap: Bootstrap) -> Made:
    """Parts, and all pairs together."""
    return _by(rows, _part, bootstrap) | {
        TOTAL: asdict(accuracy_by_section(_outcomes(rows), [TOTAL] * len(rows), bootstrap)[TOTAL])
    }


def _macro(rows: Rows, bootstrap: Bootstrap) -> Made:
    """Parts, and their plain mean."""
    parts = [_part(row) for row in rows]
    weights = {TOTAL: dict.fromkeys(parts, 1.0)}
    mean = weighted_accuracy(_outcomes(rows), parts, weights, bootstrap)[TOTAL]
    return _by(rows, _part, bootstrap) | {TOTAL: asdict(mean)}


def _by(rows: Rows, part: Callable[[dict[str, Any]], str], bootstrap: Bootstrap) -> Made:
    found = accuracy_by_section(_outcomes(rows), list(map(part, rows)), bootstrap)
    return {"parts": {name: asdict(value) for name, value in sorted(found.items())}}


def _criteria_and_languages(rows: Rows, bootstrap: Bootstrap) -> Made:
    """CodeRewardBench: by criterion, by language, and all pairs together."""
    criteria, languages = (
        _by(rows, lambda row, i=i: _part(row).split("/")[i], bootstrap)["parts"] for i in (0, 1)
    )
    return {"parts": criteria | languages, TOTAL: _micro(rows, bootstrap)[TOTAL]}


def _reward_bench(rows: Rows, bootstrap: Bootstrap) -> Made:
    outcomes = [[row[name] for row in rows] for name in ("chosen_score", "rejected_score")]
    parts = [row["section"].removeprefix("reward_bench/") for row in rows]
    return reward_bench(*outcomes, parts, [row["problem_id"] for row in rows], bootstrap)


def _rm_bench(rows: Rows, bootstrap: Bootstrap) -> Made:
    return rm_bench(*by_prompt(rows), bootstrap)


def reward_bench_2(rows: Rows, bootstrap: Bootstrap) -> Made:
    """Best of four by part, ties by their own score, and the plain mean of the six parts.

    The best of four is right where the one right answer has the highest reward, shared among those
    that have it too. Ties: three tenths each for right answers above all wrong ones where there is
    one right answer ("ref") and where there are many ("tied"); a fifth each for right answers being
    nearer to each other than to wrong ones, in the question with many and in both of a couple; one
    hundredth for by how much.
    """
    scores = _scores_by_row(rows)
    parts: dict[str, list[tuple[str, Floats, Floats]]] = {}
    for part, name, right, wrong in scores:
        parts.setdefault(part, []).append((name, right, wrong))
    found: Made = {"parts": {}, "missing": [name for name in REWARD_BENCH_2 if name not in parts]}
    draws = []
    for part, items in parts.items():
        point, drawn, num = (
            _ties(items, bootstrap)
            if part == TIES
            else _best_of_four([(right, wrong) for _, right, wrong in items], bootstrap)
        )
        found["parts"][part] = _limits(point, drawn, num, bootstrap) | {"num_prompts": num}
        draws.append((point, drawn))
    # Parts are resampled apart: they share no prompt.
    point = float(np.mean([point for point, _ in draws]))
    found[TOTAL] = _limits(point, np.mean([d for _, d in draws], axis=0), len(scores), bootstrap)
    return found


def _scores_by_row(rows: Rows) -> list[tuple[str, str, Floats, Floats]]:
    """(part, id, rewards of right answers, of wrong ones) of each row of the set."""
    found: dict[str, tuple[str, str, dict[int, float], dict[int, float]]] = {}
    for row in rows:
        name, _, places = row["variant"].rpartition("|")
        right, wrong = map(int, places.split("/"))
        item = found.setdefault(row["problem_id"], (_part(row), name, {}, {}))
        item[2][right], item[3][wrong] = row["chosen_score"], row["rejected_score"]
    return [
        (part, name, np.array([*right.values()]), np.array([*wrong.values()]))
        for part, name, right, wrong in found.values()
    ]


def _best_of_four(
    items: Sequence[tuple[Floats, Floats]], bootstrap: Bootstrap
) -> tuple[float, Floats, int]:
    """(share of the best, its resamples, prompts); the one right answer shares a highest reward."""
    values = np.array([
        1 / (1 + (wrong == right[0]).sum()) if right[0] >= wrong.max() else 0.0
        for right, wrong in items
    ])  # fmt: skip
    counts = resample_counts(len(values), bootstrap.num_bootstrap, bootstrap.seed)
    drawn = np.concatenate([block @ values for block in counts]) / len(values)
    return float(values.mean()), drawn, len(values)


def _ties(
    items: Sequence[tuple[str, Floats, Floats]], bootstrap: Bootstrap
) -> tuple[float, Floats, int]:
    """(score, its resamples, couples), couples of a "ref" and a "tied" question resampled."""
    stats: dict[str, dict[str, tuple[float, float]]] = {"ref": {}, "tied": {}}
    for name, right, wrong in items:
        kind, _, number = name.partition(":")
        if kind not in stats or not number:
            raise InputError(
                f"RewardBench 2's part {TIES} has a row with the id {name!r}.",
                'Its ids are "ref:NUMBER" and "tied:NUMBER".',
            )
        stats[kind][number] = float(right.max() - right.min()), float(right.min() - wrong.max())
    couples = sorted(stats["ref"].keys() & stats["tied"].keys())
    if not couples:
        raise InputError(
            f"No question of RewardBench 2's part {TIES} is there with one right answer and many.",
            "Give all rows of the part.",
        )
    spread = np.array([stats["tied"][name][0] for name in couples])
    tied, ref = (np.array([stats[kind][name][1] for name in couples]) for kind in ("tied", "ref"))
    both = np.minimum(tied, ref)
    with np.errstate(divide="ignore", invalid="ignore"):
        beyond = np.nan_to_num(np.tanh(both / spread - 1), nan=0.0)
    # As the authors do, accuracies count rows without a partner, too; only couples are resampled.
    accuracies = [np.mean([gap > 0 for _, gap in of.values()]) for of in stats.values()]
    by_couple = 0.3 * (tied > 0) + 0.3 * (ref > 0) + 0.2 * (tied > spread) + 0.2 * (both > spread)
    by_couple = by_couple + 0.01 * beyond
    point = float(
        0.3 * sum(accuracies)
        + (by_couple - 0.3 * (tied > 0) - 0.3 * (ref > 0)).mean()
    )  # fmt: skip
    counts = resample_counts(len(couples), bootstrap.num_bootstrap, bootstrap.seed)
    drawn = np.concatenate([block @ by_couple for block in counts]) / len(couples)
    return point, drawn + (point - by_couple.mean()), len(couples)


def _limits(point: float, drawn: Floats, num: int, bootstrap: Bootstrap) -> Made:
    (low,), (high,) = share_limits(drawn[:, None], bootstrap.confidence, num)
    return {"mean": point, "low": float(low), "high": float(high)}


_BENCHMARKS: dict[str, Callable[[Rows, Bootstrap], Made]] = {
    "reward_bench": _reward_bench,
    "reward_bench_2": reward_bench_2,
    "rm_bench": _rm_bench,
    "judge_bench": _micro,
    "ppe_human": _micro,
    "ppe_correctness": _macro,
    "code_reward_bench": _criteria_and_languages,
}
