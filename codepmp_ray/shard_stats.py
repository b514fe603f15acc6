"""Counts that travel in a shard's marker, so that progress is known without opening a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pyarrow as pa

from codepmp_ray.ledger import Totals

_REASON, _TOKENS = "rejected_by_reason.", "num_tokens."


def shard_stats(tables: Mapping[str, pa.Table]) -> dict[str, int]:
    """Rejected rows by reason, and sums of every `*_num_tokens` column of the other tables."""
    stats: Counter[str] = Counter()
    for name, table in tables.items():
        if name == "rejected":
            reasons = Counter(table.column("reason").to_pylist())
            stats.update({f"{_REASON}{reason}": count for reason, count in reasons.items()})
            continue
        for column in table.column_names:
            if column.endswith("num_tokens"):
                known = filter(None, table.column(column).to_pylist())
                stats[f"{_TOKENS}{column}"] += sum(known)
    return dict(stats)


def rejects_by_reason(totals: Totals) -> dict[str, int]:
    """Reason -> number of rows, most frequent first."""
    return _with_prefix(totals, _REASON)


def token_sums(totals: Totals) -> dict[str, int]:
    """Column (`chosen_num_tokens`, ...) -> its sum over the product rows."""
    return _with_prefix(totals, _TOKENS)


def _with_prefix(totals: Totals, prefix: str) -> dict[str, int]:
    return {
        name.removeprefix(prefix): count
        for name, count in totals.stats.most_common()
        if name.startswith(prefix)
    }
