"""`jobs.audit`: pairs and their edits scored through the service, figures, the gate's verdict."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from codepmp_ray.client import CandidateScore, RewardClient
from codepmp_ray.config.base import fingerprint
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.content_digests import content_digests
from codepmp_ray.evaluation.audit.dependence import style_dependence
from codepmp_ray.evaluation.audit.edits import DRESSINGS, SPOILINGS
from codepmp_ray.evaluation.audit.features import FEATURES, LENGTH, style_features
from codepmp_ray.evaluation.audit.gate import Figures, gate
from codepmp_ray.evaluation.audit.over_optimisation import OverOptimisation, over_optimisation
from codepmp_ray.evaluation.audit.robustness import edit_effects
from codepmp_ray.evaluation.pairwise.accuracy import Bootstrap, Outcomes, pair_accuracy
from codepmp_ray.evaluation.pairwise.pairs import LoadedPairs, Pair
from codepmp_ray.evaluation.scored_shards import Request, score_in_shards
from codepmp_ray.evaluation.statistics import padded
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.records import AUDIT_SCORE, stable_id
from codepmp_ray.resampling import Interval
from codepmp_ray.runs import model_identity, open_stage, run_manifest
from codepmp_ray.storage import open_store
from codepmp_ray.weights_digest import weights_digest

RESULTS_FILE = "audit.json"
# Goes up when the code computes something else from equal settings.
_VERSION = 1
Row = dict[str, Any]


def folder_of(recipe: Recipe) -> str:
    """Name of the folder in the run directory, by pairs, settings and model."""
    settings = recipe.evaluation
    sets = (*recipe.accuracy.tasks, *recipe.accuracy.data)
    digests = content_digests(item.path for item in sets)
    figures = [settings.confidence, settings.num_bootstrap, settings.seed]
    parts = [recipe.accuracy, recipe.audit, figures, digests, model_identity(recipe)]
    return f"audit-{fingerprint('audit', _VERSION, *parts)}"


def audit(recipe: Recipe, loaded: LoadedPairs, client: RewardClient, model: str) -> dict[str, Any]:
    """Score what is not scored yet and write audit.json; returns its content.

    `loaded` are the pairs of `recipe.accuracy`. Raises what `RewardClient.score` raises.
    """
    config = recipe.audit
    pairs = sorted(loaded.pairs, key=lambda pair: stable_id(pair.pair_id))
    pairs = pairs[: config.max_pairs]
    store = open_store(recipe.run_dir).sub(folder_of(recipe))
    requests = [_request(pair, config.edits) for pair in pairs]
    ledger = ShardLedger(store)
    rows = score_in_shards(
        ledger, client, requests, config.pairs_per_shard, "audit_scores", AUDIT_SCORE
    )
    pools = _pools_of_evaluation(recipe)
    results = summarise(recipe, pairs, rows, pools) | {
        "model": model,
        "model_digest": None if recipe.evaluation.endpoint else weights_digest(model),
        "folder": store.uri,
        "manifest": run_manifest(recipe),
    }
    store.put(RESULTS_FILE, json.dumps(results, indent=2).encode())
    return results


def summarise(
    recipe: Recipe, pairs: list[Pair], rows: list[Row], optimised: OverOptimisation | None
) -> dict[str, Any]:
    """All figures of AUDIT_SCORE rows of `pairs`, and whether the gate lets the model through."""
    settings = recipe.evaluation
    draws = (settings.confidence, settings.num_bootstrap, settings.seed)
    score_of = {(row["section"], row["pair_id"], row["edit"]): row["score"] for row in rows}
    scores = {
        name: np.array([score_of.get((p.section, p.pair_id, name), np.nan) for p in pairs], float)
        for name in ("chosen", "rejected", *recipe.audit.edits)
    }
    problems = [pair.problem_id for pair in pairs]
    both = np.concatenate([scores["chosen"], scores["rejected"]])
    texts = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    found = [style_features(text) for text in texts]
    outcomes = Outcomes.of(scores["chosen"], scores["rejected"], problems)
    accuracy = pair_accuracy(outcomes, Bootstrap(*draws))
    style = style_dependence(
        both,
        np.repeat([1.0, 0.0], len(pairs)),
        {name: [features[name] for features in found] for name in FEATURES},
        problems * 2,
        None,
        *draws,
    )
    edited = {name: scores[name] for name in recipe.audit.edits}
    effects = edit_effects(scores["chosen"], scores["rejected"], edited, problems, *draws)
    figures = Figures(
        accuracy=Interval(accuracy.mean, accuracy.low, accuracy.high),
        length_correlation=style.correlations[LENGTH],
        added_r2=style.added_r2,
        dressing_gains={n: e.gain for n, e in effects.items() if e.kind == "dressing"},
        spoiled_wins={n: e.gain for n, e in effects.items() if e.kind == "spoiling"},
        drop=None if optimised is None else optimised.drop,
    )
    result = gate(figures, recipe.audit)
    return {
        "passed": result.passed,
        "num_pairs": len(pairs),
        "confidence": settings.confidence,
        "accuracy": asdict(accuracy),
        "style": style.as_json(),
        "edits": {name: effect.as_json() for name, effect in effects.items()},
        "over_optimisation": None if optimised is None else optimised.as_json(),
        "figures": figures.as_json(),
        "gate": result.as_json(),
    }


def _pools_of_evaluation(recipe: Recipe) -> OverOptimisation | None:
    """From the scores and grades of a finished evaluation of this recipe; None without one."""
    evaluation, grades = open_stage(recipe, "evaluation"), open_stage(recipe, "grades")
    if not (evaluation.is_complete and grades.is_complete):
        return None
    passed_of = {
        row["candidate_id"]: row["passed"] for row in grades.ledger.read("grades").to_pylist()
    }
    pools: dict[str, list[tuple[float, float]]] = {}
    for row in evaluation.ledger.read("scores").to_pylist():
        passed = passed_of.get(row["candidate_id"])
        if passed is None:
            return None
        pools.setdefault(row["problem_id"], []).append((row["score"], float(passed)))
    if not pools:
        return None
    scores, present = padded([[score for score, _ in pool] for pool in pools.values()])
    passed, _ = padded([[passed for _, passed in pool] for pool in pools.values()])
    settings = recipe.evaluation
    draws = (settings.confidence, settings.num_bootstrap, settings.seed)
    return over_optimisation(scores, passed, None, present, *draws)


def _request(pair: Pair, edits: tuple[str, ...]) -> Request:
    texts = {"chosen": pair.chosen, "rejected": pair.rejected}
    for name in edits:
        made = (
            DRESSINGS[name](pair.rejected)
            if name in DRESSINGS
            else SPOILINGS[name](pair.chosen)
        )  # fmt: skip
        if made is not None:
            texts[name] = made
    return Request(pair.prompt, list(texts.values()), partial(_rows, pair, list(texts)))


def _rows(pair: Pair, names: list[str], scores: list[CandidateScore]) -> list[Row]:
    return [
        {
            "pair_id": pair.pair_id,
            "problem_id": pair.problem_id,
            "section": pair.section,
            "edit": name,
            "score": score.score,
            "num_tokens": score.num_tokens,
            "truncated": score.truncated,
        }
        for name, score in zip(names, scores, strict=True)
    ]
