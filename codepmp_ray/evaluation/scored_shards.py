"""Prompts with their texts, scored in shards that resume; for every job that asks a service.

A shard's rows are committed together; a job that is killed scores no shard twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from codepmp_ray.client import CandidateScore, RewardClient
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.progress import Progress
from codepmp_ray.records import table_from_rows

# Enough to hide the way there and back; the service batches what arrives together.
_NUM_REQUESTS_IN_FLIGHT = 2
Prompt = str | list[dict[str, str]]


@dataclass(frozen=True)
class Request:
    """Texts to one prompt (equal ones are sent once), and how their scores become rows."""

    prompt: Prompt
    texts: Sequence[str]
    rows: Callable[[list[CandidateScore]], list[dict[str, Any]]]


def score_in_shards(
    ledger: ShardLedger,
    client: RewardClient,
    requests: Sequence[Request],
    per_shard: int,
    table: str,
    schema: pa.Schema,
    max_texts: int | None = None,
) -> list[dict[str, Any]]:
    """All rows of `table`, those of earlier attempts included, in the order of their shards.

    Requests of more than `max_texts` different texts are sent in parts.

    Raises what `RewardClient.score` raises.
    """
    shards = [requests[i : i + per_shard] for i in range(0, len(requests), per_shard)]
    missing = ledger.missing_ids(len(shards))
    num_done = len(requests) - sum(len(shards[shard_id]) for shard_id in missing)
    with (
        Progress("scores", len(requests), "prompts", done=num_done) as progress,
        ThreadPoolExecutor(_NUM_REQUESTS_IN_FLIGHT) as threads,
    ):
        progress.update(num_done)
        for shard_id in missing:
            rows: list[dict[str, Any]] = []
            for made in threads.map(
                lambda request: _rows(client, request, max_texts), shards[shard_id]
            ):
                rows += made
                num_done += 1
                progress.update(num_done)
            ledger.commit(shard_id, len(rows), {table: table_from_rows(rows, schema)})
    ledger.sweep((table,))
    return ledger.read(table).to_pylist()


def _rows(client: RewardClient, request: Request, max_texts: int | None) -> list[dict[str, Any]]:
    distinct = list(dict.fromkeys(request.texts))
    size = max_texts or max(len(distinct), 1)
    parts = [distinct[i : i + size] for i in range(0, len(distinct), size)]
    scores = {
        text: score
        for part in parts
        for text, score in zip(part, client.score(request.prompt, part), strict=True)
    }
    return request.rows([scores[text] for text in request.texts])
