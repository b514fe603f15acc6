"""Driver of tests/cluster/test_node_placement.py: prints where Ray ran what, as JSON."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray

from codepmp_ray.cluster.connect import connect
from codepmp_ray.cluster.preflight import NODE_TYPES_VARIABLE, require_engines
from codepmp_ray.cluster.shard_graph import PoolStage, ShardJob, run_shards
from codepmp_ray.config.engines import EngineConfig
from codepmp_ray.config.evaluation import ServingConfig
from codepmp_ray.config.recipe import load_recipe
from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.errors import CodePMPError
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.storage import open_store

LABEL = "codepmp-role"
SCHEMA = pa.schema([("row", pa.int64()), ("strong", pa.string()), ("weak", pa.string())])


def own_label() -> str:
    node_id = ray.get_runtime_context().get_node_id()
    (node,) = [node for node in ray.nodes() if node["NodeID"] == node_id]
    return node["Labels"].get(LABEL, "none")


class Stamp:
    """A row function that writes down where it runs."""

    def __init__(self, field: str) -> None:
        self._field, self._label = field, own_label()

    async def __call__(self, row: dict[str, Any], engine: object) -> dict[str, Any]:
        return {**row, self._field: self._label}

    def give_up(self, row: dict[str, Any], detail: str) -> dict[str, Any]:
        return row


def read_rows(shard_id: int) -> pa.Table:
    return pa.table({"row": [shard_id]})


def rows_table(rows: list[dict[str, Any]]) -> dict[str, pa.Table]:
    return {"rows": pa.Table.from_pylist(rows, schema=SCHEMA)}


def selector(role: str) -> dict[str, str]:
    return {LABEL: f"{role}-synthesis"}


def engine(role: str) -> EngineConfig:
    return EngineConfig(kind="fake", num_cpus=0.5, label_selector=selector(role))


def where_engines_run(folder: Path) -> dict[str, list[str]]:
    out_dir = str(folder / "rows")
    stages = tuple(
        PoolStage(role, engine(role), partial(Stamp, role)) for role in ("strong", "weak")
    )
    run_shards(ShardJob("placement", read_rows, SCHEMA, stages, rows_table, out_dir), 4)
    rows = ShardLedger(open_store(out_dir)).read("rows")
    return {role: sorted(set(rows.column(role).to_pylist())) for role in ("strong", "weak")}


def where_training_runs() -> str:
    """An actor placed as Ray Train places a worker: it hands the selector on as it is."""
    from codepmp_ray.cluster.workers import scaling_of

    config = TrainingConfig(
        num_workers=1, cpus_per_worker=0.5, use_gpu=False, label_selector=selector("weak")
    )
    scaling, _ = scaling_of("pretraining", config)
    (of_worker,) = scaling._label_selector_per_worker(1)
    return where(num_cpus=0.5, label_selector=of_worker)


def where_replicas_run() -> str:
    """An actor with the options of a replica, which Serve checks and hands on."""
    from ray import serve

    from codepmp_ray.serve.application import replica_options

    config = ServingConfig(num_cpus=0.1, label_selector={LABEL: "in(strong-synthesis, other)"})
    options = replica_options(config, 0)
    deployment = serve.deployment(name="Where", ray_actor_options=options)(Where)
    assert deployment.ray_actor_options["label_selector"] == config.label_selector
    return where(**options)


def where_owners_live() -> list[str]:
    """Nodes of many of the actors with which a job's service ends."""
    from codepmp_ray.serve.owner import make_owner

    owners = [make_owner() for _ in range(8)]
    asked = [
        owner.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id())
        for owner in owners
    ]
    return sorted(set(ray.get(asked)))


def where(**options: Any) -> str:
    actor = ray.remote(Where).options(**options).remote()
    label = ray.get(actor.label.remote())
    ray.kill(actor)
    return label


class Where:
    def label(self) -> str:
        return own_label()


def said_about(role: str) -> str:
    try:
        require_engines([(role, engine(role))])
    except CodePMPError as error:
        return str(error)
    return "fits"


def check(folder: Path) -> tuple[str, str]:
    """Output and error of jobs.check."""
    from codepmp_ray.command.cluster import check as body

    recipe = load_recipe(
        "jobs/recipes/laptop.yaml",
        [
            f"run_dir={folder}/run",
            *(f"engines.{role}.{key}" for role in ("strong", "weak") for key in ("kind=fake",)),
            "pretraining.num_workers=1",
            "finetuning.num_workers=1",
            f"pretraining.model_name_or_path={folder}/absent",
        ],
    )
    text, error = io.StringIO(), ""
    with contextlib.redirect_stdout(text):
        try:
            body(recipe)
        except CodePMPError as problem:
            error = str(problem)
    return text.getvalue(), error


def main(folder: Path) -> None:
    found: dict[str, Any] = {}
    with connect():
        found["engines"] = where_engines_run(folder)
        found["training"] = where_training_runs()
        found["serving"] = where_replicas_run()
        found["owners"] = where_owners_live()
        found["driver"] = ray.get_runtime_context().get_node_id()
        found["absent"] = said_about("absent")
        os.environ[NODE_TYPES_VARIABLE] = str(folder / "types.yaml")
        (folder / "types.yaml").write_text(
            f"absent-synthesis:\n  resources: {{CPU: 1}}\n  max_workers: 2\n"
            f"  labels: {{{LABEL}: absent-synthesis}}\n"
        )
        found["may_come"] = said_about("absent")
        found["check"] = check(folder)
        found["left"] = sorted(path.name for path in (folder / "run").iterdir())
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
