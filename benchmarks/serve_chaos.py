"""Calls through our client while processes of the service, and other callers, are killed (SIGKILL)
under load.

Two replicas. Scorers are killed every 3 s with fake engines, and at twice the measured time to
start with vLLM (SmolLM2 as a reward model); with fake engines also the ingress, of which there is
one. A call fails that raises, that gives other rewards than it should, or
that takes longer than the deadline with all its retries.

    python -m benchmarks.serve_chaos [--engine fake] [--seconds 60]
    python -m benchmarks.serve_chaos --engine vllm [--seconds 600] [--model FOLDER]

Ten times a caller with 300 calls in flight is killed: afterwards no tokens may be in flight.
It also reports how long autoscaling takes from one replica to two and back.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ray

from benchmarks._fake_replica import FakeReplica, fake_recipe, write_fake_model
from benchmarks._results import one_result, options, write_beside
from benchmarks._serve_load import (
    INGRESS,
    SCORER,
    Calls,
    as_the_fake_scores,
    kill_one,
    load,
    num_running,
    seconds_until,
)
from benchmarks._serving import SCRAPE_TOKEN, export_model, open_client, scraped
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.serve.auth import digest_of
from codepmp_ray.serve.deployments import ScorerReplica
from codepmp_ray.serve.launch import running_service

NUM_CALLERS = 8
DEADLINE_S = {"fake": 30.0, "vllm": 300.0}
EVERY_S = {SCORER: 3.0, INGRESS: 10.0}
NAMES = {SCORER: "scorer", INGRESS: "ingress", "caller": "caller"}


def harass(title: str, every_s: float, seconds: float, choice: random.Random) -> int:
    """Kill for `seconds`; returns how often. Then all replicas have time to come back."""
    num_kills, end_s = 0, time.monotonic() + seconds
    while time.monotonic() < end_s:
        num_kills += kill_one(title, choice)
        time.sleep(every_s)
    return num_kills


def result_of(
    title: str, engine: str, calls: Calls, num_kills: int, every_s: float, start_up_s: float
) -> dict[str, Any]:
    return one_result(
        f"failed_calls_{engine}_{NAMES[title]}",
        len(calls.failures),
        f"of {calls.num} calls",
        0,
        engine=engine,
        kills=num_kills,
        every_s=round(every_s, 1),
        deadline_s=DEADLINE_S[engine],
        longest_call_s=round(calls.longest_s, 2),
        median_call_s=round(statistics.median(calls.seconds), 4) if calls.seconds else None,
        start_up_s=round(start_up_s, 1),
        failures=calls.failures[:5],
    )


def kill_under_load(
    recipe: Recipe, model: Path, engine: str, titles: list[str], seconds: float, seed: int
) -> list[dict[str, Any]]:
    results = []
    replica_class = FakeReplica if engine == "fake" else ScorerReplica
    check = as_the_fake_scores(0.0) if engine == "fake" else None
    start_s = time.monotonic()
    with running_service(recipe, model, replica_class=replica_class) as service:
        start_up_s = time.monotonic() - start_s
        for title in titles:
            every_s = EVERY_S[title] if engine == "fake" else 2 * start_up_s
            choice = random.Random(seed)
            with load(
                service.url, service.api_key, NUM_CALLERS, DEADLINE_S[engine], check
            ) as calls:
                time.sleep(1.0)
                num_kills = harass(title, every_s, seconds, choice)
            results.append(result_of(title, engine, calls, num_kills, every_s, start_up_s))
            print(json.dumps(results[-1]), flush=True)
            seconds_until(lambda: num_running() == recipe.serving.num_replicas)
    return results


# Of one caller: many calls at once, of which none is answered before it is killed.
_CALLER = """
import asyncio, sys
import aiohttp
url, key = sys.argv[1:]
async def main():
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers={"x-api-key": key}) as session:
        async def ask(i):
            texts = [f"{i} {n} " + "x" * 300 for n in range(8)]
            async with session.post(url, json={"prompt": "p", "candidates": texts}) as answer:
                await answer.read()
        await asyncio.gather(*(ask(i) for i in range(300)))
asyncio.run(main())
"""


def kill_callers(recipe: Recipe, model: Path, num_kills: int, seed: int) -> list[dict[str, Any]]:
    """A client with 300 calls in flight is killed, again and again, beside others' calls."""
    start_s, choice = time.monotonic(), random.Random(seed)
    with running_service(recipe, model, replica_class=FakeReplica) as service:
        start_up_s, arguments = time.monotonic() - start_s, [f"{service.url}/v1/bon"]
        arguments.append(service.api_key)
        check = as_the_fake_scores(0.0)
        with load(service.url, service.api_key, 2, DEADLINE_S["fake"], check) as calls:
            for _ in range(num_kills):
                caller = subprocess.Popen([sys.executable, "-c", _CALLER, *arguments])
                time.sleep(2.0 + choice.random())
                caller.kill()
                caller.wait()
        with open_client(service.url, service.api_key) as client:
            give_up_s = time.monotonic() + 60.0
            while scraped(client, "codepmp_tokens_in_flight") and time.monotonic() < give_up_s:
                time.sleep(0.5)
            left = scraped(client, "codepmp_tokens_in_flight")
            left += scraped(client, "codepmp_tokens_waiting")
    common = {"engine": "fake", "kills": num_kills}
    return [
        result_of("caller", "fake", calls, num_kills, 2.5, start_up_s),
        one_result("tokens_in_flight_after_killed_callers", left, "tokens", 0, **common),
    ]


def scale(model: Path) -> list[dict[str, Any]]:
    """From one replica to two under load, and back without."""
    recipe = fake_recipe(
        num_replicas=1, max_replicas=3, target_tokens_per_replica=200, downscale_delay_s=5.0
    )
    with running_service(recipe, model, replica_class=FakeReplica) as service:
        with load(service.url, service.api_key, 16, DEADLINE_S["fake"]) as calls:
            up_s = seconds_until(lambda: num_running() >= 2)
        down_s = seconds_until(lambda: num_running() == 1)
    return [
        one_result("autoscaling_up_s", round(up_s, 1), "s", engine="fake", failed=calls.failures),
        one_result("autoscaling_down_s", round(down_s, 1), "s", engine="fake"),
    ]


def main() -> None:
    parser = options(__doc__, seconds=(60.0, "of each kind of kills"), seed=0)
    parser.add_argument("--engine", choices=["fake", "vllm"], default="fake")
    parser.add_argument("--model", type=Path, help="an exported reward model, for vllm")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="serve chaos ") as scratch:
        if arguments.engine == "fake":
            model = write_fake_model(Path(scratch) / "model", tokens_per_s=20_000)
            recipe = fake_recipe(num_replicas=2)
            titles = [SCORER, INGRESS]
            results = kill_under_load(
                recipe, model, "fake", titles, arguments.seconds, arguments.seed
            )
            scrape = {"metrics_token_sha256": [digest_of(SCRAPE_TOKEN)]}
            results += kill_callers(fake_recipe(**scrape), model, 10, arguments.seed)
            results += scale(write_fake_model(Path(scratch) / "slow", tokens_per_s=500))
        else:
            model = arguments.model or export_model(Path(scratch))
            serving = {"port": 0, "num_replicas": 2, "max_model_len": 512, "num_cpus": 0.5}
            recipe = Recipe.model_validate({"serving": {**serving, "kv_cache_gb": 0.5}})
            results = kill_under_load(
                recipe, model, "vllm", [SCORER], arguments.seconds, arguments.seed
            )
    ray.shutdown()
    write_beside("serve_chaos", results, "engine")


if __name__ == "__main__":
    main()
