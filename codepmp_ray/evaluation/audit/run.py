"""`codepmp eval audit`: pairs, their edits and pools scored through the service, figures, the
verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from codepmp_ray.client import CandidateScore, RewardClient
from codepmp_ray.config.base import fingerprint
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.content_digests import content_digests
from codepmp_ray.evaluation.audit.dependence import style_dependence
from codepmp_ray.evaluation.audit.features import FEATURES, LENGTH, style_features
from codepmp_ray.evaluation.audit.gate import Figures, beyond_chance, gate
from codepmp_ray.evaluation.audit.generators import Choices, choices
from codepmp_ray.evaluation.audit.pool_figures import Draws, measure_pool, text_figures
from codepmp_ray.evaluation.audit.pools import (
    ScoredPool,
    evaluated_pool,
    pool_requests,
    scored,
)
from codepmp_ray.evaluation.audit.report import render_audit
from codepmp_ray.evaluation.audit.robustness import DRESSINGS, SPOILINGS, edit_effects
from codepmp_ray.evaluation.pairwise.accuracy import Bootstrap, Outcomes, calibration, pair_accuracy
from codepmp_ray.evaluation.pairwise.pairs import LoadedPairs, Pair
from codepmp_ray.evaluation.pools import Pool
from codepmp_ray.evaluation.scored_shards import Request, score_in_shards
from codepmp_ray.json_records import record_bytes
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.records import AUDIT_POOL_SCORE, AUDIT_SCORE, stable_id
from codepmp_ray.resampling import Floats, Interval
from codepmp_ray.runs import model_identity, run_manifest
from codepmp_ray.storage import Store, open_store
from codepmp_ray.weights_digest import weights_digest

RESULTS_FILE, PAGE = "audit.json", "audit.html"
_POOLS = "pools"  # the folder of their scores: shards of pairs and of pools are counted apart
# Goes up when the code computes something else from equal settings.
_VERSION = 4
Row = dict[str, Any]


def folder_of(recipe: Recipe) -> str:
    """Name of the folder in the run directory, by pairs, pools, settings and model."""
    settings = recipe.evaluation
    sets = (*recipe.accuracy.tasks, *recipe.accuracy.data)
    digests = content_digests([*(item.path for item in sets), *recipe.audit.pools])
    figures = [settings.confidence, settings.num_bootstrap, settings.seed]
    parts = [recipe.accuracy, recipe.audit, figures, digests, model_identity(recipe)]
    return f"audit-{fingerprint('audit', _VERSION, *parts)}"


def audit(
    recipe: Recipe,
    loaded: LoadedPairs,
    pools: Sequence[Pool],
    client: RewardClient,
    model: str,
) -> dict[str, Any]:
    """Score what is not scored yet and write audit.json and audit.html; returns the former.

    `loaded` are the pairs of `recipe.accuracy`, `pools` those of `recipe.audit`. Raises what
    `RewardClient.score` raises, and InputError for a score that is no finite number.
    """
    config = recipe.audit
    pairs = sorted(loaded.pairs, key=lambda pair: stable_id(pair.pair_id))
    pairs = pairs[: config.max_pairs]
    store = open_store(recipe.run_dir).sub(folder_of(recipe))
    requests = [_request(pair, config.edits) for pair in pairs]
    rows = score_in_shards(
        ShardLedger(store), client, requests, config.pairs_per_shard, "audit_scores", AUDIT_SCORE
    )
    found = _scored_pools(recipe, pools, store.sub(_POOLS), client)
    results = summarise(recipe, pairs, rows, found) | {
        "model": model,
        "model_digest": None if recipe.evaluation.endpoint else weights_digest(model),
        "folder": store.uri,
        "page": store.locate(PAGE),
        "manifest": run_manifest(recipe),
    }
    store.put(RESULTS_FILE, record_bytes(results, indent=2))
    store.put(PAGE, render_audit(results).encode())
    return results


def summarise(
    recipe: Recipe, pairs: list[Pair], rows: list[Row], pools: Sequence[ScoredPool]
) -> dict[str, Any]:
    """All figures of AUDIT_SCORE rows of `pairs` and of `pools`, and whether the gate lets the
    model through."""
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
    is_right = np.repeat([1.0, 0.0], len(pairs))
    found = [style_features(text) for text in texts]
    outcomes = Outcomes.of(scores["chosen"], scores["rejected"], problems)
    accuracy = pair_accuracy(outcomes, Bootstrap(*draws))
    calibrated = calibration(scores["chosen"], scores["rejected"], problems, Bootstrap(*draws))
    features = {name: [row[name] for row in found] for name in FEATURES}
    style = style_dependence(both, is_right, features, problems * 2, *draws)
    answers = ScoredPool("pairs", problems * 2, is_right.tolist(), both.tolist(), [], texts)
    edited = {name: scores[name] for name in recipe.audit.edits}
    effects = edit_effects(scores["chosen"], scores["rejected"], edited, problems, *draws)
    measured = {pool.name: measure_pool(pool, draws) for pool in pools}
    figures = Figures(
        accuracy=Interval(accuracy.mean, accuracy.low, accuracy.high),
        ece=Interval(**calibrated["ece"]),
        length_correlation=style.correlations[LENGTH],
        added_r2=beyond_chance(style.added_r2, style.by_chance),
        dressing_gains={n: e.gain for n, e in effects.items() if e.kind == "dressing"},
        spoiled_wins={n: e.gain for n, e in effects.items() if e.kind == "spoiling"},
        drops={
            pool: drop
            if measured[pool]["over_optimisation"]["is_seen"]
            else replace(drop, mean=0.0)
            for pool, drop in _intervals(measured, "over_optimisation", "drop").items()
        },
        generator_r2={
            pool: beyond_chance(share, measured[pool]["generators"]["by_chance"])
            for pool, share in _intervals(measured, "generators", "generator_r2").items()
        },
    )
    result = gate(figures, recipe.audit)
    summary = {
        "passed": result.passed,
        "num_pairs": len(pairs),
        "confidence": settings.confidence,
        "accuracy": accuracy,
        "calibration": calibrated,
        "style": style,
        "edits": effects,
        **text_figures(answers, draws),
        "choices": _choices(pairs, scores["chosen"], scores["rejected"], draws),
        "pools": list(measured.values()),
        "figures": figures,
        "gate": asdict(result) | {"text": [check.text for check in result.checks]},
    }
    return TypeAdapter(Any).dump_python(summary)


def _choices(pairs: list[Pair], chosen: Floats, rejected: Floats, draws: Draws) -> Choices | None:
    """Accuracy by who wrote the two answers; None where no pair says so. Each pair is by itself:
    the chosen answer of one was not compared with the rejected answer of another."""
    named = [i for i, pair in enumerate(pairs) if pair.models is not None]
    if not named:
        return None
    writers = [pairs[i].models or ("", "") for i in named]
    return choices(
        np.concatenate([chosen[named], rejected[named]]),
        np.repeat([1.0, 0.0], len(named)),
        [model for model, _ in writers] + [model for _, model in writers],
        [f"{pairs[i].section}/{pairs[i].pair_id}" for i in named] * 2,
        *draws,
    )


def _scored_pools(
    recipe: Recipe, pools: Sequence[Pool], store: Store, client: RewardClient
) -> list[ScoredPool]:
    """The pools of the recipe, and the candidates of its evaluation where that is finished."""
    requests = [request for pool in pools for request in pool_requests(pool)]
    rows: dict[str, list[Row]] = {pool.name: [] for pool in pools}
    if requests:
        config = recipe.audit
        for row in score_in_shards(
            ShardLedger(store), client, requests, config.problems_per_shard,
            "audit_pool_scores", AUDIT_POOL_SCORE, recipe.serving.max_candidates,
        ):  # fmt: skip
            rows[row["pool"]].append(row)
    evaluated = evaluated_pool(recipe)
    found = [scored(pool, rows[pool.name]) for pool in pools]
    return found if evaluated is None else [*found, evaluated]


def _intervals(measured: dict[str, dict[str, Any]], part: str, name: str) -> dict[str, Interval]:
    """A figure by pool, without those that do not have it."""
    return {
        pool: Interval(**values[part][name])
        for pool, values in measured.items()
        if values[part] is not None
    }


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
