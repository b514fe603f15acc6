"""Many small requests: 4 candidates each, 32 callers. What the service costs, and what load does.

1. Requests a second of 32 callers who wait for their answers, over vLLM's `LLM.encode` with the
   same settings and priority on the same ids, which gets all requests in one call; in turn, with
   new texts in every round.
2. The service with a scorer that takes no time (`_zero_cost_scorer`): milliseconds of one caller's
   request for 1 to 256 candidates, fitted by a straight line, and processor time at 32 callers.
   Tokenising, JSON and the caller's own work are in these.
3. Latency and goodput against offered load, Poisson arrivals up to three times the capacity found
   in 1. The waiting room is a few seconds long here, so that it is full within a measurement.
   The same up to 1.5 for the zero-cost scorer, where the caller and the service share the cores.

4. Requests a second of 32 callers with the zero-cost scorer, of this version over an older one
   and beside a bare Serve application of two deployments (`_serve_versions`), in turn.

On a machine without a GPU. `--only versions` measures the last part alone.

    python -m benchmarks.serve_small_requests [--rounds 5] [--requests 96] [--window 40]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks._load import closed_loop, encoded, open_loop
from benchmarks._results import gpu, options, series_result, write_results
from benchmarks._scoring_peers import offline_engine, peer
from benchmarks._serve_versions import requests_per_s
from benchmarks._serving import (
    Question,
    QuestionMaker,
    cpu_seconds,
    export_model,
    run_workers_like_peers,
    serving_recipe,
)
from benchmarks._training import ratio_result
from codepmp_ray.preference.tokenization import Encoder

if TYPE_CHECKING:
    from codepmp_ray.serve.launch import ServiceHandle

NUM_CANDIDATES, NUM_CALLERS = 4, 32
NUM_PROMPT_TOKENS, SHORTEST, LONGEST = 64, 16, 48
SIZES = (1, 4, 16, 64, 256)  # candidates of a request
LOADS = (0.25, 0.5, 0.75, 0.9, 1.25, 1.5, 2.0, 3.0)  # of the capacity
OWN_LOADS = tuple(load for load in LOADS if load <= 1.5)
ENGINE = {"engine": "vllm", "dtype": "float32", "max_model_len": 512, "kv_cache_gb": 1}
# About twenty requests being scored and as many waiting (33 kB each): seconds, not minutes.
ROOM = {"max_tokens_in_flight": 4096, "max_waiting_bytes": 20 * 33_000}


def make_questions(maker: QuestionMaker, count: int, size: int = NUM_CANDIDATES) -> list[Question]:
    return [
        maker.make(NUM_PROMPT_TOKENS, maker.lengths(size, SHORTEST, LONGEST)) for _ in range(count)
    ]


class Caller:
    """The service from outside."""

    def __init__(self, service: ServiceHandle) -> None:
        self._url, self._key = f"{service.url}/v1/bon", service.api_key

    def closed(self, questions: list[Question], num_callers: int) -> float:
        """Seconds for all of them; every one has to be answered."""
        bodies = [encoded(question) for question in questions]
        elapsed_s, found = asyncio.run(closed_loop(self._url, self._key, bodies, num_callers))
        refused = [item.status for item in found if item.status != 200]
        if refused:
            raise RuntimeError(f"{len(refused)} requests were not answered: {set(refused)}")
        return elapsed_s

    def times(self, questions: list[Question]) -> list[float]:
        """Seconds of each, one after the other."""
        bodies = [encoded(question) for question in questions]
        _, found = asyncio.run(closed_loop(self._url, self._key, bodies, 1))
        return [item.took_s for item in found]

    def curve(
        self, questions: list[Question], capacity: float, loads: Sequence[float], window_s: float
    ) -> list[dict[str, Any]]:
        """Points of (latency, goodput) at each of `loads`; the questions are repeated in turn."""
        bodies = itertools.cycle([encoded(question) for question in questions])
        points = []
        for load in loads:
            rate, lead_s = load * capacity, window_s / 2
            found = asyncio.run(open_loop(self._url, self._key, bodies, rate, lead_s, window_s))
            points.append({"load": load} | found)
            print(points[-1], flush=True)
        return points


def throughput(
    model: Path, maker: QuestionMaker, caller: Caller, arguments: argparse.Namespace
) -> tuple[list[dict[str, Any]], float]:
    """Results of part 1, and the capacity in requests a second."""
    times: dict[str, list[float]] = {"http": [], "offline": []}
    serving = serving_recipe(**ENGINE).serving.model_dump(mode="json")
    with peer(offline_engine, model, serving) as offline:
        for number in range(arguments.rounds + 1):  # the first one warms up
            questions = make_questions(maker, arguments.requests)
            rows = [row for question in questions for row in question.rows]
            ways = {
                "http": partial(caller.closed, questions, NUM_CALLERS),
                "offline": lambda rows=rows: offline(rows)[0],
            }
            order = list(ways) if number % 2 else list(reversed(ways))
            took = {}
            for name in order:
                time.sleep(2)  # vLLM's processes go on looking for work for a second
                took[name] = ways[name]()
            for name, taken in took.items():
                times[name] += [taken] if number else []
            print(f"round {number} of {arguments.rounds}: seconds {took}", flush=True)
    rates = {name: [arguments.requests / taken for taken in times[name]] for name in times}
    context = {"requests": arguments.requests, "callers": NUM_CALLERS, **ENGINE}
    ratio = ratio_result(
        "http_over_offline", times["offline"], times["http"], "at least 0.85", **context
    )
    shown = [
        series_result(f"{name}_requests_per_s", rates[name], "requests/s", **context)
        for name in rates
    ]
    return [ratio, *shown], statistics.median(rates["http"])


def own_cost(
    maker: QuestionMaker, caller: Caller, arguments: argparse.Namespace
) -> tuple[list[dict[str, Any]], float]:
    """Results of part 2, and the zero-cost capacity in requests a second."""
    caller.closed(make_questions(maker, 64), NUM_CALLERS)  # warms up
    lines, all_ms = [], {size: list[float]() for size in SIZES}
    for _ in range(arguments.rounds):
        medians = []
        for size in SIZES:
            took = caller.times(make_questions(maker, 20, size))
            medians.append(1000 * statistics.median(took))
            all_ms[size].append(medians[-1])
        # The absolute error grows with the size: relative errors are weighed alike.
        slope, start = np.polyfit(SIZES, medians, 1, w=1 / np.array(medians))
        lines.append((float(start), float(slope)))
    rates, cpu_ms = [], []
    for _ in range(arguments.rounds):
        questions = make_questions(maker, 4 * arguments.requests)
        before_s = cpu_seconds(with_caller=False)
        elapsed_s = caller.closed(questions, NUM_CALLERS)
        cpu_ms.append(1000 * (cpu_seconds(with_caller=False) - before_s) / len(questions))
        rates.append(len(questions) / elapsed_s)
    points = [
        {"candidates": size, "median_ms": round(statistics.median(all_ms[size]), 2)}
        for size in SIZES
    ]
    context = {"scorer": "zero-cost fake"}
    return [
        series_result(
            "service_ms_per_request",
            [start for start, _ in lines],
            "ms",
            callers=1,
            by_candidates=points,
            **context,
        ),
        series_result(
            "service_ms_per_candidate", [slope for _, slope in lines], "ms", callers=1, **context
        ),
        series_result(
            "service_cpu_ms_per_request",
            cpu_ms,
            "ms",
            callers=NUM_CALLERS,
            candidates=NUM_CANDIDATES,
            **context,
        ),
        series_result(
            "service_requests_per_s", rates, "requests/s", callers=NUM_CALLERS, **context
        ),
    ], statistics.median(rates)


def results_of_curve(
    points: list[dict[str, Any]], goal: str | None, **context: Any
) -> list[dict[str, Any]]:
    """Goodput past saturation over its peak, and the share of 429 among what was not answered."""
    peak = max(item["goodput_per_s"] for item in points)
    past = [item["goodput_per_s"] / peak for item in points if item["load"] > 1]
    counts = [(int(k), v) for item in points for k, v in item["statuses"].items()]
    refused = sum(number for status, number in counts if status != 200)
    polite = sum(number for status, number in counts if status == 429)
    scorer = context["scorer"]
    return [
        series_result(
            f"goodput_past_saturation_over_peak_{scorer}",
            [min(past)],
            "ratio",
            goal and "at least 0.9",
            points=points,
            **context,
        ),
        series_result(
            f"refusals_that_are_429_{scorer}",
            [polite / refused] if refused else [],
            "share",
            goal and "1.0",
            refused=refused,
            **context,
        ),
    ]


def versions(maker: QuestionMaker, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Results of part 4."""
    questions = make_questions(maker, 8 * arguments.requests)
    bodies = [encoded(question) for question in questions]
    return requests_per_s(bodies, NUM_CALLERS, arguments.rounds, candidates=NUM_CANDIDATES)


