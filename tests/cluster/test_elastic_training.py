"""Training that goes on with fewer workers when a node is lost, and with more when one comes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from benchmarks._ray_nodes import started
from codepmp_ray.config.recipe import load_recipe
from codepmp_ray.records import PAIR, table_from_rows
from codepmp_ray.runs import Stage, open_stage
from codepmp_ray.training.metrics import is_evaluation, read_metrics
from tests.ray_nodes import BIN, RAY, RayNodes

ROOT = Path(__file__).resolve().parents[2]
JOB_TIMEOUT_S, SAVE_STEPS = 200, 20
_NODE_IDS = """
import json, ray
ray.init(logging_level="ERROR")
print(json.dumps([n["NodeID"] for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU")]))
"""


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[RayNodes]:
    made = RayNodes(tmp_path)
    made.start_head(num_cpus=0)
    try:
        yield made
    finally:
        made.stop()


class Job:
    """One pretraining without an end, as a client of the cluster."""

    def __init__(
        self, nodes: RayNodes, folder: Path, model: Path, rows: list[dict], **more
    ) -> None:
        folder.mkdir()
        pretraining = {
            "model_name_or_path": str(model),
            "batch_size": 5,
            "max_steps": 100_000,
            "num_train_epochs": 100_000,
            "schedule": "constant",
            "max_length": 256,
            "max_tokens_per_micro_batch": 512,
            "eval_fraction": 0.2,
            "bf16": False,
            "save_steps": SAVE_STEPS,
            "save_total_limit": 20,
            "cpus_per_worker": 1,
            **more,
        }
        file = folder / "recipe.yaml"
        settings = {"run_dir": str(folder / "run"), "pretraining": pretraining}
        file.write_text(yaml.safe_dump(settings))
        synthesis = open_stage(load_recipe(file), "synthesis")
        pairs = [{**dict.fromkeys(PAIR.names), **row} for row in rows]
        synthesis.ledger.commit(0, len(pairs), {"pairs": table_from_rows(pairs, PAIR)})
        synthesis.complete({})
        self.stage: Stage = open_stage(load_recipe(file), "pretraining")
        self.log = folder / "job.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "jobs.pretrain", "--config", str(file)],
                cwd=ROOT,
                env={**nodes.environment, "RAY_ADDRESS": nodes.address},
                stdout=log,
                stderr=log,
            )

    def steps(self) -> dict[int, dict]:
        """The rows of finished steps; one that is run again takes the place of the first."""
        rows = read_metrics(self.stage.store)
        return {row["step"]: row for row in rows if not is_evaluation(row)}

    def wait_for(self, num_workers: int, num_more: int) -> int:
        """The last step, when so many more were made by so many workers."""
        first, give_up_s = None, time.monotonic() + JOB_TIMEOUT_S
        while True:
            last = max(self.steps().values(), key=lambda row: row["step"], default=None)
            if last is not None and last["num_workers"] == num_workers:
                first = last["step"] if first is None else first
                if last["step"] >= first + num_more:
                    return last["step"]
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < give_up_s, self.log.read_text()
            time.sleep(0.2)

    def wait_for_a_checkpoint_out_of_turn(self) -> int:
        """Its step; nothing but a notice asks for one."""
        give_up_s = time.monotonic() + JOB_TIMEOUT_S
        while time.monotonic() < give_up_s:
            markers = [n for n in self.stage.store.list("checkpoints") if n.endswith(".json")]
            for step in (int(name[5:13]) for name in markers):
                if step % SAVE_STEPS:
                    return step
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.1)
        raise AssertionError(self.log.read_text())

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(100)


def announce_the_loss_of_a_node(nodes: RayNodes) -> None:
    """As a cloud's daemon does when it is told that a spot machine goes."""
    environment = {**nodes.environment, "RAY_ADDRESS": nodes.address}
    command = [str(BIN / "python"), "-c", _NODE_IDS]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    node_id = json.loads(found.stdout.splitlines()[-1])[0]
    subprocess.run(
        [
            *(*RAY, "drain-node", f"--address={nodes.address}", f"--node-id={node_id}"),
            *("--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot"),
            "--deadline-remaining-seconds=60",
        ],
        env=environment,
        check=True,
    )


@pytest.mark.rehearsal
@pytest.mark.timeout(600)
def test_workers_leave_and_come_and_the_losses_stay(
    nodes: RayNodes, tmp_path: Path, tiny_model_dir: Path, preference_rows: list[dict]
) -> None:
    """2 -> 1 -> 2 workers see the pairs of an undisturbed training, in its order.

    Sums in another order move fp32 losses by less than 1e-4, as for any other number of workers.
    When the loss of a node is announced, a checkpoint is written at once.
    """
    made = (nodes, tmp_path / "elastic", tiny_model_dir, preference_rows)
    second = [started(nodes.start_worker), started(nodes.start_worker)][1]
    elastic = Job(*made, num_workers=2, min_workers=1, elastic_interval_s=2)
    elastic.wait_for(num_workers=2, num_more=SAVE_STEPS + 5)
    second.kill()
    elastic.wait_for(num_workers=1, num_more=SAVE_STEPS + 5)
    nodes.start_worker()
    last = elastic.wait_for(num_workers=2, num_more=SAVE_STEPS + 5)
    announce_the_loss_of_a_node(nodes)
    assert elastic.wait_for_a_checkpoint_out_of_turn() >= last
    elastic.stop()

    alone = Job(nodes, tmp_path / "alone", *made[2:], num_workers=1)
    alone.wait_for(num_workers=1, num_more=last)
    alone.stop()
    found, expected = elastic.steps(), alone.steps()
    assert {row["num_workers"] for row in found.values()} == {1, 2}
    for step in range(1, last + 1):
        assert found[step]["num_tokens"] == expected[step]["num_tokens"], step
        assert found[step]["loss"] == pytest.approx(expected[step]["loss"], abs=1e-4), step
