"""How much of the engine's speed is left in the pipeline: tokens/s of both, runs alternated.

The pipeline is the real one (shards, Ray Data, engine actor, three hops per row, ledger), fed with
real snippets. Bare is `vllm.LLM.generate` on the very prompts that the pipeline sent, in one call.
Model, engine settings, threads and binding are the same, and every answer has a fixed length.
Loading and a first batch are not timed; filling and draining are.

    python -m benchmarks.synthesis_engine_efficiency [--runs 3] [--rows 96]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks._results import write_results
from codepmp_ray.config.engines import SamplingConfig
from codepmp_ray.config.recipe import Recipe, load_recipe
from codepmp_ray.records import SNIPPET
from codepmp_ray.runs import open_stage
from codepmp_ray.synthesis.engine import TextEngine
from codepmp_ray.synthesis.prompts import answer_prompt, describe_prompt

HOPS = ("describe", "chosen", "rejected")
LENGTHS = {"describe": 48, "chosen": 96, "rejected": 96}
ROWS_PER_SHARD = 16
WORK = pa.schema(
    [*SNIPPET, pa.field("prompts", pa.string()), *[pa.field(n, pa.float64()) for n in ("t0", "t1")]]
)


def fixed_length(hop: str) -> SamplingConfig:
    return SamplingConfig(temperature=0.7, max_tokens=LENGTHS[hop], min_tokens=LENGTHS[hop])


def make_recipe(run_dir: Path, num_rows: int) -> Recipe:
    settings = [f"corpus.max_snippets={num_rows}", f"corpus.rows_per_shard={ROWS_PER_SHARD}"]
    return load_recipe("jobs/recipes/laptop.yaml", [f"run_dir={run_dir}", *settings])


class ThreeHops:
    """The hops of one row without the gates: an answer of fixed length is always cut off."""

    async def __call__(self, row: dict[str, Any], engine: TextEngine) -> dict[str, Any]:
        start_s, prompts = time.time(), [describe_prompt(row["code"], row["language"])]
        description = await engine.generate(prompts[0], fixed_length("describe"))
        for hop in HOPS[1:]:
            # So that both sides' prompts differ, as they do in the demonstration recipe.
            words = description.text.split()
            text = " ".join(words if hop == "chosen" else words[: len(words) * 7 // 10])
            prompts.append(answer_prompt(text, row["language"]))
            await engine.generate(prompts[-1], fixed_length(hop))
        return {**row, "prompts": json.dumps(prompts), "t0": start_s, "t1": time.time()}

    def give_up(self, row: dict[str, Any], detail: str) -> dict[str, Any]:
        raise RuntimeError(detail)


def whole_table(rows: list[dict[str, Any]]) -> dict[str, pa.Table]:
    return {"rows": pa.Table.from_pylist(rows, WORK)}


def run_pipeline(recipe: Recipe, out_dir: Path) -> float:
    """Seconds from the first request to the last answer."""
    from codepmp_ray.cluster.connect import connect
    from codepmp_ray.cluster.shard_graph import PoolStage, ShardJob, run_shards
    from codepmp_ray.cluster.synthesis import read_shard_of_stage
    from codepmp_ray.ledger import ShardLedger
    from codepmp_ray.storage import open_store

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
    rows = ShardLedger(open_store(out_dir)).read("rows")
    return max(rows.column("t1").to_pylist()) - min(rows.column("t0").to_pylist())


def run_bare(recipe: Recipe, prompts: list[list[str]]) -> float:
    """Seconds of one `LLM.generate` over every prompt of every row."""
    from codepmp_ray.cluster.vllm_env import apply, cpu_engine_environment

    engine = recipe.engines.strong
    apply(cpu_engine_environment(engine.cpu_threads, engine.kv_cache_gb))
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

    inputs, params = [], []
    for row in prompts:
        for hop, text in zip(HOPS, row, strict=True):
            sampling = fixed_length(hop)
            inputs.append(chat(text))
            params.append(
                SamplingParams(
                    temperature=sampling.temperature,
                    max_tokens=sampling.max_tokens,
                    min_tokens=sampling.min_tokens,
                )
            )
    llm.generate(inputs[:8], params[:8], use_tqdm=False)
    start_s = time.monotonic()
    outputs = llm.generate(inputs, params, use_tqdm=False)
    elapsed_s = time.monotonic() - start_s
    assert [len(o.outputs[0].token_ids) for o in outputs] == [p.max_tokens for p in params]
    return elapsed_s


def child(kind: str, num_rows: int, run_dir: Path, out_dir: Path) -> float:
    """One timed run in processes of its own."""
    arguments = ["--child", kind, "--rows", str(num_rows), "--dirs", str(run_dir), str(out_dir)]
    command = [sys.executable, "-m", "benchmarks.synthesis_engine_efficiency", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.strip().splitlines()[-1].split()[-1])


def saved_prompts(out_dir: Path) -> list[list[str]]:
    from codepmp_ray.ledger import ShardLedger
    from codepmp_ray.storage import open_store

    column = ShardLedger(open_store(out_dir)).read("rows", ["prompts"]).column("prompts")
    return [json.loads(text) for text in column.to_pylist()]


def run_child(kind: str, num_rows: int, run_dir: Path, out_dir: Path) -> None:
    recipe = make_recipe(run_dir, num_rows)
    if kind == "pipeline":
        elapsed_s = run_pipeline(recipe, out_dir)
    else:
        elapsed_s = run_bare(recipe, saved_prompts(out_dir))
    print("elapsed", elapsed_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--dirs", type=Path, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        run_child(arguments.child, arguments.rows, *arguments.dirs)
        return
    num_tokens = arguments.rows * sum(LENGTHS.values())
    with tempfile.TemporaryDirectory() as scratch:
        run_dir = Path(scratch) / "run"
        make_corpus = [sys.executable, "-m", "jobs.corpus", f"run_dir={run_dir}"]
        sizes = [f"corpus.max_snippets={arguments.rows}", f"corpus.rows_per_shard={ROWS_PER_SHARD}"]
        subprocess.run([*make_corpus, *sizes], check=True)
        pairs = []
        for index in range(arguments.runs):
            out_dir = Path(scratch) / f"out-{index}"
            pipeline_s = child("pipeline", arguments.rows, run_dir, out_dir)
            bare_s = child("bare", arguments.rows, run_dir, out_dir)
            pairs.append((num_tokens / pipeline_s, num_tokens / bare_s))
            print(f"run {index}: {pairs[-1][0]:.0f} and {pairs[-1][1]:.0f} tokens/s", flush=True)
    ratios = [pipeline / bare for pipeline, bare in pairs]
    recipe = make_recipe(Path("unused"), arguments.rows)
    common = {
        "runs": arguments.runs,
        "engine": recipe.engines.strong.model_dump(mode="json"),
        "output_tokens": LENGTHS,
        "rows": arguments.rows,
    }
    series = {
        "pipeline_over_bare": (ratios, "ratio", "at least 0.95"),
        "pipeline_tokens_per_s": ([pair[0] for pair in pairs], "tokens/s", None),
        "bare_tokens_per_s": ([pair[1] for pair in pairs], "tokens/s", None),
    }
    write_results(
        "synthesis_engine_efficiency",
        [
            {
                "metric": metric,
                "value": round(statistics.median(values), 3),
                "unit": unit,
                "goal": goal,
                "spread": [round(min(values), 3), round(max(values), 3)],
                **common,
            }
            for metric, (values, unit, goal) in series.items()
        ],
    )


if __name__ == "__main__":
    main()
