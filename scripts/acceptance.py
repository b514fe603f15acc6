"""The README's three uses on an autoscaling cluster with a token, each with a kill in its middle.

    make acceptance

1. Pairs: workers of synthesis come and go; one loses its power while pairs are made.
2. Training: the whole pipeline is submitted by one line, and its driver is killed while the model
   trains; the same line goes on to the report.
3. Scoring: a submitted service names the best of 256 over HTTP while one of its replicas is killed.

Commands are sent from another folder, as the README has them. Nodes are processes in namespaces of
their own (Linux; root, or users who may make them); engines of synthesis are fake and the model has
two layers: the rest is real. One line a step says what was seen; the end is 1 where one is not met.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks._namespaces import run_in_own_namespaces

ROOT = Path(__file__).resolve().parents[1]
TYPES = {"cpu": 1, "strong-synthesis": 2, "weak-synthesis": 1, "trainer": 1, "server": 2}
NUM_CANDIDATES, PORT, IDLE_S, PATIENCE_S = 256, 9000, 15.0, 900.0
_FAKE = "{kind: fake, model_name_or_path: fake-%s, num_cpus: 1, max_rows_in_flight: 4, " + (
    "max_actors: %d, engine_args: {latency_s: 1.0}, label_selector: {codepmp-role: %s-synthesis}}"
)


def settings(folder: Path, model: Path) -> list[str]:
    """What the recipe `laptop` needs to be small, and to be sent to labelled nodes."""
    training = {"num_workers": 1, "batch_size": 8, "max_length": 512, "eval_fraction": 0.0}
    training |= {"max_tokens_per_micro_batch": 1024, "save_steps": 10}
    stages = ("pretraining", "finetuning")
    return [
        *(ROOT / "deploy/placement.args").read_text().splitlines(),
        "evaluation.grader.label_selector.codepmp-role=cpu",
        f"run_dir={folder}/run",
        f"engines.strong={_FAKE % ('strong', 2, 'strong')}",
        f"engines.weak={_FAKE % ('weak', 1, 'weak')}",
        f"candidates.engine={_FAKE % ('any', 1, 'weak')}",
        "corpus.max_files=60",
        "corpus.max_snippets=96",
        "corpus.rows_per_shard=4",
        f"pretraining.model_name_or_path={model}",
        *(f"{stage}.{key}={value}" for stage in stages for key, value in training.items()),
        "pretraining.num_train_epochs=20",
        "finetuning.max_steps=2",
        "candidates.num_eval_samples=2",
        "serving.engine=torch",
        "serving.num_replicas=2",
        "serving.num_cpus=0.5",
        # The positions of the model; prompts may be longer in its own tokens.
        "serving.max_model_len=512",
        "serving.truncate=left",
        f"serving.port={PORT}",
        "evaluation.num_bootstrap=200",
    ]


class Walk:
    """What was seen, a line a step."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.start_s, self.num_unmet = folder, time.monotonic(), 0
        self.model = folder / "model"
        self.settings = settings(folder, self.model)

    def step(self, name: str, met: bool, saw: object) -> bool:
        self.num_unmet += not met
        state = "ok     " if met else "NOT MET"
        print(f"{time.monotonic() - self.start_s:6.1f} s  {state}  {name}: {saw}", flush=True)
        return met

    def until(self, is_so: Callable[[], Any], what: str) -> Any:
        """What `is_so` gives once it is true. Raises TimeoutError."""
        give_up_s = time.monotonic() + PATIENCE_S
        while not (found := is_so()):
            if time.monotonic() > give_up_s:
                raise TimeoutError(f"{what}: not so after {PATIENCE_S:g} s")
            time.sleep(0.5)
        return found

    def submitted(self, *words: str) -> subprocess.Popen[bytes]:
        """`codepmp cluster submit`, from another folder; what it prints goes to a log."""
        elsewhere = self.folder / "elsewhere"
        elsewhere.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "codepmp_ray.command", "cluster", "submit", *words]
        with open(self.folder / "submit.log", "ab") as log:
            environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
            return subprocess.Popen(
                command, cwd=elsewhere, env=environment, stdout=log, stderr=subprocess.STDOUT
            )

    def last_line(self) -> str:
        lines = (self.folder / "submit.log").read_text(errors="replace").splitlines()
        return lines[-1] if lines else "nothing was printed"


def kill_node(label: str) -> str:
    """SIGKILL to one node with this label and to all that runs on it, as when the power goes."""
    import psutil

    from benchmarks._ray_nodes import RayNode

    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "start" in words and f"--labels=codepmp-role={label}" in words:
            RayNode(label, process, Path(os.devnull)).kill()  # type: ignore[arg-type]
            return next(word for word in words if word.startswith("--node-ip-address="))[18:]
    raise TimeoutError(f"no node with the label {label}")


def kill_driver(job: str) -> None:
    """SIGKILL to the process of a submitted job."""
    import psutil

    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if f"jobs.{job}" in words and "-m" in words:
            process.kill()


