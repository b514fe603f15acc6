"""Small requests a second of this version of the service, of an older one, and of a bare Serve.

All with a scorer that takes no time, each in a process of its own that starts its own Ray, in turn
on the same cores and with the same bodies. The older version runs from a git worktree. The bare
application is two deployments of Ray Serve: what ingress and replica cost without this project.

`python -m benchmarks._serve_versions bare` serves it until its standard input closes.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks._load import closed_loop
from benchmarks._results import free_port, series_result

ROOT = Path(__file__).resolve().parents[1]
BEFORE = "b4addc7"
# Of either version: both have these names.
_SERVE = """
import json, sys, tempfile
from pathlib import Path
from benchmarks._serving import export_model, run_workers_like_peers, serving_recipe
from benchmarks._zero_cost_scorer import ZeroCostReplica
try:
    from codepmp_ray.serve.launch import running_service
except ImportError:
    from serve.launch import running_service
with tempfile.TemporaryDirectory() as folder:
    model = export_model(Path(folder))
    run_workers_like_peers()
    recipe = serving_recipe(engine="torch", max_model_len=512)
    with running_service(recipe, model, replica_class=ZeroCostReplica) as service:
        print("ready", json.dumps([f"{service.url}/v1/bon", service.api_key]), flush=True)
        sys.stdin.read()
"""


@contextmanager
def older_tree(commit: str = BEFORE) -> Iterator[Path]:
    """A worktree of `commit`, for the time of the block."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", str(tree), commit], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


@contextmanager
def _served(tree: Path, arguments: list[str]) -> Iterator[tuple[str, str]]:
    """(address, key) of what the command serves."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    child = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=tree,
        env=inherited | {"PYTHONPATH": str(tree)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None and child.stdout is not None
    try:
        for line in child.stdout:
            if line.startswith("ready "):
                url, key = json.loads(line.removeprefix("ready "))
                yield url, key
                break
        else:
            raise RuntimeError(f"{tree} serves nothing")
    finally:
        child.stdin.close()
        child.wait(120)
        child.stdout.close()


def requests_per_s(
    bodies: list[bytes], num_callers: int, rounds: int, **context: Any
) -> list[dict[str, Any]]:
    """Results: each one's rate, this version's over the older one's and over the bare one's."""
    rates: dict[str, list[float]] = {"before": [], "now": [], "bare": []}
    with older_tree() as before:
        for number in range(rounds):
            ways = {
                "before": (before, ["-c", _SERVE]),
                "now": (ROOT, ["-c", _SERVE]),
                "bare": (ROOT, ["-m", __name__, "bare"]),
            }
            for name in list(ways) if number % 2 else list(reversed(ways)):
                with _served(*ways[name]) as (url, key):
                    warm_up, measured = bodies[: len(bodies) // 4], bodies
                    asyncio.run(closed_loop(url, key, warm_up, num_callers))
                    took_s, found = asyncio.run(closed_loop(url, key, measured, num_callers))
                if wrong := {item.status for item in found} - {200}:
                    raise RuntimeError(f"{name}: answers of status {wrong}")
                rates[name].append(len(measured) / took_s)
            print(f"round {number + 1} of {rounds}: requests/s {rates}", flush=True)
    context |= {"scorer": "zero-cost fake", "callers": num_callers, "before": BEFORE}

    def over(metric: str, one: str, goal: str | None) -> dict[str, Any]:
        ratios = [a / b for a, b in zip(rates["now"], rates[one], strict=True)]
        return series_result(metric, ratios, "ratio", goal, **context)

    return [
        over("requests_per_s_over_before", "before", "at least 2.5"),
        over("requests_per_s_over_bare_serve", "bare", None),
        *(
            series_result(f"requests_per_s_{name}", found, "requests/s", **context)
            for name, found in rates.items()
        ),
    ]


def _serve_bare() -> None:
    from ray import serve
    from starlette.requests import Request

    from codepmp_ray.cluster.connect import connect

    @serve.deployment(ray_actor_options={"num_cpus": 0}, max_ongoing_requests=1000)
    class Scorer:
        async def score(self, texts: list[str]) -> list[float]:
            return [float(len(text)) for text in texts]

    @serve.deployment(ray_actor_options={"num_cpus": 0}, max_ongoing_requests=1000)
    class Ingress:
        def __init__(self, scorer: Any) -> None:
            self._scorer = scorer

        async def __call__(self, request: Request) -> dict[str, Any]:
            body = await request.json()
            return {"scores": await self._scorer.score.remote(body["candidates"])}

    port = free_port()
    with connect():
        serve.start(
            http_options={"host": "127.0.0.1", "port": port},
            logging_config={"log_level": "WARNING", "enable_access_log": False},
        )
        serve.run(Ingress.bind(Scorer.bind()), route_prefix="/")
        print("ready", json.dumps([f"http://127.0.0.1:{port}/", "none"]), flush=True)
        sys.stdin.read()
        serve.shutdown()


if __name__ == "__main__":
    from benchmarks._serving import run_workers_like_peers

    run_workers_like_peers()
    _serve_bare()
