"""One prompt of 200 tokens with 256 candidates of 75 to 225: candidates a second, four ways.

- `http`: POST /v1/bon of the running service (Ray Serve, key, JSON, tokenising, ranking), as seen
  by the caller;
- `offline`: vLLM's `LLM.encode` with the same engine settings, prefix caching included, on exactly
  the ids that the service makes;
- `padded`: transformers on these ids in padded batches, in the order given; their size is the best
  of three that are tried first;
- `serve_rm`: what OpenRLHF's server does, over HTTP, on texts that give these ids.

All in fp32 with a thread on every core. Each round has a new prompt and new candidates, so that no
cache knows them, and begins with another way; the last two work in the first rounds only. Only one
works at a time, all at the same priority; what all processes take while none works is reported.
Cached prompt tokens, in the answer and in /metrics, are divided by what sharing should give. On a
machine without a GPU.

    python -m benchmarks.serve_bon_256 [--rounds 6] [--slow-rounds 2] [--candidates 256]
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from benchmarks._cached_tokens import cached_prompt_tokens
from benchmarks._results import gpu, options, series_result, write_results
from benchmarks._scoring_peers import offline_engine, padded_batches, peer, serve_rm
from benchmarks._serving import (
    Question,
    QuestionMaker,
    cpu_seconds,
    export_model,
    open_client,
    run_workers_like_peers,
    scraped,
    serving_recipe,
)
from codepmp_ray.preference.tokenization import Encoder

NUM_PROMPT_TOKENS = 200
SHORTEST, LONGEST = 75, 225
BATCH_SIZES = (4, 16, 64)
SETTINGS = {"engine": "vllm", "dtype": "float32", "max_model_len": 512, "kv_cache_gb": 2}
_ENGINE_SPINS_S = 2.0  # vLLM's processes go on looking for work for a second after their last
CACHED = 'codepmp_tokens_total{kind="cached_prompt"}'
SLOW = ("padded", "serve_rm")  # several times as long as the others
Way = Callable[[Question], tuple[float, list[float]]]


def make_question(maker: QuestionMaker, num_candidates: int) -> Question:
    lengths = maker.lengths(num_candidates, SHORTEST, LONGEST)
    return maker.make(NUM_PROMPT_TOKENS, lengths)


def best_batch_size(model: Path, question: Question) -> int:
    """The fastest of BATCH_SIZES on the first candidates; their models are loaded one by one."""
    times = {}
    for size in BATCH_SIZES:
        with peer(padded_batches, model, SETTINGS["dtype"], size) as run:
            rows = question.rows[: max(BATCH_SIZES)]
            run(rows[:2])
            times[size] = run(rows)[0]
    print(f"padded batches of size: seconds {times}", flush=True)
    return min(times, key=lambda size: times[size])


class Http:
    """The service as a caller sees it; sums up the cached tokens that it tells."""

    def __init__(self, client: httpx.Client) -> None:
        self._client, self.num_cached = client, 0

    def __call__(self, question: Question) -> tuple[float, list[float]]:
        start_s = time.perf_counter()
        answer = self._client.post("/v1/bon", json=question.body).raise_for_status().json()
        elapsed_s = time.perf_counter() - start_s
        self.num_cached += answer["usage"]["cached_prompt_tokens"]
        return elapsed_s, [item["score"] for item in answer["data"]]


def serve_rm_way(url: str, tokenizer: Any) -> Way:
    client = httpx.Client(timeout=3600, trust_env=False)

    def score(question: Question) -> tuple[float, list[float]]:
        texts = [tokenizer.decode(row, clean_up_tokenization_spaces=False) for row in question.rows]
        assert tokenizer(texts, add_special_tokens=False)["input_ids"] == question.rows
        start_s = time.perf_counter()
        answer = client.post(url, json={"query": texts}).raise_for_status().json()
        return time.perf_counter() - start_s, answer["rewards"]

    return score


def measure(
    ways: dict[str, Way], questions: list[Question], num_slow_rounds: int
) -> dict[str, Any]:
    """Seconds of each way in each round, cores in use meanwhile, and the largest disagreement.

    The slow ways work in the first `num_slow_rounds`.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    cores: dict[str, list[float]] = {name: [] for name in ways}
    largest = 0.0
    for number, question in enumerate(questions):
        names = [name for name in ways if name not in SLOW or number < num_slow_rounds]
        scores = {}
        for name in names[number % len(names) :] + names[: number % len(names)]:
            time.sleep(_ENGINE_SPINS_S)
            start_s, cpu_s = time.perf_counter(), cpu_seconds()
            took_s, scores[name] = ways[name](question)
            cores[name].append((cpu_seconds() - cpu_s) / (time.perf_counter() - start_s))
            seconds[name].append(took_s)
        for found in scores.values():
            gaps = [abs(a - b) for a, b in zip(found, scores["offline"], strict=True)]
            largest = max(largest, *gaps)
        shown = {name: round(seconds[name][-1], 2) for name in names}
        print(f"round {number + 1} of {len(questions)}: seconds {shown}", flush=True)
    return {"seconds": seconds, "cores": cores, "largest": largest}


