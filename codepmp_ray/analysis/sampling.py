"""A sample of a finished set of pairs, the same each time, that costs the same at any size.

The rule: shards in the order of a hash of their number, the first MAX_SHARDS that have pairs; of
each of them equally many pairs, those with the smallest `pair_id`, which is itself a hash. A small
set is taken whole.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from codepmp_ray.ledger import ShardCommit, ShardLedger
from codepmp_ray.records import PAIR, stable_id

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
