"""The corpus and the pairs of a run, counted from their committed tables."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from codepmp_ray.analysis.lengths import Lengths, PairLengths, pair_lengths
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.records import REJECTED, SNIPPET
from codepmp_ray.runs import Stage
from codepmp_ray.shard_stats import contamination_hits
from codepmp_ray.synthesis.counts import sets_in_use

Counts = dict[str, int]
NUM_EXAMPLES = 3
PEOPLE = "people"  # who wrote a text without a model
_COUNTED = [
    "license", "language", "repo", "construction", "describe_model", "strong_model", "weak_model",
    "prompt_template",
]  # fmt: skip
_TEXTS = ("description", "chosen", "rejected")
_TOKENS = [f"{text}_num_tokens" for text in _TEXTS]


@dataclass(frozen=True)
class CorpusData:
    """`num_files` counts every file that was read, also those without a usable snippet."""

    num_files: int
    num_snippets: int
    reasons: Counts
    licenses: Counts
    kinds: Counts

    @property
    def num_rejected(self) -> int:
        return sum(self.reasons.values())


@dataclass(frozen=True)
class SynthesisData:
    """Pairs and rejected rows. `sizes` has one array of lengths per text, in pair order.

    `unit` of lengths is "tokens", or "characters" where a text was written by no model and so has
    no token count. `contaminated` counts, per evaluation set in use, the rows that left because of
    it, by side. `values` counts the values of each provenance column; `examples` are whole pairs.
    """

    num_snippets: int
    num_pairs: int
    reasons: Counts
    contaminated: dict[str, Counts]
    values: dict[str, Counts]
    unit: str
    sizes: dict[str, Lengths]
    lengths: PairLengths
    examples: list[dict[str, Any]]

    @property
    def num_rejected(self) -> int:
        return sum(self.reasons.values())

    @property
    def is_demonstration(self) -> bool:
        """True when one model wrote both sides, so that no model is stronger than the other."""
        strong, weak = self.values["strong_model"], self.values["weak_model"]
        return set(strong) == set(weak) and len(strong) == 1 and PEOPLE not in strong


def read_columns(
    ledger: ShardLedger, table: str, columns: list[str], schema: pa.Schema
) -> pa.Table:
    """Committed rows of `columns`; a table with these columns also when there is no row."""
    found = ledger.read(table, columns)
    if found.num_columns:
        return found
    return pa.schema([schema.field(name) for name in columns]).empty_table()


def value_counts(column: pa.ChunkedArray, null: str = "unknown") -> Counts:
    """Value -> number of rows, most frequent first; null is counted as `null`."""
    counts: Counter[str] = Counter()
    for item in column.value_counts().to_pylist():
        counts[item["values"] or null] += item["counts"]
    return _by_frequency(counts)


def _by_frequency(counts: Counter[str]) -> Counts:
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def reject_reasons(ledger: ShardLedger) -> Counts:
    """Most frequent first; one shard's rows in memory."""
    counts: Counter[str] = Counter()
    for table in ledger.read_each("rejected", ["reason"]):
        counts.update(value_counts(table["reason"]))
    return _by_frequency(counts)


def load_corpus(stage: Stage) -> CorpusData:
    where = ["repo", "path", "source_id"]
    snippets = read_columns(stage.ledger, "snippets", [*where, "license", "kind"], SNIPPET)
    rejected = read_columns(stage.ledger, "rejected", [*where, "reason"], REJECTED)
    files = pa.concat_tables([snippets.select(where), rejected.select(where)])
    return CorpusData(
        num_files=files.group_by(where).aggregate([]).num_rows,
        num_snippets=snippets.num_rows,
        reasons=value_counts(rejected["reason"]),
        licenses=value_counts(snippets["license"]),
        kinds=value_counts(snippets["kind"]),
    )


def load_synthesis(stage: Stage) -> SynthesisData:
    """Twelve bytes for every pair stay in memory (its lengths), and a count for every value."""
    values: dict[str, Counter[str]] = {name: Counter() for name in _COUNTED}
    tokens: dict[str, list[Lengths]] | None = {text: [] for text in _TEXTS}
    num_pairs = 0
    for table in stage.ledger.read_each("pairs", [*_COUNTED, *_TOKENS]):
        num_pairs += table.num_rows
        for name, counts in values.items():
            null = PEOPLE if name.endswith("_model") else "unknown"
            counts.update(value_counts(table[name], null))
        if any(table[name].null_count for name in _TOKENS):
            tokens = None
        if tokens is not None:
            for text, parts in tokens.items():
                parts.append(_numbers(table[f"{text}_num_tokens"]))
    unit = "tokens" if tokens is not None else "characters"
    sizes = _joined(tokens if tokens is not None else _characters(stage.ledger))
    return SynthesisData(
        num_snippets=sum(commit.num_input_rows for commit in stage.ledger.commits()),
        num_pairs=num_pairs,
        reasons=reject_reasons(stage.ledger),
        contaminated=contamination_hits(stage.ledger.totals(), sets_in_use(stage.recipe)),
        values={name: _by_frequency(counts) for name, counts in values.items()},
        unit=unit,
        sizes=sizes,
        lengths=pair_lengths(sizes["description"], sizes["chosen"], sizes["rejected"]),
        examples=_examples(stage.ledger),
    )


def _characters(ledger: ShardLedger) -> dict[str, list[Lengths]]:
    """Where a text has no token count, all are counted in characters, so that they compare."""
    counts: dict[str, list[Lengths]] = {text: [] for text in _TEXTS}
    for table in ledger.read_each("pairs", list(_TEXTS)):
        for text in _TEXTS:
            counts[text].append(_numbers(pc.call_function("utf8_length", [table[text]])))
    return counts


def _joined(parts: dict[str, list[Lengths]]) -> dict[str, Lengths]:
    none = np.zeros(0, dtype=np.int32)
    return {text: np.concatenate([none, *arrays]) for text, arrays in parts.items()}


def _numbers(column: pa.ChunkedArray) -> Lengths:
    return column.to_numpy().astype(np.int32)


def _examples(ledger: ShardLedger) -> list[dict[str, Any]]:
    """Pairs evenly spread over the first shard that has any: one shard's texts in memory."""
    for commit in ledger.commits():
        if commit.num_rows.get("pairs"):
            table = ledger.store.read_table(commit.files["pairs"])
            wanted = min(NUM_EXAMPLES, table.num_rows)
            rows = np.linspace(0, table.num_rows - 1, wanted).round().astype(int)
            return table.take(pa.array(rows)).to_pylist()
    return []
