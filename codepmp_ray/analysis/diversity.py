"""How varied a set of pairs is: lengths, n-grams, likeness of the descriptions, provenance.

Paper, Table 15: "n-gram density" is the number of n-grams over 100 hash buckets. That measures
length alone (a text has one bigram less than words), so the entropy over the buckets and
the share of distinct n-grams stand beside it; those two depend on how much text is looked at, and
are taken from equally many words of each column.

Of a large set a sample is measured, the same each time, that costs the same at any size: shards in
the order of a hash of their number, the first MAX_SHARDS that have pairs; of each of them equally
many pairs, those with the smallest `pair_id`, which is itself a hash. A small set is taken whole.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from codepmp_ray.analysis.lengths import Lengths, length_bias
from codepmp_ray.config.corpus import NearDuplicateConfig
from codepmp_ray.corpus.clusters import first_of_clusters
from codepmp_ray.corpus.minhash import Sketches, similarity, sketch
from codepmp_ray.corpus.words import split_words
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.records import PAIR, stable_id
from codepmp_ray.runs import Stage
from codepmp_ray.shard_markers import ShardCommit
from codepmp_ray.shard_stats import token_sums

TEXTS = ("description", "chosen", "rejected")
NUM_PAIRS = 20_000
NUM_BUCKETS = 100
ORDERS = (1, 2, 3)
_MAX_WORDS = 1_000_000
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_NUM_BINS = 24
_PROVENANCE = ("language", "repo", "license", "domain")
_MAX_VALUES = 50
# Descriptions are short, so their shingles are, too; many hashes, for a small error.
_SKETCH = NearDuplicateConfig(ngram=3, num_bands=16, rows_per_band=8)
_NUM_SHIFTS = 16

Values = dict[str, Any]
MAX_SHARDS = 256
RULE = (
    f"the first {MAX_SHARDS} shards by a hash of their number, and of each equally many pairs, "
    "those with the smallest pair_id"
)


def sample_pairs(ledger: ShardLedger, num_pairs: int, columns: list[str]) -> pa.Table:
    """About `num_pairs` pairs with `columns`, sorted by `pair_id`.

    Shards with few pairs give what they have, so there may be fewer.
    """
    shards = _shards(ledger)
    per_shard = -(-num_pairs // max(len(shards), 1))
    names = list(dict.fromkeys(["pair_id", *columns]))
    parts = [pa.schema([PAIR.field(name) for name in names]).empty_table()]
    for commit in shards:
        table = ledger.store.read_table(commit.files["pairs"], names)
        order = pc.call_function("sort_indices", [table["pair_id"]])
        parts.append(table.take(order[:per_shard]))
    return pa.concat_tables(parts).sort_by("pair_id").slice(0, num_pairs)


def _shards(ledger: ShardLedger) -> list[ShardCommit]:
    chosen: list[tuple[str, ShardCommit]] = []
    for commit in ledger.commits():
        if commit.num_rows.get("pairs"):
            chosen.append((stable_id("sample", str(commit.shard_id)), commit))
            if len(chosen) >= 2 * MAX_SHARDS:  # markers of a million shards are not held at once
                chosen = sorted(chosen, key=lambda item: item[0])[:MAX_SHARDS]
    return [commit for _, commit in sorted(chosen, key=lambda item: item[0])[:MAX_SHARDS]]


def measure_diversity(stage: Stage, num_pairs: int = NUM_PAIRS) -> Values:
    """Every number of the report as JSON values; totals are of the whole set, the rest of a sample.

    Reads markers, and the tables of at most `sampling.MAX_SHARDS` shards.
    """
    tokens = [f"{text}_num_tokens" for text in TEXTS]
    pairs = sample_pairs(stage.ledger, num_pairs, [*TEXTS, *tokens, *_PROVENANCE])
    texts = {text: pairs[text].to_pylist() for text in TEXTS}
    unit, lengths = _lengths(pairs)
    sketches = sketch(texts["description"], _SKETCH)
    return {
        "set": _totals(stage.ledger),
        "sample": {"num_pairs": pairs.num_rows, "rule": RULE},
        "lengths": {"unit": unit, **_length_values(lengths)},
        "length_bias": _bias(lengths),
        "ngrams": _ngram_values(texts),
        "compression": {text: compression_ratio(texts[text]) for text in TEXTS},
        "likeness": _likeness(sketches),
        "provenance": {name: _value_counts(pairs[name]) for name in _PROVENANCE},
    }


def ngrams_of(documents: Iterable[list[str]], n: int) -> Iterator[tuple[str, ...]]:
    """The n-grams of texts in words; none crosses from one text to the next."""
    for words in documents:
        yield from zip(*(words[i:] for i in range(n)), strict=False)


def first_words(documents: Iterable[list[str]], num: int) -> list[list[str]]:
    """The first `num` words of all texts together, by text."""
    found = []
    for words in documents:
        found.append(words[:num])
        num -= len(found[-1])
        if num <= 0:
            break
    return found


def density(documents: Iterable[list[str]], n: int) -> float:
    """Table 15: n-grams over NUM_BUCKETS."""
    return sum(max(len(words) - n + 1, 0) for words in documents) / NUM_BUCKETS


def ngram_figures(documents: list[list[str]], n: int) -> Values:
    """Of the n-grams of texts: entropy over NUM_BUCKETS hash buckets, in bits (at most log2 of
    their number), and the share that is distinct."""
    ngrams = Counter(ngrams_of(documents, n))
    num = sum(ngrams.values())
    buckets = np.zeros(NUM_BUCKETS)
    for ngram, count in ngrams.items():
        buckets[bucket_of(ngram)] += count
    shares = buckets[buckets > 0] / max(num, 1)
    return {
        "num": num,
        "bucket_entropy_bits": float(-(shares * np.log2(shares)).sum()) + 0.0,
        "distinct": len(ngrams) / num if num else None,
    }


def compression_ratio(texts: list[str]) -> float | None:
    """Bytes of all texts together over what zstd makes of them: repetition across texts counts."""
    data = "\n".join(texts).encode()
    return len(data) / len(pa.compress(data, codec="zstd", asbytes=True)) if data else None


def effective_number(counts: Iterable[int]) -> float | None:
    """exp of the entropy: so many equally frequent values would be as varied (Hill number)."""
    shares = np.array([count for count in counts if count], dtype=float)
    if not len(shares):
        return None
    shares /= shares.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _totals(ledger: ShardLedger) -> Values:
    totals = ledger.totals()
    return {
        "num_snippets": totals.num_input_rows,
        "num_pairs": totals.num_rows["pairs"],
        "num_rejected": totals.num_rows["rejected"],
        "num_shards": totals.num_shards,
        "num_tokens": token_sums(totals),
    }


def _lengths(pairs: pa.Table) -> tuple[str, dict[str, Lengths]]:
    """In tokens, or in characters where a text has no token count."""
    columns = [pairs[f"{text}_num_tokens"] for text in TEXTS]
    unit = "characters" if any(column.null_count for column in columns) else "tokens"
    if unit == "characters":
        columns = [pc.call_function("utf8_length", [pairs[text]]) for text in TEXTS]
    arrays = [column.to_numpy().astype(np.int64) for column in columns]
    return unit, dict(zip(TEXTS, arrays, strict=True))


def _length_values(lengths: dict[str, Lengths]) -> Values:
    """Figures of each text, and histograms on the same bins; the last one has all that is longer
    than 99 % of the texts, which would leave the others no room."""
    if not len(lengths["chosen"]):
        return {text: {"mean": None, "quantiles": {}, "max": None, "counts": []} for text in TEXTS}
    top = max(1.0, *(float(np.quantile(found, 0.99)) for found in lengths.values()))
    edges = np.linspace(0, top, _NUM_BINS + 1)
    return {
        "edges": edges.tolist(),
        **{
            text: {
                "mean": float(found.mean()),
                "quantiles": {f"{q:g}": float(np.quantile(found, q)) for q in _QUANTILES},
                "max": int(found.max()),
                "counts": np.histogram(np.minimum(found, top), edges)[0].tolist(),
            }
            for text, found in lengths.items()
        },
    }


def _bias(lengths: dict[str, Lengths]) -> Values:
    bias = length_bias(lengths["chosen"], lengths["rejected"])
    values = {**vars(bias), "longer_rule": bias.longer_rule}
    return {name: None if math.isnan(value) else value for name, value in values.items()}


def _ngram_values(texts: dict[str, list[str]]) -> Values:
    words = {text: list(map(split_words, texts[text])) for text in TEXTS}
    num_words = {text: sum(map(len, documents)) for text, documents in words.items()}
    num_compared = min(_MAX_WORDS, *num_words.values())
    found: Values = {"num_buckets": NUM_BUCKETS, "num_words_compared": num_compared}
    for text, documents in words.items():
        cut = first_words(documents, num_compared)
        found[text] = {
            "num_words": num_words[text],
            "density": {str(n): density(documents, n) for n in ORDERS},
            **{str(n): ngram_figures(cut, n) for n in ORDERS},
        }
    return found


def bucket_of(ngram: tuple[str, ...]) -> int:
    """Of NUM_BUCKETS; Python's own hash differs from run to run."""
    return crc32("\0".join(ngram).encode("utf-8", "surrogatepass")) % NUM_BUCKETS


