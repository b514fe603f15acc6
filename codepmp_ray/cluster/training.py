"""Training stages on Ray Train: PMP on the synthesised pairs, RM finetuning on labelled answers."""

from __future__ import annotations

import sys
import tempfile
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from codepmp_ray.cluster.device_time import cost_of, device_time
from codepmp_ray.cluster.final_errors import EndAtFinalErrors, fit_raising_final_errors
from codepmp_ray.cluster.limits import PriceLimit
from codepmp_ray.cluster.metrics import TrainingMetrics
from codepmp_ray.cluster.workers import scaling_of
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.errors import LimitReached
from codepmp_ray.hub_models import pin
from codepmp_ray.modeling.checkpoint_checks import require_trainable
from codepmp_ray.modeling.objectives import make_objective
from codepmp_ray.modeling.sources import CONFIG_FILE
from codepmp_ray.progress import Progress
from codepmp_ray.runs import MODEL_FOLDER, Stage, base_model, open_stage
from codepmp_ray.storage import Store, open_store
from codepmp_ray.training.checkpoint_folders import whole_steps
from codepmp_ray.training.inputs import (
    file_inputs,
    ledger_inputs,
    prepare_evaluation_sets,
    prepare_sources,
)
from codepmp_ray.training.metrics import Looks, is_evaluation, read_metrics
from codepmp_ray.training.stopping import forget_stop, request_stop
from codepmp_ray.training.task import (
    SOURCE_STATS,
    InputShard,
    TrainingTask,
    Trunk,
    best_step,
    stopping_step,
)
from codepmp_ray.training.trackers import require_trackers

PAIRS_FILE = "pairs.parquet"
_PREEMPTION_INTERVAL_S = 5.0  # clouds give notice half a minute ahead, or more


def pretrain(
    recipe: Recipe, trunk: Trunk | None = None, *, in_process: bool = False
) -> dict[str, Any]:
    """PMP on the pairs of the synthesis stage, or on `pretraining.data`; returns the summary.

    `trunk` is what the run shares with branches, see training/branches.py. With `in_process` one
    worker trains in this process, on its CPUs and without Ray: for many short trainings, each of
    which would wait longer for its worker than it takes.
    """
    stage = open_stage(recipe, "pretraining")
    if stage.is_complete:
        return stage.summary()
    config = recipe.pretraining
    if config.data:
        make_inputs = partial(prepare_sources, stage.store, config)
    else:
        synthesis = open_stage(recipe, "synthesis").require()
        make_inputs = partial(ledger_inputs, synthesis.uri, "pairs")
    model = pin(recipe.run_dir, base_model(recipe))
    return _run(stage, config, model, make_inputs, trunk, in_process=in_process)


def finetune(recipe: Recipe, *, in_process: bool = False) -> dict[str, Any]:
    """RM finetuning on graded answers of the training problems, or on `finetuning.data`.

    `in_process` is that of `pretrain`.
    """
    stage = open_stage(recipe, "finetuning")
    if stage.is_complete:
        return stage.summary()
    config = recipe.finetuning
    if config.model_name_or_path is not None:
        model = pin(recipe.run_dir, config.model_name_or_path, config.revision)
    else:
        pretrained = open_stage(recipe, "pretraining").require(
            "or set finetuning.model_name_or_path to the model that finetuning starts from"
        )
        model = pretrained.store.locate(MODEL_FOLDER)
    if config.data:
        make_inputs = partial(prepare_sources, stage.store, config)
    else:
        make_inputs = partial(_own_finetuning_pairs, recipe, stage)
    return _run(stage, config, model, make_inputs, in_process=in_process)


def _own_finetuning_pairs(recipe: Recipe, stage: Stage) -> tuple[InputShard, ...]:
    from codepmp_ray.evaluation.finetuning_pairs import build_finetuning_pairs

    stage.store.put_table(PAIRS_FILE, build_finetuning_pairs(recipe))
    return file_inputs(stage.uri, PAIRS_FILE)


