"""From pools, grades and scores to results.json: curves by k, baselines, one honest sentence.

Baselines on the same pools: `random` (any of k), `length` (the longest of k, in tokens: the bias
that reward models are known for), `majority` (the final answer given most often; of code,
layout aside) and `oracle` (a right one if there is any).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from codepmp_ray.config.evaluation import CandidatesConfig, EvaluationConfig
from codepmp_ray.errors import InputError
from codepmp_ray.evaluation import statistics
from codepmp_ray.evaluation.answer_groups import answer_groups

Row = dict[str, Any]
_NUM_MAJORITY_DRAWS = 1_000


@dataclass(frozen=True)
class Pool:
    """The candidates of one problem (CANDIDATE rows) in the order of their samples."""

    problem_id: str
    prompt: str
    candidates: list[Row]


def evaluation_pools(candidates: list[Row]) -> tuple[list[Pool], int]:
    """Pools of the evaluation problems, cut to one common size, and how many candidates that cut.

    Raises InputError when there is none.
    """
    of_problem: dict[str, list[Row]] = {}
    for row in sorted(candidates, key=lambda row: (row["problem_id"], row["sample_index"])):
        if row["split"] == "eval":
            of_problem.setdefault(row["problem_id"], []).append(row)
    if not of_problem:
        raise InputError(
            "There are no candidates of evaluation problems.", "Run python -m jobs.sample again."
        )
    size = min(map(len, of_problem.values()))
    num_cut = sum(len(rows) - size for rows in of_problem.values())
    pools = [Pool(name, rows[0]["prompt"], rows[:size]) for name, rows in of_problem.items()]
    return pools, num_cut


def summarise(
    pools: list[Pool],
    grades: list[Row],
    scores: list[Row],
    task: CandidatesConfig,
    config: EvaluationConfig,
) -> dict[str, Any]:
    """The measured part of results.json.

    Where answers were not executed there is no accuracy: `bon` then holds no series and the verdict
    says why. Raises InputError when a candidate lacks a grade or a score.
    """
    score_of = {row["candidate_id"]: row["score"] for row in scores}
    grade_of = {row["candidate_id"]: row for row in grades}
    reward = _table(pools, score_of, "score")
    marks = _table(pools, {name: _mark(row) for name, row in grade_of.items()}, "grade")
    ks = statistics.default_ks(reward.shape[1])
    executed = not np.isnan(marks).any()
    results: dict[str, Any] = {
        "task": task.task,
        "num_problems": len(pools),
        "num_candidates": reward.shape[1],
        "confidence": config.confidence,
        "executed": executed,
        "scores": {
            "num": int(reward.size),
            "mean": float(reward.mean()),
            "std": float(reward.std()),
        },
        "bon": {"k": ks},
    }
    if not executed:
        details = [row["detail"] for row in grades if row["passed"] is None]
        why = details[0] if details else "unknown"
        results["verdict"] = f"No verdict: answers were not executed. {why}"
        results["difference"] = None
        return results
    groups = np.array([
        answer_groups([grade_of[row["candidate_id"]].get("answer") for row in pool.candidates])
        for pool in pools
    ])  # fmt: skip
    curves, majority_error = _curves(pools, groups, reward, marks, ks, config.seed)
    for name, values in curves.items():
        intervals = statistics.bootstrap_intervals(
            values, config.confidence, config.num_bootstrap, config.seed
        )
        results["bon"][name] = {
            "accuracy": [interval.mean for interval in intervals],
            "low": [interval.low for interval in intervals],
            "high": [interval.high for interval in intervals],
        }
    results["bon"]["length"]["rule"] = "longest answer, in tokens"
    results["bon"]["majority"]["monte_carlo_error"] = [float(error) for error in majority_error]
    difference = statistics.paired_difference(
        curves["reward_model"][:, -1],
        curves["random"][:, -1],
        config.confidence,
        config.num_bootstrap,
        config.seed,
    )
    results["difference"] = {"k": ks[-1], **asdict(difference)}
    results["verdict"] = verdict(difference, ks[-1], len(pools), config.confidence)
    return results


def verdict(difference: statistics.Difference, k: int, num_problems: int, confidence: float) -> str:
    """One sentence that claims no more than the interval allows."""
    measured = (
        f"at k={k} on {num_problems} problems: {100 * difference.mean:+.1f} points, "
        f"{100 * confidence:g} % interval {100 * difference.low:+.1f} to "
        f"{100 * difference.high:+.1f}, p = {difference.p_value:.2g}"
    )
    if not difference.excludes_zero:
        return f"The reward model against a random choice {measured}: too small to tell."
    word = "better" if difference.mean > 0 else "worse"
    return f"The reward model is {word} than a random choice {measured}."


def _curves(
    pools: list[Pool],
    groups: npt.NDArray[np.int64],
    reward: statistics.Floats,
    marks: statistics.Floats,
    ks: list[int],
    seed: int,
) -> tuple[dict[str, statistics.Floats], statistics.Floats]:
    lengths = np.array([_lengths(pool) for pool in pools], float)
    majority, error = statistics.majority(groups, marks, ks, _NUM_MAJORITY_DRAWS, seed)
    curves = {
        "reward_model": statistics.best_of_k(reward, marks, ks),
        "random": statistics.random_choice(marks, ks),
        "length": statistics.best_of_k(lengths, marks, ks),
        "majority": majority,
        "oracle": statistics.oracle(marks, ks),
    }
    return curves, error


def _lengths(pool: Pool) -> list[int]:
    """Tokens, or characters where a file of pools does not count tokens."""
    tokens = [row["num_tokens"] for row in pool.candidates]
    if None in tokens:
        return [len(row["completion"]) for row in pool.candidates]
    return tokens


def _mark(grade: Row) -> float:
    return float("nan") if grade["passed"] is None else float(grade["passed"])


def _table(pools: list[Pool], value_of: dict[str, float], what: str) -> statistics.Floats:
    try:
        return np.array(
            [[value_of[row["candidate_id"]] for row in pool.candidates] for pool in pools], float
        )
    except KeyError as error:
        raise InputError(
            f"The candidate {error.args[0]} has no {what}.",
            "The stages do not belong together; run the job before this one again.",
        ) from error
