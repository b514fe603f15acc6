"""Tables 11, 15 and 16, Figures 10 to 12: lengths, n-grams and likeness of the texts of pairs.

N-grams and likeness are of code alone: an answer's prose and fences would tell it from a file.
"""

from __future__ import annotations

from codepmp_ray.analysis.embedding_map import EmbeddingMap, embedding_map, hashed_tfidf
from codepmp_ray.analysis.ngrams import bucket_table, divergences
from codepmp_ray.errors import InputError
from codepmp_ray.studies import measures, paper
from codepmp_ray.studies.outcome import Outcome, Plot, Row, Series, Table, Value
from codepmp_ray.studies.scores import ScoreBook, lengths_in_tokens
from codepmp_ray.studies.sets import PairSet
from codepmp_ray.studies.study import Context, Models, Study, no_arms
from codepmp_ray.synthesis.markdown import fences

_SIDES = ("chosen", "rejected")
_HUMAN = "human"
_BUCKET_FIGURES = {"1": ("Figure 10", "unigrams"), "2": ("Figure 11", "bigrams")}
_MAX_POINTS = 300  # drawn of each source
_MAX_DRAWS = 200


def measure_lengths(context: Context, models: Models, book: ScoreBook) -> Outcome:
    """Table 11, and what it does not ask: whether length tells the label of a pair."""
    rows, biases, series, words = [], [], [], []
    encoder = context.bench.pairs.encoder(context.model)
    config = context.bench.config
    for name in context.sets():
        found = context.bench.set(name)
        pairs = [*found.train, *found.test]
        lengths = [lengths_in_tokens(encoder, [row[side] for row in pairs]) for side in _SIDES]
        means = [
            measures.mean_interval(v, config.num_bootstrap, config.confidence) for v in lengths
        ]
        is_papers = config.sets[name].paper_set is not None
        rows.append(
            Row(found.title, means, list(paper.TABLE_11["total"]) if is_papers else [None] * 2)
        )
        longer = (lengths[0] > lengths[1]) + (lengths[0] == lengths[1]) / 2
        rule = measures.interval(longer, config.confidence)
        biases.append(Row(found.title, [rule], [None]))
        words.append(
            f"{found.title}: {means[0].mean:,.1f} tokens chosen, {means[1].mean:,.1f} rejected; "
            f"the longer answer is the chosen one in {rule.text('share')} %"
        )
        series += [
            Series(f"{name}, {side}", [0.0], [m.mean], [m.low or m.mean], [m.high or m.mean])
            for side, m in zip(_SIDES, means, strict=True)
        ]
    series += [
        Series(f"paper, {side}", [0.0], [value], of_paper=True)
        for side, value in zip(_SIDES, paper.TABLE_11["total"], strict=True)
    ]
    source = f"{paper.SOURCE}, Table 11, total"
    return Outcome(
        summary=f"{'; '.join(words)}.",
        tables=[
            Table("Mean tokens of an answer", list(_SIDES), rows, source, "number"),
            Table("Pairs whose longer answer is the chosen one, ties half", ["share"], biases),
        ],
        plots=[Plot("Mean tokens of an answer", "tokens", "", series, False, "number", "bars")],
        differs=[f"Tokens of {context.bench.pairs.tokenizer_of(context.model)}.", *_pairs(context)],
    )


def measure_ngrams(context: Context, models: Models, book: ScoreBook) -> Outcome:
    """Tables 15 and 16, Figures 10 and 11: human code against the two answers to descriptions."""
    config = context.bench.config
    sources, found = _sources(context)
    buckets = bucket_table(sources)
    density = [
        Row(
            label,
            [Value(figures[n]["density"]) for n in _BUCKET_FIGURES]
            + [Value(figures[n]["bucket_entropy_bits"]) for n in _BUCKET_FIGURES],
            [*paper.TABLE_15[label], None, None],
        )
        for label, figures in buckets["sources"].items()
    ]
    others = {name: texts for name, texts in sources.items() if name != _HUMAN}
    draws = min(config.num_bootstrap, _MAX_DRAWS)
    by_order = divergences(sources[_HUMAN], others, draws, config.confidence)
    columns = {"human, bootstrap": [d["human_bootstrap"] for d in by_order]} | {
        f"{name} against human": [d["against_human"][name] for d in by_order] for name in others
    }
    divergence = [
        Row(label, [Value(**value) for value in values], list(paper.TABLE_16[label]))
        for label, values in columns.items()
    ]
    orders = [f"n={d['order']}" for d in by_order]
    densities = [f"{figure}, n={n}" for figure in ("density", "entropy in bits") for n in (1, 2)]
    return Outcome(
        summary="KL divergence of single words from human code: "
        + ", ".join(f"{row.label} {row.ours[0].mean:.2f}" for row in divergence if row.ours[0])
        + " nats. Density counts n-grams, so it is length.",
        tables=[
            Table(
                "n-grams over 100 hash buckets",
                densities,
                density,
                f"{paper.SOURCE}, Table 15",
                "number",
            ),
            Table(
                "KL divergence of n-grams from human code, in nats",
                orders,
                divergence,
                f"{paper.SOURCE}, Table 16",
                "number",
            ),
        ],
        plots=[_bucket_plot(buckets["sources"], n) for n in _BUCKET_FIGURES],
        differs=[
            f"{len(sources[_HUMAN])} pairs ({found.title}) instead of a sample of 28 million.",
            f"{buckets['num_words_compared']:,} words of each source for entropy and figures, "
            f"{by_order[0]['num_ngrams']:,} n-grams of each for divergences, one half added to "
            "each count; Table 16 states neither. Human against human: two resamples of the same "
            "files. Intervals are over files.",
        ],
        facts={"paper": "the distributions over buckets are only drawn, in Figures 10 and 11"},
    )


