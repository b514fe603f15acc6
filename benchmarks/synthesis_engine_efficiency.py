"""How much of the engine's speed is left in the pipeline: tokens/s of both, runs alternated.

The pipeline is the real one (shards, Ray Data, engine actor, three hops per row, ledger), fed with
real snippets. Bare is `vllm.LLM.generate` on the very prompts that the pipeline sent, in one call.
Model, engine settings, threads and binding are the same, and so is the length of every answer,
which is fixed in advance and differs from row to row.

On CPU twice: with a core left for everything that is not the engine, as vLLM's CPU build itself
leaves one and as a GPU leaves them all; and with a thread of the engine on every core. The second
tells what Ray's own processes take: they wake up all the time, and whichever thread is put off, the
others wait for it at the end of every operator.

Steady state is the middle half of the tokens: the slope of finished tokens over time. Before it the
pipeline fills, after it rows wait for nothing but their own next hop; a job of hours does neither.
The whole run, both included, is reported beside it. Loading is in neither.

    python -m benchmarks.synthesis_engine_efficiency [--runs 3] [--rows 96]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks._results import gpu, options, series_result, write_results
from codepmp_ray.config.engines import SamplingConfig
from codepmp_ray.config.recipe import Recipe, load_recipe
from codepmp_ray.records import SNIPPET
from codepmp_ray.runs import open_stage
from codepmp_ray.synthesis.engine import TextEngine
from codepmp_ray.synthesis.prompts import answer_prompt, describe_prompt

HOPS = ("describe", "chosen", "rejected")
MEAN_LENGTHS = {"describe": 40, "chosen": 64, "rejected": 64}
LENGTH_SPREAD = 16  # so that rows do not march in step
ROWS_PER_SHARD = 16
WORK = pa.schema([*SNIPPET, pa.field("hops", pa.string()), pa.field("started_s", pa.float64())])
Finished = list[tuple[float, float]]  # (seconds, tokens) of every answer


def fixed_length(hop: str, text: str) -> SamplingConfig:
    """The length follows from the row's text, so that both sides agree on it."""
    moved = int.from_bytes(hashlib.sha256(f"{hop}|{text}".encode()).digest()[:4], "big")
    length = MEAN_LENGTHS[hop] + moved % (2 * LENGTH_SPREAD + 1) - LENGTH_SPREAD
    return SamplingConfig(temperature=0.7, max_tokens=length, min_tokens=length)


def make_recipe(run_dir: Path, num_rows: int, threads: int) -> Recipe:
    settings = [f"corpus.max_snippets={num_rows}", f"corpus.rows_per_shard={ROWS_PER_SHARD}"]
    engine = f"engines.strong.cpu_threads={threads}"
    return load_recipe("jobs/recipes/laptop.yaml", [f"run_dir={run_dir}", *settings, engine])