def main() -> None:
    parser = options(
        __doc__, rounds=5, requests=(96, "of a round"), window=(40.0, "seconds of a load point")
    )
    parser.add_argument("--only", choices=["versions"], help="this part, in a file of its own")
    arguments = parser.parse_args()
    if gpu():
        raise SystemExit("Two engines share the machine here: CPU only.")
    if arguments.only:
        with tempfile.TemporaryDirectory() as folder:
            maker = QuestionMaker(Encoder.load(export_model(Path(folder))), seed=1)
        write_results("serve_small_requests_versions", versions(maker, arguments))
        return
    import ray

    from benchmarks._zero_cost_scorer import ZeroCostReplica
    from codepmp_ray.cluster.connect import connect
    from codepmp_ray.serve.launch import running_service

    results: list[dict[str, Any]] = []
    start_s = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        model = export_model(Path(folder))
        maker = QuestionMaker(Encoder.load(model), seed=1)
        run_workers_like_peers()
        with connect():
            with running_service(serving_recipe(**ENGINE, **ROOM), model) as service:
                caller = Caller(service)
                # The service learns how many characters its tokens have.
                caller.closed(make_questions(maker, 64), 8)
                found, capacity = throughput(model, maker, caller, arguments)
                results += found
                questions = make_questions(maker, 1000)
                points = caller.curve(questions, capacity, LOADS, arguments.window)
                results += results_of_curve(points, "goal", scorer="engine", **ENGINE, **ROOM)
            recipe = serving_recipe(engine="torch", max_model_len=512)
            with running_service(recipe, model, replica_class=ZeroCostReplica) as service:
                caller = Caller(service)
                found, capacity = own_cost(maker, caller, arguments)
                results += found
                points = caller.curve(questions, capacity, OWN_LOADS, arguments.window / 2)
                results += results_of_curve(points, None, scorer="zero_cost")
    ray.shutdown()
    results += versions(maker, arguments)
    common = {
        "candidates_of_a_request": NUM_CANDIDATES,
        "prompt_tokens": NUM_PROMPT_TOKENS,
        "response_tokens": [SHORTEST, LONGEST],
        "seconds_of_all": round(time.perf_counter() - start_s),
    }
    write_results("serve_small_requests", [result | common for result in results])


if __name__ == "__main__":
    main()