def _likeness(sketches: Sketches) -> Values:
    """Estimated Jaccard similarity of word 3-grams between descriptions: of pairs that are chance
    neighbours, and the share of descriptions in a cluster with an earlier one."""
    signatures, num = sketches.signatures, len(sketches.signatures)
    shifts = [round(num * (i + 1) / (_NUM_SHIFTS + 1)) for i in range(_NUM_SHIFTS)]
    shifts = sorted({shift for shift in shifts if 0 < shift < num})
    if not shifts:
        return {"mean": None, "share_near_duplicates": None, "histogram": {}}
    found = [similarity(signatures, np.roll(signatures, shift, axis=0)) for shift in shifts]
    values = np.clip(np.concatenate(found), 0, 1)
    first = first_of_clusters(list(sketches.keys.T), signatures, _SKETCH.min_similarity)
    counts, edges = np.histogram(values, 25, (0, 1))
    return {
        "mean": float(values.mean()),
        "num_compared": len(values),
        "share_near_duplicates": float(np.mean(first != np.arange(num))),
        "min_similarity": _SKETCH.min_similarity,
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }


def _value_counts(column: pa.ChunkedArray) -> Values:
    counts = Counter("unknown" if value is None else value for value in column.to_pylist())
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return {
        "num_values": len(counts),
        "effective_number": effective_number(counts.values()),
        "top": dict(ordered[:_MAX_VALUES]),
    }