def measure_map(context: Context, models: Models, book: ScoreBook) -> Outcome:
    """Figure 12, and the overlap that it shows by eye as a number."""
    sources, found = _sources(context)
    drawn = embedding_map(hashed_tfidf(sources), context.confidence)
    rows = [
        Row(
            name,
            [Value(share.mean, share.low, share.high), Value(drawn.by_chance[name])],
            [None, None],
        )
        for name, share in drawn.same_source.items()
    ]
    return Outcome(
        summary="Of a text's nearest neighbours are of its own source: "
        + ", ".join(
            f"{name} {100 * share.mean:.0f} % (by chance {100 * drawn.by_chance[name]:.0f})"
            for name, share in drawn.same_source.items()
        )
        + ".",
        tables=[
            Table(
                "Of a text's 10 nearest neighbours, those of its own source",
                ["share", "by chance"],
                rows,
            )
        ],
        plots=[_scatter(drawn)],
        differs=[
            f"{len(sources[_HUMAN])} pairs ({found.title}).",
            "Vectors are TF-IDF of words and word pairs, hashed to 512; the paper names no model. "
            "The plane is that of two principal components.",
        ],
        facts={"paper": "human and synthetic data overlap highly, by eye, in Figure 12"},
    )


def _sources(context: Context) -> tuple[dict[str, list[str]], PairSet]:
    """Code by source, one text for each pair, and the set. Raises InputError without human code."""
    found = context.bench.set(context.sets()[0])
    pairs = [row for row in (*found.train, *found.test) if row.get("source_code")]
    if len(pairs) < 2:
        raise InputError(
            f"{found.title} holds {len(pairs)} pairs with the human code that they were made from.",
            "Give pairs with the column source_code, as jobs.synthesize writes them.",
        )
    return {
        _HUMAN: [row["source_code"] for row in pairs],
        "strong": [code_of(row["chosen"]) for row in pairs],
        "weak": [code_of(row["rejected"]) for row in pairs],
    }, found


def code_of(answer: str) -> str:
    """The fenced blocks of an answer; the whole answer if it has none."""
    return "\n".join(block.content for block in fences(answer)) or answer


def _bucket_plot(sources: dict[str, dict], n: str) -> Plot:
    figure, what = _BUCKET_FIGURES[n]
    series = []
    for name, figures in sources.items():
        shares = sorted(figures[n]["bucket_shares"], reverse=True)
        series.append(Series(name, [float(i + 1) for i in range(len(shares))], shares))
    title = f"{figure}: {what} by hash bucket; 1 % each would be even"
    return Plot(title, "bucket, the fullest first", f"share of {what}", series, log_x=False)


def _scatter(drawn: EmbeddingMap) -> Plot:
    series = [
        Series(name, points[:_MAX_POINTS, 0].tolist(), points[:_MAX_POINTS, 1].tolist())
        for name, points in drawn.points.items()
    ]
    return Plot(
        "Texts of each source in the plane",
        f"first component (both: {100 * drawn.explained:.0f} % of the variance)",
        "second component",
        series,
        log_x=False,
        unit="number",
        kind="points",
    )


def _pairs(context: Context) -> list[str]:
    return [
        f"{found.title}: {len(found.train) + len(found.test):,} pairs."
        for found in map(context.bench.set, context.sets())
    ]


STUDIES = (
    Study(
        "table11",
        "Table 11",
        "lengths of answers",
        "Are chosen and rejected answers alike in length?",
        no_arms,
        measure_lengths,
    ),
    Study(
        "table15",
        "Tables 15 and 16, Figures 10 and 11",
        "n-gram density, entropy and divergence",
        "How far are the models' answers from human code?",
        no_arms,
        measure_ngrams,
    ),
    Study(
        "figure12",
        "Figure 12",
        "human and synthetic code in one space",
        "Do the models' answers cover what human code covers?",
        no_arms,
        measure_map,
    ),
)
