"""Limits at which a stage stops by itself: what it may cost, and how much of it may be rejected.

What is committed stays, and the same command goes on once the limit or its cause has changed.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import Any

from codepmp_ray.cluster.device_time import price_of
from codepmp_ray.config.synthesis import PlanningConfig
from codepmp_ray.errors import LimitReached
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.runs import Stage, stage_folders

_LOOK_INTERVAL_S = 30.0
_NUM_EXAMPLES = 3
_EXAMPLE_CHARS = 200


class PriceLimit:
    """Stops when the stages of a run have cost `planning.max_price`. Call it as often as one likes.

    Raises LimitReached.
    """

    def __init__(self, stage: Stage) -> None:
        self._recipe, self._looked_s = stage.recipe, float("-inf")

    def __call__(self) -> None:
        planning: PlanningConfig = self._recipe.planning
        now_s = time.monotonic()
        if planning.max_price is None or now_s - self._looked_s < _LOOK_INTERVAL_S:
            return
        self._looked_s = now_s
        price = price_of(stage_folders(self._recipe), planning)
        if price >= planning.max_price:
            raise LimitReached(
                f"The GPUs of this run have cost {price:,.2f}, and planning.max_price is "
                f"{planning.max_price:,.2f}.",
                "Raise planning.max_price and run the same command again: it goes on from there.",
            )


class RejectFuse:
    """Stops when too many rows of the last committed shards were rejected.

    Looks at the last `num_shards` shards, once they have `min_rows` rows.
    """

    def __init__(
        self, ledger: ShardLedger, max_share: float, num_shards: int = 16, min_rows: int = 1_000
    ) -> None:
        self._ledger, self._max_share, self._min_rows = ledger, max_share, min_rows
        self._last: deque[tuple[int, int, int]] = deque(maxlen=num_shards)

    def committed(self, shard_id: int, num_rows: int, num_rejected: int) -> None:
        """Take a shard into account. Raises LimitReached with three examples."""
        self._last.append((shard_id, num_rows, num_rejected))
        rows = sum(num for _, num, _ in self._last)
        rejected = sum(num for _, _, num in self._last)
        if rows < self._min_rows or rejected <= self._max_share * rows:
            return
        raise LimitReached(
            f"{rejected:,} of the last {rows:,} rows were rejected, more than "
            f"planning.max_reject_share={self._max_share:g} of them. {self._examples()}",
            "Look at the table `rejected` and change what rejects them; with a higher "
            "planning.max_reject_share the same command goes on.",
        )

    def _examples(self) -> str:
        """Of the reasons that there are most often, one row each, then further ones."""
        rows: list[dict[str, Any]] = []
        for shard_id, _, num_rejected in reversed(self._last):
            if num_rejected:
                rows += self._ledger.read_shard("rejected", shard_id).to_pylist()
        counts = Counter(row["reason"] for row in rows)
        firsts = [next(r for r in rows if r["reason"] == name) for name, _ in counts.most_common()]
        others = [row for row in rows if all(row is not first for first in firsts)]
        return " ".join(map(_told, [*firsts, *others][:_NUM_EXAMPLES]))


def _told(row: dict[str, Any]) -> str:
    detail = " ".join(str(row.get("detail") or "").split())[:_EXAMPLE_CHARS]
    return f"{row['row_id']}: {row['reason']}{f' ({detail})' if detail else ''}."
