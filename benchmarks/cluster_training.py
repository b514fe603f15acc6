"""Training on two hosts, of which one loses its power, and the same training left alone.

A host is a worker node that holds one of the two training workers. One of them is killed (SIGKILL
to its raylet and everything below) between two checkpoints, and started again as a supervisor
would. Counted are the steps that had to be run again, and the weights that differ from those of an
undisturbed run with as many workers.

    python -m benchmarks.cluster_training [--steps 60] [--save-steps 10]
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from benchmarks._namespaces import run_in_own_namespaces
from benchmarks._ray_nodes import HEAD_ADDRESS, RayNode, start_head, start_worker, started, stop_all
from benchmarks._results import conclude, one_result, options
from codepmp_ray.config.recipe import load_recipe
from codepmp_ray.config.study_materials import ModelConfig
from codepmp_ray.records import PAIR, table_from_rows
from codepmp_ray.runs import Stage, open_stage
from codepmp_ray.studies.trend_model import random_model
from codepmp_ray.training.metrics import is_evaluation, read_metrics

HOSTS, LABEL = {"b": "127.0.0.2", "c": "127.0.0.3"}, {"codepmp-role": "trainer"}
JOB_TIMEOUT_S = 240
NUM_PAIRS = 64
MODEL = ModelConfig(
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
)


def make_recipe(folder: Path, model: Path, name: str, num_steps: int, save_steps: int) -> Path:
    """A recipe file whose synthesis stage is there."""
    file = folder / f"{name}.yaml"
    pretraining = {
        "model_name_or_path": str(model),
        "batch_size": 4,
        "max_steps": num_steps,
        "num_train_epochs": 100,
        "save_steps": save_steps,
        "max_length": 256,
        "eval_fraction": 0.1,
        "bf16": False,
        "num_workers": len(HOSTS),
        "label_selector": LABEL,
    }
    file.write_text(yaml.safe_dump({"run_dir": str(folder / name), "pretraining": pretraining}))
    stage = open_stage(load_recipe(file), "synthesis")
    rows = [{**dict.fromkeys(PAIR.names), **pair(number)} for number in range(NUM_PAIRS)]
    stage.ledger.commit(0, len(rows), {"pairs": table_from_rows(rows, PAIR)})
    stage.complete({})
    return file


def pair(number: int) -> dict[str, str]:
    return {
        "pair_id": f"pair-{number}",
        "source_id": f"source-{number}",
        "prompt": f"Add {number} to the input." + " Please." * (number % 5),
        "chosen": f"def f(x):\n    return x + {number}" + "\n" * (number % 3),
        "rejected": "def f(x):\n    pass" + "  # no" * (number % 7),
    }


def start_host(folder: Path, name: str, number: int = 1) -> RayNode:
    """One training worker fits."""
    return start_worker(f"{name}{number}", folder, address=HOSTS[name], labels=LABEL)


def start_job(file: Path) -> subprocess.Popen[bytes]:
    with open(file.with_suffix(".log"), "wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "jobs.pretrain", "--config", str(file)],
            env={**os.environ, "RAY_ADDRESS": HEAD_ADDRESS},
            stdout=log,
            stderr=log,
        )


def wait_for(job: subprocess.Popen[bytes], file: Path, is_so: Callable[[], bool]) -> None:
    """Raises RuntimeError when the job ends or too much time passes before it is so."""
    give_up_s = time.monotonic() + JOB_TIMEOUT_S
    while not is_so():
        if job.poll() is not None or time.monotonic() > give_up_s:
            raise RuntimeError(
                f"the job of {file} got stuck: {file.with_suffix('.log').read_text()}"
            )
        time.sleep(0.02)


def steps(stage: Stage) -> dict[int, dict[str, Any]]:
    """What is logged of each step; a step that is run again takes another time."""
    return {row["step"]: row for row in read_metrics(stage.store) if not is_evaluation(row)}


def checkpoints(stage: Stage) -> list[int]:
    names = stage.store.list("checkpoints")
    return sorted(int(name[5:13]) for name in names if name.endswith(".json"))


def weights(stage: Stage) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(Path(stage.uri) / "model" / "model.safetensors")


def measure(num_steps: int, save_steps: int) -> list[dict[str, Any]]:
    folder = Path(tempfile.mkdtemp(prefix="ctr", dir="/tmp"))  # sockets lie below it
    model = random_model(MODEL, folder / "models")
    names = ("alone", "killed")
    files = [make_recipe(folder, model, name, num_steps, save_steps) for name in names]
    alone, killed = (open_stage(load_recipe(file), "pretraining") for file in files)
    head = start_head(folder)
    hosts = {name: started(partial(start_host, folder, name)) for name in HOSTS}
    try:
        job = start_job(files[0])
        wait_for(job, files[0], lambda: alone.is_complete)
        job.wait(60)

        job = start_job(files[1])
        middle = num_steps // 2 + save_steps // 2
        wait_for(job, files[1], lambda: max(steps(killed), default=0) >= middle)
        hosts["c"].kill()
        killed_s = time.monotonic()
        time.sleep(1.0)  # what the other worker was about to log
        before, newest = steps(killed), max(checkpoints(killed), default=0)
        hosts["c"] = start_host(folder, "c", 2)
        wait_for(job, files[1], lambda: max(steps(killed)) > max(before))
        back_s = time.monotonic() - killed_s
        wait_for(job, files[1], lambda: killed.is_complete)
        job.wait(60)
    finally:
        stop_all([head, *hosts.values()])
    after = steps(killed)
    num_again = sum(after[step] != row for step, row in before.items())
    ours, theirs = weights(killed), weights(alone)
    assert ours.keys() == theirs.keys()
    num_different = sum(not ours[name].equal(theirs[name]) for name in theirs)
    shutil.rmtree(folder, ignore_errors=True)
    common = {"num_workers": len(HOSTS)}
    return [
        one_result(
            "steps_run_again_after_the_loss_of_a_host",
            num_again,
            "steps",
            f"at most the {max(before) - newest} since the last checkpoint",
            met=0 < num_again <= max(before) - newest,
            **common,
            save_steps=save_steps,
            killed_at_step=max(before),
            newest_checkpoint=newest,
        ),
        one_result(
            "weights_that_differ_from_an_undisturbed_run",
            num_different,
            f"of {len(theirs)} tensors",
            0,
            met=num_different == 0,
            **common,
        ),
        one_result("from_the_kill_to_the_first_new_step", round(back_s, 1), "s", **common),
    ]


def main() -> None:
    arguments = options(__doc__, steps=60, save_steps=10).parse_args()
    run_in_own_namespaces("benchmarks.cluster_training")
    conclude("cluster_training", measure(arguments.steps, arguments.save_steps))


if __name__ == "__main__":
    main()
