"""The training loop of one stage on one rank: load, resume, step, evaluate, checkpoint, export."""

from __future__ import annotations

import math
import os
import shutil
import time
import uuid
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from codepmp_ray.errors import ModelError
from codepmp_ray.modeling.export import export_model
from codepmp_ray.modeling.loading import (
    empty_model,
    load_tokenizer,
    materialise,
    read_weights,
)
from codepmp_ray.preference.tokenization import TEMPLATE_FILE, Encoder, PromptTemplate
from codepmp_ray.storage import LocalStore
from codepmp_ray.training.checkpoint import Checkpointer
from codepmp_ray.training.data import TrainingData, load_training_data
from codepmp_ray.training.fsdp import make_mesh, parameter_device, parameter_groups, shard
from codepmp_ray.training.metrics import MetricsLog
from codepmp_ray.training.references import with_references
from codepmp_ray.training.schedule import learning_rate
from codepmp_ray.training.step import StepResult, StepRunner, objective_of
from codepmp_ray.training.task import MODEL_FOLDER, TrainingTask


def train(
    task: TrainingTask,
    report: Callable[[dict[str, Any]], None],
    is_preempted: Callable[[], bool] = lambda: False,
) -> None:
    """Train and export; resumes from the newest whole checkpoint in `task.out_dir`.

    Runs on every rank of an initialised process group. `report` is called with the metrics of each
    step on every rank (Ray Train's report is a barrier), and so is `is_preempted`, which has the
    same answer on all: true when a node is about to be taken away. A checkpoint is then written at
    once, and training goes on as long as it can.
    """
    config = task.config
    device = _device()
    store = LocalStore(task.out_dir)
    tokenizer = load_tokenizer(task.model_name_or_path)
    encoder = Encoder(tokenizer, _template(task, tokenizer))
    data = load_training_data(task, encoder)
    model = empty_model(task.model_name_or_path, objective_of(config))
    shard(model, config, make_mesh(config, device))
    materialise(model, parameter_device(config, device))
    read_weights(model, task.model_name_or_path, seed=config.seed)
    model.train()
    optimizer = torch.optim.AdamW(
        parameter_groups(model, config.weight_decay),
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
    )
    runner = StepRunner(model, config, device)
    if config.objective == "dpo":
        data = with_references(data, runner, store)
    checkpointer = Checkpointer(
        store, config.save_total_limit, asynchronous=config.async_checkpoints
    )
    first_step = checkpointer.restore(model, optimizer)
    log = MetricsLog(store, first_step) if dist.get_rank() == 0 else None

    def record(row: dict[str, Any]) -> None:
        if log is not None:
            log.append(row)
        report(row)

    _steps(task, data, runner, optimizer, checkpointer, first_step, record, is_preempted)
    _export(task, model, encoder)
    if dist.get_rank() == 0:
        checkpointer.remove_all()
    dist.barrier()


def _steps(
    task: TrainingTask,
    data: TrainingData,
    runner: StepRunner,
    optimizer: torch.optim.Optimizer,
    checkpointer: Checkpointer,
    first_step: int,
    record: Callable[[dict[str, Any]], None],
    is_preempted: Callable[[], bool],
) -> None:
    config = task.config
    total = data.mixture.num_steps(config.batch_size, config.num_train_epochs, config.max_steps)
    was_preempted = False
    if first_step == 0:
        _evaluate(runner, data, 0, total, record)
    for step in range(first_step, total):
        start_s = time.perf_counter()
        rate = learning_rate(config, step, total)
        for group in optimizer.param_groups:
            group["lr"] = rate
        indices = data.mixture.step_indices(config.batch_size, step)
        result = runner.train([data.train[index] for index in indices])
        norm = torch.nn.utils.clip_grad_norm_(runner.model.parameters(), config.max_grad_norm)
        norm_value = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        if math.isfinite(norm_value):
            optimizer.step()
        optimizer.zero_grad()
        done, notice = step + 1, False
        if done % config.logging_steps == 0 or done == total:
            elapsed_s = time.perf_counter() - start_s
            steps_per_epoch = -(-data.mixture.num_per_epoch // config.batch_size)
            record(_row(result, done, total, done / steps_per_epoch, norm_value, rate, elapsed_s))
            preempted = is_preempted()
            notice, was_preempted = preempted and not was_preempted, preempted
        if done % config.save_steps == 0 or done == total or notice:
            checkpointer.save(runner.model, optimizer, done)
        if notice or done == total:
            checkpointer.finish()
        checkpointer.poll(runner.device)
    _evaluate(runner, data, total, total, record)


def _row(
    result: StepResult,
    step: int,
    total: int,
    epoch: float,
    grad_norm: float,
    rate: float,
    elapsed_s: float,
) -> dict[str, Any]:
    return {
        "step": step,
        "total_steps": total,
        "epoch": round(epoch, 4),
        **result.row(),
        "grad_norm": grad_norm,
        "skipped": not math.isfinite(grad_norm),
        "learning_rate": rate,
        "step_s": elapsed_s,
        "tokens_per_second": result.num_tokens / elapsed_s,
    }


def _evaluate(
    runner: StepRunner,
    data: TrainingData,
    step: int,
    total: int,
    record: Callable[[dict[str, Any]], None],
) -> None:
    if not data.held_out:
        return
    result = runner.evaluate(data.held_out)
    record(
        {
            "step": step,
            "total_steps": total,
            **{f"eval_{name}": value for name, value in result.row().items()},
        }
    )


def _template(task: TrainingTask, tokenizer: Any) -> PromptTemplate:
    """The template of the initial weights if they were exported by this project, else a new one."""
    folder = task.model_name_or_path
    if os.path.isfile(os.path.join(folder, TEMPLATE_FILE)):
        template = PromptTemplate.load(folder)
        if template.kind != task.config.template or template.append_eos != task.config.append_eos:
            raise ModelError(
                f"{folder} was trained with template={template.kind}, "
                f"append_eos={template.append_eos}; the {task.stage} section says "
                f"{task.config.template}, {task.config.append_eos}.",
                "Use the same template in both training sections.",
            )
        return template
    return PromptTemplate.from_tokenizer(tokenizer, task.config.template, task.config.append_eos)


def _export(task: TrainingTask, model: Any, encoder: Encoder) -> None:
    """Write the weights aside and give them their final name in one rename. Collective."""
    store = LocalStore(task.out_dir)
    target = store.path(MODEL_FOLDER)
    box = [f".{MODEL_FOLDER}.{uuid.uuid4().hex}"]
    dist.broadcast_object_list(box, src=0)
    scratch = store.path(box[0])
    try:
        export_model(
            model,
            encoder.tokenizer,
            encoder.template,
            scratch,
            getattr(torch, task.config.export_dtype),
        )
        if dist.get_rank() == 0:
            if target.exists():
                shutil.rmtree(target)
            os.rename(scratch, target)
    finally:
        if dist.get_rank() == 0:
            shutil.rmtree(scratch, ignore_errors=True)
    dist.barrier()


def _device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