def _run(
    stage: Stage,
    config: TrainingConfig,
    model: str,
    make_inputs: Callable[[], tuple[InputShard, ...]],
    trunk: Trunk | None = None,
    *,
    in_process: bool = False,
) -> dict[str, Any]:
    """Fit with Ray Train, or here; either resumes from this stage's own checkpoints."""
    # What is quick to refuse comes before sets are read, which may take minutes.
    require_trainable(model, has_rewards=make_objective(config.objective).has_rewards)
    require_trackers(config.report_to)
    start_s = time.monotonic()
    # Where the whole export stands, an earlier run was killed on its last line.
    if not stage.store.exists(f"{MODEL_FOLDER}/{CONFIG_FILE}"):
        scaling, use_gpu = (None, False) if in_process else scaling_of(stage.name, config)
        _require_family(stage.name, config, model)
        inputs = (*make_inputs(), *prepare_evaluation_sets(stage.store, config))
        stage.start(models={"base": model})
        forget_stop(stage.store)
        # Later commands are greater, if the clocks of their hosts agree that far.
        command = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
        task = TrainingTask(stage.name, config, model, inputs, stage.uri, trunk, command)
        fit = partial(_fit_here, task)
        if scaling is not None:
            fit = partial(fit_raising_final_errors, _trainer(task, scaling, use_gpu).fit)
        with _watch(stage, trunk):
            run_stoppable(fit, stage.store, config.stop_timeout_s, PriceLimit(stage))
    for leftover in ("ray", "checkpoints"):
        stage.store.delete_tree(leftover)
    summary = _summarise(stage, config, time.monotonic() - start_s)
    stage.complete(summary | {"cost": cost_of(stage)})
    return stage.summary()


def _require_family(stage: str, config: TrainingConfig, model: str) -> None:
    """`require_family` before sets are read, and the name of an unusual way; the workers look again
    on their own device.
    """
    from codepmp_ray.modeling.loading import load_config
    from codepmp_ray.training.family import require_family

    shape = load_config(model)
    path = require_family(config, shape)
    if line := path.line(stage, shape.model_type):
        print(line, file=sys.stderr)


def _trainer(task: TrainingTask, scaling: ScalingConfig, use_gpu: bool) -> TorchTrainer:
    path, filesystem = open_store(task.out_dir).sub("ray").arrow()
    return TorchTrainer(
        worker_main,
        train_loop_config={"task": task},
        torch_config=TorchConfig(
            backend="cpu:gloo,cuda:nccl" if use_gpu else "gloo",
            timeout_s=task.config.process_group_timeout_s,
        ),
        scaling_config=scaling,
        run_config=RunConfig(
            # A fresh name each time: the stage's checkpoints are ours, Ray Train keeps none.
            name=f"attempt-{int(time.time())}",
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=task.config.max_failures),
            callbacks=[EndAtFinalErrors()],
        ),
    )


def _fit_here(task: TrainingTask) -> None:
    """Train as the only rank of a group that no other process can join."""
    import torch
    import torch.distributed as dist

    from codepmp_ray.modeling.collectives import leave_process_group
    from codepmp_ray.training.loop import train
    from codepmp_ray.training.settled_heap import returned_heap

    torch.set_num_threads(max(1, int(task.config.cpus_per_worker)))
    with tempfile.TemporaryDirectory() as folder, returned_heap():
        store = f"file://{folder}/store"
        dist.init_process_group("gloo", init_method=store, rank=0, world_size=1)
        try:
            train(task, lambda row: None)
        finally:
            leave_process_group()


def run_stoppable(
    fit: Callable[[], Any],
    store: Store,
    timeout_s: float,
    watch: Callable[[], None] = lambda: None,
) -> None:
    """Run `fit`; when interrupted, ask the workers to checkpoint and wait for them a while.

    `watch` is called each second, and interrupts by raising LimitReached.

    Ctrl-C and SIGTERM (`ray job stop`) arrive as KeyboardInterrupt in the main thread, so `fit` has
    another: there Ray Train leaves the signals alone. A second interruption does not wait.
    """
    failures: list[BaseException] = []
    # Not Thread.join: when a signal interrupts it, Python 3.11 takes the thread for ended.
    ended = threading.Event()

    def body() -> None:
        try:
            fit()
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            failures.append(error)
        finally:
            ended.set()

    threading.Thread(target=body, daemon=True).start()
    try:
        while not ended.wait(1.0):
            watch()
    except (KeyboardInterrupt, LimitReached):
        request_stop(store)
        print(f"Stopping after a checkpoint; waiting up to {timeout_s:.0f} s.", file=sys.stderr)
        ended.wait(timeout_s)
        raise
    if failures:
        raise failures[0]


def worker_main(loop_config: dict[str, Any]) -> None:
    """Runs on every Ray Train worker."""
    import ray.train
    import torch

    # Here, because Ray Train's controller loads this module too and never trains.
    from codepmp_ray.modeling.collectives import let_gloo_rest
    from codepmp_ray.training.loop import train

    task: TrainingTask = loop_config["task"]
    if not torch.cuda.is_available():
        torch.set_num_threads(max(1, int(task.config.cpus_per_worker)))
    # Nothing is reported to Ray Train: metrics are in the stage's folder, and a report waits for
    # the controller's next look, up to two seconds a step (its queue holds one).
    is_first = ray.train.get_context().get_world_rank() == 0
    show = TrainingMetrics(task.stage).show if is_first else lambda row: None
    held = ray.train.get_context().get_world_size() * torch.cuda.is_available() * is_first
    try:
        with device_time(open_store(task.out_dir), task.command, held):
            train(task, show, _is_preempted, _PREEMPTION_INTERVAL_S)
    finally:
        let_gloo_rest()


