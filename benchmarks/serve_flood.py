"""A trainer's step at once: 4,096 calls of 2,400 characters from one key, and callers of another.

Real Ray Serve, a scorer that takes no time, aiohttp as verl has it: no limit on connections, no
retry, 300 s for each call. Goals: nothing is refused, and the other key's calls, one after the
other, are answered as if the flood were not there.

    python -m benchmarks.serve_flood [--calls 4096] [--characters 2400]
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks._fake_replica import FakeReplica, fake_recipe, write_fake_model
from benchmarks._results import options, series_result, write_results
from codepmp_ray.serve.auth import digest_of
from codepmp_ray.serve.launch import running_service

TIMEOUT_S = 300.0


async def flood(
    url: str, key: str, other: str, calls: int, characters: int
) -> tuple[Counter[int], float, list[float]]:
    """(statuses of the flood, its seconds, seconds of each of the other key's calls)."""
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        waited: list[float] = []

        async def ask(text: str, bearer: str) -> int:
            body = {"input": text, "use_activation": False}
            headers = {"Authorization": f"Bearer {bearer}"}
            async with session.post(f"{url}/classify", json=body, headers=headers) as answer:
                await answer.read()
                return answer.status

        async def ask_on() -> None:
            while True:
                start_s = time.perf_counter()
                if await ask("short", other) == 200:
                    waited.append(time.perf_counter() - start_s)

        start_s = time.perf_counter()
        beside = asyncio.create_task(ask_on())
        texts = [f"{number} ".ljust(characters, "x") for number in range(calls)]
        found = await asyncio.gather(*(ask(text, key) for text in texts), return_exceptions=True)
        took_s = time.perf_counter() - start_s
        beside.cancel()
        await asyncio.gather(beside, return_exceptions=True)
    return Counter(item if isinstance(item, int) else 0 for item in found), took_s, waited


def main() -> None:
    arguments = options(__doc__, calls=4096, characters=2400).parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        keys = Path(scratch) / "keys"
        keys.write_text(digest_of("another key"))
        recipe = fake_recipe(max_model_len=4096, api_keys_file=str(keys))
        model = write_fake_model(Path(scratch) / "model")
        with running_service(recipe, model, replica_class=FakeReplica) as service:
            statuses, took_s, waited = asyncio.run(
                flood(
                    service.url,
                    service.api_key,
                    "another key",
                    arguments.calls,
                    arguments.characters,
                )
            )
    print(statuses, flush=True)
    context: dict[str, Any] = {"calls": arguments.calls, "characters": arguments.characters}
    refused = arguments.calls - statuses[200]
    write_results(
        "serve_flood",
        [
            series_result("calls_not_answered", [refused], "calls", "0", **context)
            | {"by_status": {str(status): number for status, number in sorted(statuses.items())}},
            series_result("seconds_of_the_flood", [took_s], "s", "at most 300", **context),
            series_result(
                "other_key_median_wait",
                [statistics.median(waited)] if waited else [],
                "s",
                answered=len(waited),
                longest_s=round(max(waited, default=0.0), 3),
                **context,
            ),
        ],
    )


if __name__ == "__main__":
    main()
