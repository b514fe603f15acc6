"""Training stages on Ray Train: PMP on the synthesised pairs, RM finetuning on labelled answers."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from codepmp_ray.cluster.preflight import num_gpus_in_cluster, require_resources
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.modeling.sources import resolve_model
from codepmp_ray.progress import Progress
from codepmp_ray.runs import Stage, open_stage, require_files
from codepmp_ray.storage import LocalStore
from codepmp_ray.training.inputs import file_inputs, ledger_inputs, prepare_sources
from codepmp_ray.training.metrics import read_metrics
from codepmp_ray.training.task import MODEL_FOLDER, SOURCE_STATS, InputShard, TrainingTask

PAIRS_FILE = "pairs.parquet"


def pretrain(recipe: Recipe) -> dict[str, Any]:
    """PMP on the pairs of the synthesis stage, or on `pretraining.data`; returns the summary."""
    stage = open_stage(recipe, "pretraining")
    if stage.is_complete:
        return stage.summary()
    require_files(recipe, "pretraining")
    config = recipe.pretraining
    if config.data:
        make_inputs = partial(prepare_sources, LocalStore(stage.path), config)
    else:
        synthesis = open_stage(recipe, "synthesis").require()
        make_inputs = partial(ledger_inputs, synthesis.uri, "pairs")
    model = config.model_name_or_path or recipe.engines.strong.model_name_or_path
    return _run(stage, config, model, make_inputs)


def finetune(recipe: Recipe) -> dict[str, Any]:
    """RM finetuning on graded answers of the training problems, or on `finetuning.data`."""
    stage = open_stage(recipe, "finetuning")
    if stage.is_complete:
        return stage.summary()
    require_files(recipe, "finetuning")
    config = recipe.finetuning
    model = config.model_name_or_path
    if model is None:
        model = str(open_stage(recipe, "pretraining").require().path / MODEL_FOLDER)
    if config.data:
        make_inputs = partial(prepare_sources, LocalStore(stage.path), config)
    else:
        make_inputs = partial(_own_finetuning_pairs, recipe, stage)
    return _run(stage, config, model, make_inputs)


def _own_finetuning_pairs(recipe: Recipe, stage: Stage) -> tuple[InputShard, ...]:
    from codepmp_ray.evaluation.finetuning_pairs import build_finetuning_pairs

    stage.store.put_table(PAIRS_FILE, build_finetuning_pairs(recipe))
    return file_inputs(str(stage.path), PAIRS_FILE)


def _run(
    stage: Stage,
    config: TrainingConfig,
    model: str,
    make_inputs: Callable[[], tuple[InputShard, ...]],
) -> dict[str, Any]:
    """Fit with Ray Train. Workers resume from this stage's own checkpoints, whoever starts them."""
    # What is quick to refuse comes before sets are read, which may take minutes.
    resolve_model(model)
    use_gpu, num_workers = _place(stage.name, config)
    inputs = make_inputs()
    stage.start()
    start_s = time.monotonic()
    task = TrainingTask(stage.name, config, model, inputs, str(stage.path))
    trainer = TorchTrainer(
        worker_main,
        train_loop_config={"task": task},
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=num_workers,
            use_gpu=use_gpu,
            resources_per_worker={"CPU": config.cpus_per_worker, **({"GPU": 1} if use_gpu else {})},
        ),
        run_config=RunConfig(
            # A fresh name each time: the stage's checkpoints are ours, Ray Train keeps none.
            name=f"attempt-{int(time.time())}",
            storage_path=str(stage.path / "ray"),
            failure_config=FailureConfig(max_failures=config.max_failures),
        ),
    )
    with _watch(stage):
        trainer.fit()
    shutil.rmtree(stage.path / "ray", ignore_errors=True)
    stage.complete(_summarise(stage, num_workers, time.monotonic() - start_s))
    return stage.summary()


