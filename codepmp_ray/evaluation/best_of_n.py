"""From pools, grades and scores to results.json: curves by k, baselines, one honest sentence.

Baselines on the same pools: `random` (any of k), `majority` (the final answer given most often; of
code, layout aside), `oracle` (a right one if there is any), and the null rules, which do not read
what an answer says: `length` (the longest of k, in tokens: the bias that reward models are known
for), `shortest`, and `style` (what length and format told of right and wrong training answers).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from codepmp_ray.analysis.closing import NULL_RULES
from codepmp_ray.analysis.text import MIN_HEADLINE_ITEMS
from codepmp_ray.config.evaluation import CandidatesConfig, EvaluationConfig
from codepmp_ray.errors import InputError
from codepmp_ray.evaluation import statistics
from codepmp_ray.evaluation.pools import answer_groups
from codepmp_ray.evaluation.style_rule import fitted_weights, style_gap, style_table
from codepmp_ray.evaluation.tasks.registry import problem_task

Row = dict[str, Any]
_NUM_MAJORITY_DRAWS = 1_000


@dataclass(frozen=True)
class Pool:
    """The candidates of one problem (CANDIDATE rows) in the order of their samples."""

    problem_id: str
    prompt: str
    candidates: list[Row]


def evaluation_pools(
    candidates: list[Row], without: Collection[str] = ()
) -> tuple[list[Pool], int]:
    """Pools of the evaluation problems, cut to one common size, and how many candidates that cut.

    Args:
        without: problems that are left out, because they cannot be graded.

    Raises InputError when fewer than two are left: one problem says nothing of the next.
    """
    of_problem: dict[str, list[Row]] = {}
    for row in sorted(candidates, key=lambda row: (row["problem_id"], row["sample_index"])):
        if row["split"] == "eval" and row["problem_id"] not in without:
            of_problem.setdefault(row["problem_id"], []).append(row)
    if len(of_problem) < 2:
        raise InputError(
            f"There are candidates of {len(of_problem)} evaluation problems, where 2 are needed; "
            f"{len(without)} problems could not be graded.",
            "Raise candidates.num_eval_problems and run python -m jobs.sample again.",
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
    training: Sequence[Row] = (),
) -> dict[str, Any]:
    """The measured part of results.json.

    `training` are answers to the training problems (CANDIDATE and GRADE columns); without them
    there is no style rule. Raises InputError when a candidate lacks a grade or a score.
    """
    score_of = {row["candidate_id"]: row["score"] for row in scores}
    grade_of = {row["candidate_id"]: row for row in grades}
    reward = _table(pools, score_of, "score")
    marks = _table(pools, {name: _mark(row) for name, row in grade_of.items()}, "grade")
    ks = statistics.default_ks(reward.shape[1])
    results: dict[str, Any] = {
        "task": task.task,
        "title": problem_task(task.task).title,
        "num_problems": len(pools),
        "num_candidates": reward.shape[1],
        "confidence": config.confidence,
        "scores": {
            "num": int(reward.size),
            "mean": float(reward.mean()),
            "std": float(reward.std()),
        },
        "bon": {"k": ks},
    }
    groups = np.array([
        answer_groups([grade_of[row["candidate_id"]].get("answer") for row in pool.candidates])
        for pool in pools
    ])  # fmt: skip
    curves, majority_error = _curves(pools, groups, reward, marks, ks, config.seed)
    style = style_scores(training, pools)
    if style is not None:
        curves["style"] = statistics.best_of_k(style, marks, ks)
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
    at_k = {name: values[:, -1] for name, values in curves.items()}
    differences = {
        name: asdict(_difference(values, at_k["random"], config))
        for name, values in at_k.items()
        if name != "random"
    }
    found = [name for name in NULL_RULES if name in at_k]
    picked = zip((pool.problem_id for pool in pools), at_k["reward_model"].tolist(), strict=True)
    results |= {
        "difference": {"k": ks[-1], **differences["reward_model"]},
        "differences": differences,
        "null_rule": max(found, key=lambda name: at_k[name].mean()),
        "parts": _parts(pools, at_k, config),
        "picked": dict(picked),
    }
    results["verdict"] = verdict(results)
    return results


def verdict(results: dict[str, Any]) -> str:
    """One sentence that claims no more than the interval allows."""
    num, found = results["num_problems"], results["difference"]
    best = f"best of {found['k']} by the reward model"
    if num < MIN_HEADLINE_ITEMS:
        return f"Too few problems to tell what {best} is worth: {num}."
    picked, at_random = (
        100 * results["bon"][name]["accuracy"][-1] for name in ("reward_model", "random")
    )
    mean, low, high = (100 * found[name] for name in ("mean", "low", "high"))
    word = "better than chance" if low > 0 else "worse than chance" if high < 0 else ""
    return (
        f"{best.capitalize()} solves {picked:.1f} % of {num} problems, a random pick "
        f"{at_random:.1f} %: {mean:+.1f} points ({100 * results['confidence']:g} % interval "
        f"{low:+.1f} to {high:+.1f}), {word or 'too small to tell'}."
    )


def style_scores(training: Sequence[Row], pools: Sequence[Pool]) -> statistics.Floats | None:
    """Scores [problems, candidates] of the rule of style (`style_rule`), fitted on `training`.

    None where no training problem has both right and wrong answers.
    """
    of_problem: dict[str, list[Row]] = {}
    for row in training:
        if row["passed"] is not None:
            of_problem.setdefault(row["problem_id"], []).append(row)
    marks = [[bool(row["passed"]) for row in rows] for rows in of_problem.values()]
    if not any(0 < sum(right) < len(right) for right in marks):
        return None
    tables = [style_table([row["completion"] for row in rows]) for rows in of_problem.values()]
    weights = fitted_weights(np.array(list(map(style_gap, tables, marks))))
    texts = ([row["completion"] for row in pool.candidates] for pool in pools)
    return np.array([style_table(one) @ weights for one in texts])


def _parts(
    pools: Sequence[Pool], at_k: dict[str, statistics.Floats], config: EvaluationConfig
) -> dict[str, Any]:
    """The same figures for each part of the set; {} where the problems' ids name no parts."""
    names = [pool.problem_id.split("/") for pool in pools]
    part_of = np.array([name[-2] if len(name) > 2 else "" for name in names])
    parts: dict[str, Any] = {}
    for part in sorted(set(part_of.tolist()) - {""}):
        inside = part_of == part
        values = {name: figures[inside] for name, figures in at_k.items()}
        parts[part] = {
            "num_problems": int(inside.sum()),
            "accuracy": {name: float(figures.mean()) for name, figures in values.items()},
            "difference": asdict(_difference(values["reward_model"], values["random"], config)),
        }
    return parts


def _difference(
    left: statistics.Floats, right: statistics.Floats, config: EvaluationConfig
) -> statistics.Difference:
    draws = (config.confidence, config.num_bootstrap, config.seed)
    return statistics.paired_difference(left, right, *draws)


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
        "shortest": statistics.best_of_k(-lengths, marks, ks),
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
