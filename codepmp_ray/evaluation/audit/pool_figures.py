"""Every figure of one scored pool: style, who wrote it, scripts and fences, best of k."""

from __future__ import annotations

from typing import Any

import numpy as np

from codepmp_ray.evaluation.audit.choices import choices
from codepmp_ray.evaluation.audit.dependence import Dependence, style_dependence
from codepmp_ray.evaluation.audit.features import FEATURES, style_features
from codepmp_ray.evaluation.audit.generators import generator_style
from codepmp_ray.evaluation.audit.groups import group_effects
from codepmp_ray.evaluation.audit.languages import fence_of, script_of
from codepmp_ray.evaluation.audit.lengths import score_by_length
from codepmp_ray.evaluation.audit.over_optimisation import OverOptimisation, over_optimisation
from codepmp_ray.evaluation.audit.pools import ScoredPool
from codepmp_ray.evaluation.audit.within import checked_answers
from codepmp_ray.evaluation.statistics import padded

Draws = tuple[float, int, int]  # confidence, number of resamples, seed


def measure_pool(pool: ScoredPool, draws: Draws) -> dict[str, Any]:
    """JSON values. What the pool cannot tell is null: style without two answers to a problem or
    without texts, generators without two of them, best of k with one candidate.

    Raises InputError for a score that is no finite number.
    """
    checked_answers(pool.scores, pool.correct, pool.problems)
    style: Dependence | None = None
    facts: dict[str, Any] = {"scripts": None, "fences": None, "lengths": None}
    if pool.texts is not None:
        style = _style(pool, draws)
        facts = text_figures(pool, draws)
    named = [i for i, model in enumerate(pool.models) if model is not None]
    part = (
        [pool.scores[i] for i in named],
        [pool.correct[i] for i in named],
        [str(pool.models[i]) for i in named],
        [pool.problems[i] for i in named],
    )
    generators = generator_style(*part, *draws)
    optimised = best_of_pool(pool, draws)
    return {
        "name": pool.name,
        "num_problems": len(set(pool.problems)),
        "num_answers": len(pool.scores),
        "share_right": float(np.mean(pool.correct)),
        "num_generators": len(set(part[2])),
        "num_unnamed": len(pool.scores) - len(named),
        **pool.facts,
        "style": None if style is None else style.as_json(),
        "generators": None if generators is None else generators.as_json(),
        "choices": choices(*part, *draws).as_json() if generators is not None else None,
        "over_optimisation": None if optimised is None else optimised.as_json(),
        **facts,
    }


def text_figures(pool: ScoredPool, draws: Draws) -> dict[str, Any]:
    """`scripts`, `fences` and `lengths` of answers whose texts are there."""
    texts = pool.texts or []
    found: dict[str, Any] = {}
    for name, group_of in (("scripts", script_of), ("fences", fence_of)):
        groups = [group_of(text) for text in texts]
        effects = group_effects(pool.scores, pool.correct, groups, pool.problems, *draws)
        found[name] = {group: effect.as_json() for group, effect in effects.items()}
    sizes = [len(text) for text in texts]
    found["lengths"] = score_by_length(sizes, pool.scores, pool.correct, pool.problems, *draws)
    return found


def best_of_pool(pool: ScoredPool, draws: Draws) -> OverOptimisation | None:
    """None where no problem has two candidates to choose from."""
    by_problem: dict[str, list[int]] = {}
    for number, problem in enumerate(pool.problems):
        by_problem.setdefault(problem, []).append(number)
    if max(map(len, by_problem.values()), default=0) < 2:
        return None
    scores, present = padded([[pool.scores[i] for i in row] for row in by_problem.values()])
    passed, _ = padded([[pool.correct[i] for i in row] for row in by_problem.values()])
    return over_optimisation(scores, passed, None, present, *draws)


def _style(pool: ScoredPool, draws: Draws) -> Dependence | None:
    if len(set(pool.problems)) == len(pool.problems):
        return None
    found = [style_features(text) for text in pool.texts or []]
    columns = {name: [features[name] for features in found] for name in FEATURES}
    return style_dependence(pool.scores, pool.correct, columns, pool.problems, *draws)