def walk_pairs_and_training(walk: Walk, watch: Any) -> None:
    """Uses 1 and 2: they are one line, `run`."""
    from benchmarks._fake_synthesis import row_ids
    from codepmp_ray.config.recipe import load_recipe
    from codepmp_ray.runs import STAGE_JOBS, open_stage
    from codepmp_ray.training.checkpoint_folders import whole_steps

    recipe = load_recipe("laptop", walk.settings)
    synthesis, training = (open_stage(recipe, name) for name in ("synthesis", "pretraining"))
    before = watch.now().total()
    code = walk.submitted("check", "--config", "laptop", *walk.settings).wait(PATIENCE_S)
    log = (walk.folder / "submit.log").read_text()
    told = next((line for line in log.splitlines() if line.endswith("nothing failed.")), log[-500:])
    if not walk.step("cluster submit check", code == 0 and before == 0, told):
        return
    line = ("run", "--config", "laptop", *walk.settings)
    job = walk.submitted(*line)
    walk.until(lambda: len(synthesis.ledger.committed_ids()) >= 3, "three shards of pairs")
    here = watch.now()
    walk.step("workers of synthesis have come", here["strong-synthesis"] >= 1, dict(here))
    address = kill_node("strong-synthesis")
    walk.until(lambda: synthesis.is_complete or job.poll() is not None, "all pairs")
    asked = open_stage(recipe, "corpus").ledger.read("snippets", ["snippet_id"])
    counts, wanted = Counter(row_ids(synthesis)), {*asked.column("snippet_id").to_pylist()}
    num_wrong = len(wanted - counts.keys()) + counts.total() - len(counts)
    pairs = synthesis.ledger.totals().num_rows["pairs"]
    saw = f"{pairs} pairs of {len(wanted)} snippets, {num_wrong} rows lost or twice"
    walk.step(f"pairs, with the node {address} killed", not num_wrong and pairs > 0, saw)
    steps = walk.until(lambda: whole_steps(training.store), "a checkpoint of pretraining")
    kill_driver("pipeline")
    code = job.wait(PATIENCE_S)
    is_half = code != 0 and not training.is_complete
    walk.step(
        "the driver is killed in pretraining", is_half, f"after step {max(steps)}, code {code}"
    )
    code = walk.submitted(*line).wait(PATIENCE_S)
    left = [name for name in STAGE_JOBS if not open_stage(recipe, name).is_complete]
    report = Path(recipe.run_dir, "report.html").is_file()
    walk.step("the same line goes on to the report", code == 0 and report and not left,
              f"code {code}, not complete: {', '.join(left) or 'no stage'}")  # fmt: skip
    command = [sys.executable, "-m", "codepmp_ray.command", "verify", "--config", "laptop"]
    done = subprocess.run(
        [*command, *walk.settings], cwd=walk.folder, capture_output=True, text=True
    )
    walk.step("verify", done.returncode == 0, (done.stdout + done.stderr).strip()[-300:])


def ask(candidates: list[str]) -> dict[str, Any]:
    """POST /v1/bon as the README does; a service that is busy or changes is asked again."""
    body = {"prompt": "Write a function that adds two numbers.", "candidates": candidates}
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORT}/v1/bon",
        json.dumps(body).encode(),
        {
            "Authorization": f"Bearer {os.environ['CODEPMP_API_KEY']}",
            "Content-Type": "application/json",
        },
    )
    give_up_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                return json.load(answer)
        except OSError:
            if time.monotonic() > give_up_s:
                raise
            time.sleep(1)


def walk_scoring(walk: Walk) -> None:
    """Use 3, with the model of the run."""
    from threading import Timer

    import psutil

    from benchmarks._serve_load import SCORER, processes

    job = walk.submitted("serve", "--config", "laptop", *walk.settings)
    texts = [f"def add(a, b):\n    return a + b + {n}" for n in range(NUM_CANDIDATES)]
    first = ask(texts)
    saw = f"best_index {first['best_index']} of {len(first['data'])} candidates"
    if not walk.step("best of 256 over HTTP", len(first["data"]) == NUM_CANDIDATES, saw):
        return
    everybody = psutil.Process(1)
    victims = walk.until(lambda: processes(SCORER, everybody), "replicas")
    began_s, answers = time.monotonic(), []
    Timer(1.0, victims[0].kill).start()
    while len(answers) < 3 or time.monotonic() - began_s < 30:
        answers.append(ask(texts)["best_index"])
    same = {*answers} == {first["best_index"]} and not victims[0].is_running()
    walk.step(f"{len(answers)} times more, with one of {len(victims)} replicas killed", same,
              f"best_index {sorted({*answers})} in {time.monotonic() - began_s:.0f} s")  # fmt: skip
    kill_driver("serve")
    job.wait(PATIENCE_S)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    run_in_own_namespaces(
        "scripts.acceptance",
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN=secrets.token_hex(32),
        CODEPMP_API_KEY=secrets.token_hex(16),
        RAY_JOB_STOP_WAIT_TIME_S="130",
        PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    )
    from benchmarks.cluster_autoscaling import Watch, autoscaling_head, wait_until_gone
    from codepmp_ray.cluster.connect import connect
    from tests.tiny_models import save_tiny_base_model

    walk = Walk(Path(tempfile.mkdtemp(prefix="acc", dir="/tmp")))  # sockets lie below it
    save_tiny_base_model(walk.model)
    dashboard = ("--include-dashboard=true", "--dashboard-port=8265")
    with autoscaling_head(walk.folder, IDLE_S, TYPES, *dashboard), connect(), Watch() as watch:
        for use in (lambda: walk_pairs_and_training(walk, watch), lambda: walk_scoring(walk)):
            try:
                use()
            except (OSError, TimeoutError) as error:
                walk.step("it goes on", False, f"{error}; the last line: {walk.last_line()}")
        gone_s = wait_until_gone(watch)
        walk.step(
            "all workers are gone", gone_s is not None, dict(watch.now()) or "no node is left"
        )
    if walk.num_unmet:
        raise SystemExit(f"{walk.num_unmet} steps are not met; logs are in {walk.folder}")
    shutil.rmtree(walk.folder, ignore_errors=True)


if __name__ == "__main__":
    main()