def worker_main(loop_config: dict[str, Any]) -> None:
    """Runs on every Ray Train worker."""
    import ray.train
    import torch

    # Here, because Ray Train's controller loads this module too and never trains.
    from codepmp_ray.training.loop import train

    task: TrainingTask = loop_config["task"]
    if not torch.cuda.is_available():
        torch.set_num_threads(max(1, int(task.config.cpus_per_worker)))
    train(task, ray.train.report, lambda: ray.train.get_preemption_info() is not None)


def _place(stage: str, config: TrainingConfig) -> tuple[bool, int]:
    """(use GPUs, number of workers). Raises ResourceError when the workers do not fit.

    With fewer GPUs than workers and `use_gpu` left open, fewer workers train: the result does not
    depend on their number.
    """
    num_gpus = int(num_gpus_in_cluster())
    num_workers = config.num_workers
    use_gpu = config.use_gpu if config.use_gpu is not None else num_gpus > 0
    if use_gpu and config.use_gpu is None and num_gpus < num_workers:
        print(f"{stage}: {num_gpus} workers instead of {num_workers}, one per GPU", file=sys.stderr)
        num_workers = num_gpus
    needed = {"CPU": num_workers * config.cpus_per_worker}
    if use_gpu:
        needed["GPU"] = float(num_workers)
    require_resources(
        f"The {stage} stage with {num_workers} workers",
        needed,
        f"Lower {stage}.num_workers or cpus_per_worker, or run on a larger cluster.",
    )
    return use_gpu, num_workers


@contextmanager
def _watch(stage: Stage) -> Iterator[None]:
    """Show the workers' progress from the metrics in storage; the driver itself only waits."""
    stop = threading.Event()
    thread = threading.Thread(target=_show_progress, args=(stage, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _show_progress(stage: Stage, stop: threading.Event) -> None:
    while not (rows := _step_rows(stage)):
        if stop.wait(1.0):
            return
    done = rows[-1]["step"] if "loss" not in rows[-1] else rows[-1]["step"] - 1
    with Progress(stage.name, rows[-1]["total_steps"], "steps", done=max(done, 0)) as progress:
        while True:
            finished = stop.wait(1.0)
            rows = _step_rows(stage)
            steps = [row for row in rows if "loss" in row]
            if steps:
                last = steps[-1]
                note = f"loss {last['loss']:.3f}"
                if "accuracy" in last:  # sft has no rewards
                    note += f", accuracy {last['accuracy']:.2f}"
                progress.update(last["step"], note)
            if finished:
                return


def _step_rows(stage: Stage) -> list[dict[str, Any]]:
    return read_metrics(stage.store)


def _summarise(stage: Stage, num_workers: int, duration_s: float) -> dict[str, Any]:
    rows = read_metrics(stage.store)
    steps = [row for row in rows if "loss" in row]
    evaluations = [row for row in rows if "eval_loss" in row]
    totals = stage.ledger.totals()
    return {
        "num_pairs": totals.num_rows["used"],
        "num_rejected": totals.num_rows["rejected"],
        "sources": _by_source(totals.stats),
        "num_steps": steps[-1]["step"] if steps else 0,
        "num_workers": num_workers,
        "final_loss": steps[-1]["loss"] if steps else None,
        "eval_loss": evaluations[-1]["eval_loss"] if evaluations else None,
        "eval_accuracy_before": evaluations[0].get("eval_accuracy") if evaluations else None,
        "eval_accuracy": evaluations[-1].get("eval_accuracy") if evaluations else None,
        "eval_num_pairs": evaluations[-1]["eval_num_pairs"] if evaluations else 0,
        "num_skipped_steps": sum(bool(row.get("skipped")) for row in steps),
        "duration_s": round(duration_s, 1),
    }


def _by_source(stats: Counter[str]) -> dict[str, dict[str, int]]:
    """Counts of each source, out of those that the shards' markers carry."""
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for key, count in sorted(stats.items()):
        if key.startswith(SOURCE_STATS):
            source, name = key.removeprefix(SOURCE_STATS).split("/")
            found[source][name] = count
    return dict(found)
