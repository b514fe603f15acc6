"""The training loop of one stage on one rank: load, resume, step, evaluate, checkpoint, export."""

from __future__ import annotations

import math
import os
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, cast

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.errors import ModelError
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.modeling.export import export_reward_model
from codepmp_ray.modeling.loading import load_preference_model, load_tokenizer
from codepmp_ray.preference.plan import num_steps, step_indices
from codepmp_ray.preference.tokenization import TEMPLATE_FILE, Encoder, PromptTemplate
from codepmp_ray.storage import LocalStore
from codepmp_ray.training.checkpoint import Checkpointer
from codepmp_ray.training.data import TrainingData, encode_rows
from codepmp_ray.training.fsdp import parameter_groups, shard
from codepmp_ray.training.metrics import MetricsLog
from codepmp_ray.training.schedule import learning_rate
from codepmp_ray.training.step import StepResult, StepRunner
from codepmp_ray.training.task import MODEL_FOLDER, TrainingTask


def train(task: TrainingTask, report: Callable[[dict[str, Any]], None]) -> None:
    """Train and export; resumes from the newest whole checkpoint in `task.out_dir`.

    Runs on every rank of an initialised process group. `report` is called with the metrics of each
    step on every rank (Ray Train's report is a barrier).
    """
    config = task.config
    device = _device()
    store = LocalStore(task.out_dir)
    tokenizer = load_tokenizer(task.model_name_or_path)
    encoder = Encoder(tokenizer, _template(task, tokenizer))
    data = encode_rows(task.read_rows(), encoder, config, task.stage)
    model = load_preference_model(
        task.model_name_or_path, with_lm=config.objective != "rm", seed=config.seed
    ).to(device)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    shard(model, config, mesh)
    model.train()
    optimizer = torch.optim.AdamW(
        parameter_groups(model, config.weight_decay),
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
    )
    checkpointer = Checkpointer(store, config.save_total_limit)
    first_step = checkpointer.restore(model, optimizer)
    log = MetricsLog(store, first_step) if dist.get_rank() == 0 else None
    if dist.get_rank() == 0:
        _account(task, data)

    def record(row: dict[str, Any]) -> None:
        if log is not None:
            log.append(row)
        report(row)

    _steps(
        task, data, StepRunner(model, config, device), optimizer, checkpointer, first_step, record
    )
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
) -> None:
    config = task.config
    total = total_steps(config, len(data.train))
    if first_step == 0:
        _evaluate(runner, data, 0, total, record)
    for step in range(first_step, total):
        start_s = time.perf_counter()
        rate = learning_rate(config, step, total)
        for group in optimizer.param_groups:
            group["lr"] = rate
        indices = step_indices(len(data.train), config.batch_size, config.seed, step)
        result = runner.train([data.train[index] for index in indices])
        norm = torch.nn.utils.clip_grad_norm_(runner.model.parameters(), config.max_grad_norm)
        norm_value = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        if math.isfinite(norm_value):
            optimizer.step()
        optimizer.zero_grad()
        done = step + 1
        if done % config.logging_steps == 0 or done == total:
            elapsed_s = time.perf_counter() - start_s
            steps_per_epoch = -(-len(data.train) // config.batch_size)
            record(_row(result, done, total, done / steps_per_epoch, norm_value, rate, elapsed_s))
        if done % config.save_steps == 0 or done == total:
            checkpointer.save(runner.model, optimizer, done)
    _evaluate(runner, data, total, total, record)


def total_steps(config: TrainingConfig, num_pairs: int) -> int:
    return num_steps(num_pairs, config.batch_size, config.num_train_epochs, config.max_steps)


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
        **asdict(result),
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
            "eval_accuracy": result.accuracy,
            "eval_loss": result.loss,
            "eval_loss_rm": result.loss_rm,
            "eval_loss_lm": result.loss_lm,
            "eval_margin": result.margin,
            "eval_num_pairs": result.num_pairs,
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


def _account(task: TrainingTask, data: TrainingData) -> None:
    ShardLedger(LocalStore(task.out_dir)).commit(
        0, data.num_rows, {"used": data.used, "rejected": data.rejected}
    )


def _export(task: TrainingTask, model: Any, encoder: Encoder) -> None:
    """Gather the weights on rank 0 and write them at their final name in one rename."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state = cast("dict[str, torch.Tensor]", get_model_state_dict(model, options=options))
    if dist.get_rank() == 0:
        store = LocalStore(task.out_dir)
        target = store.path(MODEL_FOLDER)
        scratch = store.path(f".{MODEL_FOLDER}.{uuid.uuid4().hex}")
        try:
            export_reward_model(
                model.backbone.config,
                {
                    name.removeprefix("backbone."): value
                    for name, value in state.items()
                    if name.startswith("backbone.")
                },
                state["score.weight"],
                encoder.tokenizer,
                encoder.template,
                scratch,
                getattr(torch, task.config.export_dtype),
            )
            if target.exists():
                shutil.rmtree(target)
            os.rename(scratch, target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    dist.barrier()


def _device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