def _is_preempted() -> bool:
    """Asks an actor of Ray Train's, and the ranks wait for each other."""
    import ray.train

    return ray.train.get_preemption_info() is not None


@contextmanager
def _watch(stage: Stage, trunk: Trunk | None) -> Iterator[None]:
    """Show the workers' progress from the metrics in storage; the driver itself only waits."""
    stop = threading.Event()
    # Asked before the workers start. A branch has none of its own: it goes on from its trunk's.
    resumed = max(whole_steps(stage.store), default=0 if trunk is None else None)
    arguments = (stage, stop, resumed)
    thread = threading.Thread(target=_show_progress, args=arguments, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _show_progress(stage: Stage, stop: threading.Event, resumed: int | None) -> None:
    """`resumed` is the step of the checkpoint that training goes on from, where that is known."""
    looks = Looks(stage.store)
    while not (rows := looks.rows()):
        if stop.wait(1.0):
            return
    # Rows may be of steps after the checkpoint, which run again.
    last_row = rows[-1]["step"] - (not is_evaluation(rows[-1]))
    done = last_row if resumed is None else resumed
    with Progress(stage.name, rows[-1]["total_steps"], "steps", done=done) as progress:
        while True:
            finished = stop.wait(1.0)
            steps = [row for row in looks.rows(now=finished) if not is_evaluation(row)]
            if steps:
                last = steps[-1]
                note = f"loss {last['loss']:.3f}"
                if "accuracy" in last:  # sft has no rewards
                    note += f", accuracy {last['accuracy']:.2f}"
                progress.update(last["step"], note)
            if finished:
                return


def _summarise(stage: Stage, config: TrainingConfig, duration_s: float) -> dict[str, Any]:
    rows = read_metrics(stage.store)
    steps = [row for row in rows if not is_evaluation(row)]
    evaluations = [row for row in rows if is_evaluation(row)]
    totals = stage.ledger.totals()
    last = steps[-1] if steps else {}
    best = best_step(config, evaluations)
    before = evaluations[0] if evaluations else {}
    exported = next((row for row in evaluations[::-1] if best in (None, row["step"])), {})
    utilisations = [row["mfu"] for row in steps if row.get("mfu") is not None]
    num_tokens = sum(row["step_num_tokens"] for row in steps)
    busy_s = sum(row["step_s"] for row in steps)
    return {
        "num_pairs": totals.num_rows["used"],
        "num_rejected": totals.num_rows["rejected"],
        "sources": _by_source(totals.stats),
        "num_steps": last.get("step", 0),
        "num_pairs_seen": last.get("num_pairs_seen", 0),
        "num_tokens": last.get("num_tokens", 0),
        "num_workers": last.get("num_workers", 0),
        "final_loss": last.get("loss"),
        "best_step": best,
        "stopping_step": stopping_step(config, evaluations),
        "eval_loss": exported.get("eval_loss"),
        "eval_accuracy_before": before.get("eval_accuracy"),
        "eval_accuracy": exported.get("eval_accuracy"),
        "eval_num_pairs": exported.get("eval_num_pairs", 0),
        **_of_sets(exported),
        **{
            f"{name}_before": value
            for name, value in _of_sets(before).items()
            if name.endswith("/accuracy")
        },
        "num_skipped_steps": sum(bool(row.get("skipped")) for row in steps),
        "tokens_per_second": num_tokens / busy_s if steps else None,
        "mfu": sum(utilisations) / len(utilisations) if utilisations else None,
        "duration_s": round(duration_s, 1),
    }


def _of_sets(row: dict[str, Any]) -> dict[str, Any]:
    """What an evaluation measured on the sets of `eval_data`."""
    return {name: value for name, value in row.items() if name.startswith("eval/")}


def _by_source(stats: Counter[str]) -> dict[str, dict[str, int]]:
    """Counts of each source, out of those that the shards' markers carry."""
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for key, count in sorted(stats.items()):
        if key.startswith(SOURCE_STATS):
            source, name = key.removeprefix(SOURCE_STATS).split("/")
            found[source][name] = count
    return dict(found)