def idle_cores(client: httpx.Client, wait_s: float = 5.0) -> float:
    """Cores that all processes together take when nobody asks anything."""
    client.get("/health")
    cpu_s = cpu_seconds()
    time.sleep(wait_s)
    return (cpu_seconds() - cpu_s) / wait_s


def results_of(
    found: dict[str, Any], num_candidates: int, context: dict[str, Any]
) -> list[dict[str, Any]]:
    seconds = found["seconds"]
    goals = {"offline": "at least 0.95", "padded": "at least 1.7 on CPU", "serve_rm": None}
    ratios = []
    for name, goal in goals.items():
        ours = seconds["http"][: len(seconds[name])]  # the slow ways have fewer rounds
        by_round = [other / http for other, http in zip(seconds[name], ours, strict=True)]
        shown = [round(ratio, 3) for ratio in by_round]
        ratios.append(
            series_result(f"http_over_{name}", by_round, "ratio", goal, by_round=shown, **context)
        )
    rates = [
        series_result(
            f"{name}_candidates_per_s",
            [num_candidates / taken for taken in times],
            "candidates/s",
            cores_in_use=round(statistics.median(found["cores"][name]), 2),
            **context,
        )
        for name, times in seconds.items()
    ]
    return ratios + rates


def main() -> None:
    slow_rounds = (2, "of the slow ways among them")
    parser = options(__doc__, rounds=6, slow_rounds=slow_rounds, candidates=256)
    arguments = parser.parse_args()
    if not 1 <= arguments.slow_rounds <= arguments.rounds:
        parser.error(f"--slow-rounds={arguments.slow_rounds} has to be 1 to {arguments.rounds}")
    if gpu():
        raise SystemExit("Four copies of the model share the machine here: CPU only.")
    from codepmp_ray.cluster.connect import connect
    from codepmp_ray.cluster.vllm_scorer import block_size
    from codepmp_ray.serve.launch import running_service

    run_workers_like_peers()
    recipe = serving_recipe(**SETTINGS)
    tokens_of_block = block_size(recipe.serving.block_size, on_cpu=True)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        model = export_model(Path(folder))
        encoder = Encoder.load(model)
        maker = QuestionMaker(encoder, seed=0)
        warm_up = make_question(maker, min(8, arguments.candidates))
        questions = [make_question(maker, arguments.candidates) for _ in range(arguments.rounds)]
        batch_size = best_batch_size(model, make_question(maker, arguments.candidates))

        serving = recipe.serving.model_dump(mode="json")
        offline = stack.enter_context(peer(offline_engine, model, serving))
        padded = stack.enter_context(peer(padded_batches, model, SETTINGS["dtype"], batch_size))
        openrlhf = stack.enter_context(peer(serve_rm, model, SETTINGS["dtype"]))
        stack.enter_context(connect())
        service = stack.enter_context(running_service(recipe, model))
        client = stack.enter_context(open_client(service.url, service.api_key))
        http = Http(client)
        ways: dict[str, Way] = {
            "http": http,
            "offline": lambda question: offline(question.rows),
            "padded": lambda question: padded(question.rows),
            "serve_rm": serve_rm_way(openrlhf.greeting, encoder.tokenizer),
        }
        for way in ways.values():
            way(warm_up)
        http.num_cached, cached_before = 0, scraped(client, CACHED)
        idle = idle_cores(client)
        found = measure(ways, questions, arguments.slow_rounds)
        by_metrics = scraped(client, CACHED) - cached_before
        expected = sum(
            cached_prompt_tokens(question.prompt_ids, question.response_ids, tokens_of_block)
            for question in questions
        )
    context = {
        "candidates": arguments.candidates,
        "padded_batch_size": batch_size,
        "idle_cores": round(idle, 3),
        "block_size": tokens_of_block,
        **SETTINGS,
    }
    results = results_of(found, arguments.candidates, context)
    for where, num_cached in {"answers": http.num_cached, "metrics": by_metrics}.items():
        results.append(
            series_result(
                f"cached_prompt_tokens_in_{where}_over_sharing",
                [num_cached / expected],
                "ratio",
                "1.0",
                cached=num_cached,
                expected=expected,
            )
        )
    results.append(
        series_result(
            "largest_difference_of_scores", [found["largest"]], "reward", None, digits=7, **context
        )
    )
    write_results("serve_bon_256", results)


if __name__ == "__main__":
    main()
