"""Counts that travel in a shard's marker, so that progress is known without opening a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from codepmp_ray.reject_reasons import RejectReason
from codepmp_ray.shard_markers import Totals

_REASON, _TOKENS, _HITS = "rejected_by_reason.", "num_tokens.", "contaminated."
_SIDES = ("description", "reference", "chosen", "rejected")


def shard_stats(tables: Mapping[str, pa.Table]) -> dict[str, int]:
    """Rejected rows by reason, contaminated ones also by evaluation set and side, and sums of
    every `*_num_tokens` column of the other tables."""
    stats: Counter[str] = Counter()
    for name, table in tables.items():
        if name == "rejected":
            reasons = Counter(table.column("reason").to_pylist())
            stats.update({f"{_REASON}{reason}": count for reason, count in reasons.items()})
            stats.update(map(_hit, _contaminated_details(table)))
            continue
        for column in table.column_names:
            if column.endswith("num_tokens"):
                values = table.column(column)
                if pa.types.is_list(values.type):
                    values = pc.call_function("list_flatten", [values])
                stats[f"{_TOKENS}{column}"] += sum(filter(None, values.to_pylist()))
    return dict(stats)


def rejects_by_reason(totals: Totals) -> dict[str, int]:
    """Reason -> number of rows, most frequent first."""
    return _with_prefix(totals, _REASON)


def contamination_hits(totals: Totals, sets: Iterable[str] = ()) -> dict[str, dict[str, int]]:
    """Evaluation set -> side ("snippet", "description", "chosen", "rejected") -> rows that left.

    `sets` are there also without a hit.
    """
    hits: dict[str, dict[str, int]] = {name: {} for name in sets}
    for name, count in _with_prefix(totals, _HITS).items():
        evaluation_set, _, side = name.rpartition(".")
        hits.setdefault(evaluation_set, {})[side] = count
    return hits


def token_sums(totals: Totals) -> dict[str, int]:
    """Column (`chosen_num_tokens`, ...) -> its sum over the product rows."""
    return _with_prefix(totals, _TOKENS)


def _contaminated_details(rejected: pa.Table) -> list[str]:
    is_hit = pc.call_function("equal", [rejected.column("reason"), str(RejectReason.CONTAMINATED)])
    return rejected.column("detail").filter(is_hit).to_pylist()


def _hit(detail: str) -> str:
    """The counter of one hit; details begin "set: side: ", or "set: " for a snippet."""
    evaluation_set, side, *_ = [*detail.split(": ", 2), ""]
    return f"{_HITS}{evaluation_set}.{side if side in _SIDES else 'snippet'}"


def _with_prefix(totals: Totals, prefix: str) -> dict[str, int]:
    return {
        name.removeprefix(prefix): count
        for name, count in totals.stats.most_common()
        if name.startswith(prefix)
    }
