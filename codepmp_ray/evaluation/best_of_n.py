"""From pools, grades and scores to results.json: curves by k, baselines, one honest sentence.

Baselines on the same pools: `random` (any of k), `majority` (the final answer given most often; of
code, layout aside), `oracle` (a right one if there is any), and the null rules, which do not read
what an answer says: `length` (the longest of k, in tokens: the bias that reward models are known
for), `shortest`, and `style` (what length and format told of right and wrong training answers).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from codepmp_ray.analysis.closing import NULL_RULES
from codepmp_ray.analysis.text import MIN_HEADLINE_ITEMS
from codepmp_ray.config.evaluation import CandidatesConfig, EvaluationConfig
from codepmp_ray.errors import InputError
from codepmp_ray.evaluation import statistics
from codepmp_ray.evaluation.pool_report import PoolArrays, baselines
from codepmp_ray.evaluation.pool_rows import Answer
from codepmp_ray.evaluation.pools import Pool, Question, answer_groups
from codepmp_ray.evaluation.style_rule import fitted_weights, style_gap, style_table
from codepmp_ray.evaluation.tasks.registry import problem_task

Row = dict[str, Any]
_NUM_MAJORITY_DRAWS = 1_000


def evaluation_pool(candidates: Sequence[Row], without: Collection[str] = ()) -> Pool:
    """Answers to the evaluation problems (CANDIDATE rows), equally many to each.

    `num_unused` counts what that cuts; an answer's place is its sample's number.

    Args:
        without: problems that are left out, because they cannot be graded.

    Raises InputError when fewer than two are left: one problem says nothing of the next.
    """
    pool = Pool()
    for row in sorted(candidates, key=lambda row: (row["problem_id"], row["sample_index"])):
        name, text = row["problem_id"], row["completion"]
        if row["split"] == "eval" and name not in without:
            question = pool.questions.setdefault(name, Question(name, row["prompt"]))
            question.answers.append(
                Answer(
                    text,
                    row["model"],
                    num_tokens=row["num_tokens"],
                    candidate_id=row["candidate_id"],
                    place=row["sample_index"],
                    num_chars=len(text),
                )
            )
    if len(pool.questions) < 2:
        raise InputError(
            f"There are candidates of {len(pool.questions)} evaluation problems, where 2 are "
            f"needed; {len(without)} problems could not be graded.",
            "Raise candidates.num_eval_problems and run codepmp answers sample again.",
        )
    size = min(len(question.answers) for question in pool)
    for question in pool:
        pool.num_unused += len(question.answers) - size
        del question.answers[size:]
    return pool


def summarise(
    pool: Pool,
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
    reward = _table(pool, score_of, "score")
    marks = _table(pool, {name: _mark(row) for name, row in grade_of.items()}, "grade")
    ks = statistics.default_ks(reward.shape[1])
    results: dict[str, Any] = {
        "task": task.task,
        "title": problem_task(task.task).title,
        "num_problems": len(pool.questions),
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
        answer_groups([grade_of[a.candidate_id or ""].get("answer") for a in question.answers])
        for question in pool
    ])  # fmt: skip
    lengths = np.array([_lengths(question) for question in pool], float)
    rules, errors = baselines(
        PoolArrays(marks, groups=groups, lengths=lengths), ks, _NUM_MAJORITY_DRAWS, config.seed
    )
    curves = {"reward_model": statistics.best_of_k(reward, marks, ks), **rules}
    style = style_scores(training, pool.texts)
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
    results["bon"]["majority"]["monte_carlo_error"] = errors["majority"].tolist()
    at_k = {name: values[:, -1] for name, values in curves.items()}
    differences = {
        name: asdict(_difference(values, at_k["random"], config))
        for name, values in at_k.items()
        if name != "random"
    }
    found = [name for name in NULL_RULES if name in at_k]
    picked = zip(pool.questions, at_k["reward_model"].tolist(), strict=True)
    results |= {
        "difference": {"k": ks[-1], **differences["reward_model"]},
        "differences": differences,
        "null_rule": max(found, key=lambda name: at_k[name].mean()),
        "parts": _parts(pool, at_k, config),
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


def style_scores(
    training: Sequence[Row], shown: Sequence[Sequence[str]]
) -> statistics.Floats | None:
    """Scores [problems, candidates] of the texts `shown` by the rule of style (`style_rule`).

    It is fitted on `training`; None where no training problem has both right and wrong answers.
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
    return np.array([style_table(texts) @ weights for texts in shown])


def _parts(
    pool: Pool, at_k: dict[str, statistics.Floats], config: EvaluationConfig
) -> dict[str, Any]:
    """The same figures for each part of the set; {} where the problems' ids name no parts."""
    names = [name.split("/") for name in pool.questions]
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


def _lengths(question: Question) -> list[int]:
    """Tokens, or characters where a file of pools does not count tokens."""
    tokens = [answer.num_tokens for answer in question.answers if answer.num_tokens is not None]
    has_all = len(tokens) == len(question.answers)
    return tokens if has_all else [answer.num_chars for answer in question.answers]


def _mark(grade: Row) -> float:
    return float("nan") if grade["passed"] is None else float(grade["passed"])


def _table(pool: Pool, value_of: dict[str, float], what: str) -> statistics.Floats:
    try:
        return pool.table(lambda answer: value_of[answer.candidate_id or ""])
    except KeyError as error:
        raise InputError(
            f"The candidate {error.args[0]} has no {what}.",
            "The stages do not belong together; run the job before this one again.",
        ) from error
