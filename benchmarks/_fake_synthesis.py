"""A synthesis job with fake engines over a made-up corpus: for control-plane benchmarks only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from codepmp_ray.config.recipe import Recipe, parse_recipe
from codepmp_ray.records import REJECTED, SNIPPET, table_from_rows
from codepmp_ray.runs import open_stage


def fake_recipe(run_dir: Path, engine_args: dict[str, Any], **engine: Any) -> Recipe:
    """Strong and weak are fake engines in pools of their own."""
    common = {"kind": "fake", "engine_args": engine_args, "num_cpus": 0.5, **engine}
    return parse_recipe(
        {
            "run_dir": str(run_dir),
            "engines": {
                role: {**common, "model_name_or_path": f"fake-{role}"}
                for role in ("strong", "weak")
            },
        },
        "benchmark",
    )


def write_fake_corpus(recipe: Recipe, num_shards: int, rows_per_shard: int) -> None:
    """The corpus stage of `recipe`, complete; row i of shard s is called "s-i"."""
    stage = open_stage(recipe, "corpus")
    stage.start(num_shards)
    rejected = table_from_rows([], REJECTED)
    for shard_id in range(num_shards):
        rows = [
            {
                "snippet_id": f"{shard_id}-{i}",
                "code": f"def f(x):\n    return x + {shard_id}.{i}",
                "language": "python",
            }
            for i in range(rows_per_shard)
        ]
        tables = {"snippets": table_from_rows(rows, SNIPPET), "rejected": rejected}
        stage.ledger.commit(shard_id, rows_per_shard, tables)
    stage.complete({"num_snippets": num_shards * rows_per_shard})
