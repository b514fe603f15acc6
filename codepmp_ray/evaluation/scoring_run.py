"""The evaluation stage: score every answer through the service, in resumable shards.

What PMP adds: the same recipe with the reward model finetuned from the base model. Both arms share
corpus, pairs, answers and grades; the other one has a finetuning and an evaluation of its own, in
the same run directory.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from codepmp_ray.analysis.outcomes import WITHOUT_PMP_FILE
from codepmp_ray.client import CandidateScore, RewardClient
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.errors import ConfigError, InputError
from codepmp_ray.evaluation import statistics
from codepmp_ray.evaluation.best_of_n import evaluation_pool, summarise
from codepmp_ray.evaluation.pools import Question
from codepmp_ray.evaluation.scored_shards import Request, score_in_shards
from codepmp_ray.json_records import record_bytes, stored_record
from codepmp_ray.records import SCORE
from codepmp_ray.runs import open_stage

RESULTS_FILE = "results.json"
_PER_SHARD = 4  # problems


def evaluate(recipe: Recipe, client: RewardClient, model: str) -> dict[str, Any]:
    """Score what is not scored yet and write results.json; returns its content.

    Raises InputError when an earlier stage is missing, and what `RewardClient.score` raises.
    """
    stage = open_stage(recipe, "evaluation")
    candidates = open_stage(recipe, "candidates").require()
    grades = open_stage(recipe, "grades").require()
    answers = candidates.ledger.read("candidates").to_pylist()
    grade_of = {row["candidate_id"]: row for row in grades.ledger.read("grades").to_pylist()}
    without = {row["problem_id"] for row in grade_of.values() if row["passed"] is None}
    pool = evaluation_pool(answers, without)
    stage.start()
    start_s = time.monotonic()
    requests = list(map(_request, pool))
    scores = score_in_shards(stage.ledger, client, requests, _PER_SHARD, "scores", SCORE)
    wanted = {answer.candidate_id for question in pool for answer in question.answers}
    marks = [row for name, row in grade_of.items() if name in wanted]
    training = [
        row | grade_of[row["candidate_id"]]
        for row in answers
        if row["split"] == "train" and row["candidate_id"] in grade_of
    ]
    results = {
        **summarise(pool, marks, scores, recipe.candidates, recipe.evaluation, training),
        "num_candidates_cut": pool.num_unused,
        "num_not_gradable": len(without),
        "num_truncated": sum(row["truncated"] for row in scores),
        "model": model,
        "generator": str(next(iter(pool)).answers[0].model),
        "sandbox": grades.summary().get("sandbox", "unknown"),
    }
    stage.store.put(RESULTS_FILE, record_bytes(results, indent=2))
    stage.complete(
        {
            "num_problems": len(pool.questions),
            "num_scores": len(scores),
            "verdict": results["verdict"],
            "duration_s": round(time.monotonic() - start_s, 1),
        }
    )
    return results


def read_results(recipe: Recipe) -> dict[str, Any]:
    """results.json of a finished stage. Raises InputError when it is not finished."""
    stage = open_stage(recipe, "evaluation").require()
    return stored_record(stage.store, RESULTS_FILE)


def _request(question: Question) -> Request:
    """The answers to one question; rows are those of SCORE."""
    texts = [answer.text for answer in question.answers]
    return Request(question.text or "", texts, partial(_rows, question))


def _rows(question: Question, scores: list[CandidateScore]) -> list[dict[str, Any]]:
    return [
        {
            "candidate_id": answer.candidate_id,
            "problem_id": question.name,
            "sample_index": answer.place,
            "score": score.score,
            "num_tokens": score.num_tokens,
            "truncated": score.truncated,
        }
        for answer, score in zip(question.answers, scores, strict=True)
    ]


OWN_STAGES = ("finetuning", "evaluation")  # of the other arm


def recipe_without_pmp(recipe: Recipe) -> Recipe:
    """The other arm. Raises ConfigError where finetuning does not begin with this run's PMP."""
    own = recipe.finetuning
    if own.model_name_or_path is not None or recipe.serving.model_path is not None:
        raise ConfigError(
            f"finetuning.model_name_or_path={own.model_name_or_path}, serving.model_path="
            f"{recipe.serving.model_path}: this reward model does not come from the recipe's PMP, "
            "so there is nothing to compare.",
            "Set both to null, or compare without --compare.",
        )
    named = recipe.pretraining
    base = named if named.model_name_or_path is not None else recipe.engines.strong
    start = {"model_name_or_path": base.model_name_or_path, "revision": base.revision}
    return recipe.model_copy(update={"finetuning": own.model_copy(update=start)})


def compare_with(recipe: Recipe, other: Recipe) -> dict[str, Any]:
    """Best of N of both arms on the same problems; kept beside `recipe`'s results and returned.

    Raises InputError when an evaluation is not finished.
    """
    ours, theirs = read_results(recipe), read_results(other)
    if not ours.get("picked") or not theirs.get("picked"):
        raise InputError(
            "The evaluations hold no picks by problem: nothing was executed, or an earlier version "
            "made them.",
            "Remove the evaluation- folders of the run directory and run it again.",
        )
    config = recipe.evaluation
    names = list(ours["picked"])
    left, right = (np.array([found["picked"][name] for name in names]) for found in (ours, theirs))
    difference = statistics.paired_difference(
        left, right, config.confidence, config.num_bootstrap, config.seed
    )
    last = {key: theirs["bon"]["reward_model"][key][-1] for key in ("accuracy", "low", "high")}
    found = {
        **last,
        "num_problems": len(names),
        "to_random": theirs["differences"]["reward_model"],
        "difference": asdict(difference),
        "folder": open_stage(other, "evaluation").folder,
    }
    store = open_stage(recipe, "evaluation").store
    store.put(WITHOUT_PMP_FILE, record_bytes(found, indent=2))
    return found
