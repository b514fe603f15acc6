"""Best-of-N curves of trained models over a pool, with the baselines of the same pool.

Beside every score stand rules that decide without reading an answer: a score is worth what lies
above them. On pairs: the longer answer; a logistic rule of counts of style, fitted on the set's
training pairs; and, where pairs name who wrote the two answers, the writer that is right more
often. In pools: the style rule is fitted on one half of the questions and picks in the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from codepmp_ray.evaluation.pool_report import PoolArrays, baselines
from codepmp_ray.evaluation.pools import Pool
from codepmp_ray.evaluation.statistics import default_ks
from codepmp_ray.evaluation.style_rule import fitted_weights, style_gap, style_table
from codepmp_ray.preference.sources.rows import Row
from codepmp_ray.records import stable_id
from codepmp_ray.resampling import Floats
from codepmp_ray.studies import measures
from codepmp_ray.studies.outcome import Plot, Series, Value
from codepmp_ray.studies.scores import ScoreBook, Trained
from codepmp_ray.studies.study import Context

# By label: [trainings, problems, ks], and [problems, ks] of what is at hand.
Curves = dict[str, Floats]
LONGER, STYLE, WRITER = "longer answer", "style", "model prior"
RULES = (LONGER, STYLE, WRITER)
_SIDES = ("chosen", "rejected")
_NUM_VOTE_DRAWS = 200
_BASELINES = {
    "random": "random", "length": "length", "oracle": "oracle", "model_prior": "model prior",
    "majority": "majority",
}  # fmt: skip
_MAX_FITTED = 4_000  # pairs


def pair_rules(context: Context, name: str, model: str | None = None) -> dict[str, Floats]:
    """Of the test pairs as the study scores them: shares of right pairs [problems] by rule."""
    test = context.test_pairs(name, model)

    def shares(score: Callable[[Row, int], float]) -> Floats:
        one, other = ([score(row, side) for row in test.rows] for side in (0, 1))
        return measures.pair_shares(one, other, test.problems)[1]

    found = {LONGER: shares(lambda row, side: len(row[_SIDES[side]]))}
    of_set = context.bench.set(name)
    if of_set.train:
        rule = fitted_style(of_set.train[:_MAX_FITTED])
        found[STYLE] = shares(lambda row, side: float((style_table([row[_SIDES[side]]]) @ rule)[0]))
    rates = writer_rates(of_set.train or of_set.test)
    if rates and all(row.get("models") for row in test.rows):
        found[WRITER] = shares(lambda row, side: rates.get(row["models"][side], 0.5))
    return found


def writer_rates(rows: Sequence[Row]) -> dict[str, float]:
    """Of each writer that pairs name: its share of right answers, as their source counted it, or of
    chosen ones."""
    won: dict[str, list[float]] = {}
    for row in rows:
        for side, model in enumerate(row.get("models") or ()):
            rates = row.get("model_rates")
            won.setdefault(model, []).append(rates[side] if rates else 1.0 - side)
    return {model: sum(values) / len(values) for model, values in won.items()}


def fitted_style(rows: Sequence[Row]) -> Floats:
    """Weights of `style_table`'s columns, fitted to tell chosen from rejected."""
    tables = (style_table([row[side] for row in rows]) for side in _SIDES)
    return fitted_weights(np.subtract(*tables))


def pool_style(pool: Pool) -> Floats:
    """A score by style [problems, candidates], fitted on the other half of the questions."""
    tables = np.array([style_table(texts) for texts in pool.texts])
    gaps = np.array(list(map(style_gap, tables, pool.correct)))
    half = np.array([int(stable_id("style", prompt)[:8], 16) % 2 for prompt in pool.prompts])
    scores = np.zeros(pool.size)
    for one in (0, 1):
        scores[half == one] = tables[half == one] @ fitted_weights(gaps[half != one])
    return scores


def ks(size: int) -> list[int]:
    return default_ks(size)


def ks_of(pool: Pool) -> list[int]:
    return ks(pool.size[1])


def curve(book: ScoreBook, models: list[Trained], pool: Pool) -> Floats:
    """[trainings, problems, ks] of the answer with the highest reward among k."""
    return np.array(
        [measures.best_of_k(book.pool_rewards(m, pool), pool.correct, ks_of(pool)) for m in models]
    )


def baseline_curves(pool: Pool) -> Curves:
    """Random, longest (in characters), oracle, style; vote and model prior where they are known."""
    lengths = np.array([[float(len(text)) for text in texts] for texts in pool.texts])
    ks = ks_of(pool)
    writers = pool.writers(all_named=True)
    arrays = PoolArrays(pool.correct, groups=pool.groups, lengths=lengths, models=writers)
    rules, _ = baselines(arrays, ks, _NUM_VOTE_DRAWS)
    found = {title: rules[name] for name, title in _BASELINES.items() if name in rules}
    found["style"] = measures.best_of_k(pool_style(pool), pool.correct, ks)
    return found


def plot(
    context: Context, title: str, curves: Curves, baselines: Curves, points: list[int]
) -> Plot:
    """Curves with intervals; baselines thin."""
    series = [
        _series(context, label, values, points, is_baseline)
        for group, is_baseline in ((curves, False), (baselines, True))
        for label, values in group.items()
    ]
    return Plot(title, "candidates to choose from (N)", "share of questions right", series)


def _series(
    context: Context, label: str, values: Floats, points: list[int], is_baseline: bool
) -> Series:
    found = [measures.interval(values[..., i], context.confidence) for i in range(len(points))]
    return Series(
        label,
        [float(k) for k in points],
        [v.mean for v in found],
        *limits_of(found),
        is_baseline=is_baseline,
    )


def limits_of(found: list[Value]) -> tuple[list[float], list[float]]:
    """The lower and upper limits of a curve; none where its trainings are too few for any."""
    if any(value.low is None or value.high is None for value in found):
        return [], []
    return [v.low or 0.0 for v in found], [v.high or 0.0 for v in found]


def pool_tokens(context: Context, pool: Pool) -> int:
    """About how many tokens scoring the pool once takes: four characters each."""
    num_candidates = pool.size[1]
    prompts = sum(len(prompt) for prompt in pool.prompts) * num_candidates
    return (prompts + sum(len(text) for texts in pool.texts for text in texts)) // 4