class ThreeHops:
    """The hops of one row without the gates: an answer of fixed length is always cut off."""

    async def __call__(self, row: dict[str, Any], engine: TextEngine) -> dict[str, Any]:
        started_s, hops, words = time.time(), [], list[str]()
        for hop in HOPS:
            prompt = describe_prompt(row["code"], row["language"])
            if hop != "describe":
                # So that both sides' prompts differ, as they do in the demonstration recipe.
                text = " ".join(words if hop == "chosen" else words[: len(words) * 7 // 10])
                prompt = answer_prompt(text, row["language"])
            sampling = fixed_length(hop, row["code"])
            answer = await engine.generate(prompt, sampling)
            assert answer.num_tokens == sampling.max_tokens
            words = answer.text.split() if hop == "describe" else words
            hops.append((prompt, sampling.max_tokens, time.time()))
        return {**row, "hops": json.dumps(hops), "started_s": started_s}

    def give_up(self, row: dict[str, Any], detail: str) -> dict[str, Any]:
        raise RuntimeError(detail)


def whole_table(rows: list[dict[str, Any]]) -> dict[str, pa.Table]:
    return {"rows": pa.Table.from_pylist(rows, WORK)}


def run_pipeline(recipe: Recipe, out_dir: Path) -> None:
    """The job, whose rows keep their prompts, lengths and times."""
    from codepmp_ray.cluster.connect import connect
    from codepmp_ray.cluster.shard_graph import PoolStage, ShardJob, run_shards
    from codepmp_ray.cluster.synthesis import read_shard_of_stage

    corpus = open_stage(recipe, "corpus")
    job = ShardJob(
        label="synthesis",
        read_shard=partial(read_shard_of_stage, str(corpus.path), "snippets"),
        schema=WORK,
        stages=(PoolStage("strong", recipe.engines.strong, ThreeHops),),
        split_rows=whole_table,
        out_dir=str(out_dir),
    )
    num_shards = len(corpus.ledger.committed_ids())
    with connect():
        run_shards(job, num_shards)


def run_bare(recipe: Recipe, requests: list[tuple[str, int]]) -> tuple[float, Finished]:
    """One `LLM.generate` over (prompt, length): when it began, when answers were finished."""
    from codepmp_ray.cluster.vllm_env import apply, cpu_engine_environment

    engine = recipe.engines.strong
    apply(cpu_engine_environment(engine.cpu_threads, engine.kv_cache_gb))
    from tqdm import tqdm
    from vllm import LLM, SamplingParams

    from codepmp_ray.modeling.sources import resolve_model

    llm = LLM(
        model=resolve_model(engine.model_name_or_path),
        dtype=engine.dtype,
        max_model_len=engine.max_model_len,
        **engine.engine_args,
    )
    tokenizer = llm.get_tokenizer()

    def chat(text: str) -> Any:
        messages = [{"role": "user", "content": text}]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return {"prompt_token_ids": tokenizer(ids, add_special_tokens=False)["input_ids"]}

    inputs = [chat(text) for text, _ in requests]
    params = [SamplingParams(temperature=0.7, max_tokens=n, min_tokens=n) for _, n in requests]
    finished_s: list[float] = []

    class Clock(tqdm):
        """vLLM tells its progress bar of every finished answer (another bar of every request)."""

        def update(self, n: float | None = 1) -> bool | None:
            if str(self.desc).startswith("Processed"):
                finished_s.append(time.time())
            return super().update(n)

    start_s = time.time()
    outputs = llm.generate(inputs, params, use_tqdm=Clock)
    num_tokens = [len(output.outputs[0].token_ids) for output in outputs]
    assert num_tokens == [n for _, n in requests] and len(finished_s) == len(requests)
    # Which answer a tick belongs to is not told; all of them are of about one length.
    mean = sum(num_tokens) / len(num_tokens)
    return start_s, [(tick, mean) for tick in finished_s]


def child(kind: str, num_rows: int, threads: int, run_dir: Path, out_dir: Path) -> dict[str, float]:
    """One timed run in processes of its own: tokens/s in steady state and of the whole."""
    arguments = ["--child", kind, str(threads), "--rows", str(num_rows)]
    arguments += ["--dirs", str(run_dir), str(out_dir)]
    command = [sys.executable, "-m", "benchmarks.synthesis_engine_efficiency", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def run_child(kind: str, threads: int, num_rows: int, run_dir: Path, out_dir: Path) -> None:
    from codepmp_ray.ledger import ShardLedger
    from codepmp_ray.storage import open_store

    recipe = make_recipe(run_dir, num_rows, threads)
    if kind == "pipeline":
        run_pipeline(recipe, out_dir)
    rows = ShardLedger(open_store(out_dir)).read("rows", ["hops", "started_s"])
    hops = [hop for text in rows.column("hops").to_pylist() for hop in json.loads(text)]
    if kind == "pipeline":
        start_s = min(rows.column("started_s").to_pylist())
        finished = [(end_s, num_tokens) for _, num_tokens, end_s in hops]
    else:
        start_s, finished = run_bare(recipe, [(prompt, num) for prompt, num, _ in hops])
    print(json.dumps(tokens_per_s(start_s, finished)))


def tokens_per_s(start_s: float, finished: Finished) -> dict[str, float]:
    """Of the middle half of the tokens, by least squares, and of the whole run."""
    times, tokens = np.array(sorted(finished)).T
    done = np.cumsum(tokens)
    middle = (done > 0.25 * done[-1]) & (done <= 0.75 * done[-1])
    slope = float(np.polyfit(times[middle] - start_s, done[middle], 1)[0])
    return {"steady": slope, "whole": float(done[-1] / (times[-1] - start_s))}


def ratios(runs: list[dict[str, dict[str, float]]], part: str) -> list[float]:
    return [run["pipeline"][part] / run["bare"][part] for run in runs]


def measure(where: str, threads: int, arguments: Any, scratch: Path) -> list[dict[str, Any]]:
    """Results of one number of engine threads; the order is given, as bare needs the prompts."""
    run_dir, runs = scratch / "run", []
    for index in range(arguments.runs):
        out_dir = scratch / f"out-{where}-{index}"
        sizes = (arguments.rows, threads)
        run = {kind: child(kind, *sizes, run_dir, out_dir) for kind in ("pipeline", "bare")}
        runs.append(run)
        print(f"{where}, run {index}: {json.dumps(run)}", flush=True)
    recipe = make_recipe(Path("unused"), arguments.rows, threads)
    common = {
        "engine": recipe.engines.strong.model_dump(mode="json"),
        "mean_output_tokens": MEAN_LENGTHS,
        "rows": arguments.rows,
        "threads": threads,
        "spare_cores": len(os.sched_getaffinity(0)) - threads,
    }
    goal = "at least 0.95"
    series = {
        "pipeline_over_bare": (ratios(runs, "steady"), "ratio", goal),
        "pipeline_over_bare_whole_run": (ratios(runs, "whole"), "ratio", None),
        "pipeline_tokens_per_s": ([run["pipeline"]["steady"] for run in runs], "tokens/s", None),
        "bare_tokens_per_s": ([run["bare"]["steady"] for run in runs], "tokens/s", None),
    }
    return [
        series_result(f"{metric}_{where}", values, unit, goal, **common)
        for metric, (values, unit, goal) in series.items()
    ]


def main() -> None:
    parser = options(__doc__, runs=3, rows=96)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--dirs", type=Path, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        kind, threads = arguments.child
        run_child(kind, int(threads), arguments.rows, *arguments.dirs)
        return
    num_cores = len(os.sched_getaffinity(0))
    settings = {"spare_core": num_cores - 1, "all_cores": num_cores}
    if gpu():
        settings = {"gpu": num_cores}
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        make_corpus = [sys.executable, "-m", "jobs.corpus", f"run_dir={scratch / 'run'}"]
        sizes = [f"corpus.max_snippets={arguments.rows}", f"corpus.rows_per_shard={ROWS_PER_SHARD}"]
        subprocess.run([*make_corpus, *sizes], check=True)
        for where, threads in settings.items():
            results += measure(where, threads, arguments, scratch)
    write_results("synthesis_engine_efficiency", results)


if __name__ == "__main__":
    main()
