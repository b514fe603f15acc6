"""Training of one stage on one rank: load, run the steps that are missing, export."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from codepmp_ray.errors import ModelError
from codepmp_ray.modeling.adapter_export import export_adapters
from codepmp_ray.modeling.backbones import require_positions
from codepmp_ray.modeling.checkpoint_files import say_once
from codepmp_ray.modeling.collectives import agree, failing_together
from codepmp_ray.modeling.export import distinct_pad_id, export_model, require_exportable
from codepmp_ray.modeling.loading import (
    empty_model,
    load_config,
    load_tokenizer,
    materialise,
    read_weights,
)
from codepmp_ray.modeling.lora import add_adapters, merge_adapters
from codepmp_ray.modeling.paths import TrainingPath, choose_path
from codepmp_ray.modeling.sources import CONFIG_FILE, resolve_model
from codepmp_ray.preference.tokenization import TEMPLATE_FILE, Encoder, PromptTemplate
from codepmp_ray.runs import MODEL_FOLDER
from codepmp_ray.storage import Store, open_store
from codepmp_ray.training.checkpoint import Checkpointer
from codepmp_ray.training.compiling import compile_blocks, use_deterministic_kernels
from codepmp_ray.training.data import load_training_data
from codepmp_ray.training.fsdp import make_mesh, parameter_device, shard
from codepmp_ray.training.optimizer import make_optimizer
from codepmp_ray.training.references import with_references
from codepmp_ray.training.settled_heap import settled_heap
from codepmp_ray.training.step import StepRunner, objective_of
from codepmp_ray.training.steps import Run
from codepmp_ray.training.stopping import PreemptionNotice
from codepmp_ray.training.task import TrainingTask

ADAPTER_FOLDER = "adapter"  # of a LoRA training, beside the merged model


def train(
    task: TrainingTask,
    report: Callable[[dict[str, Any]], None],
    is_preempted: Callable[[], bool] = lambda: False,
    preemption_interval_s: float = 0.0,
) -> None:
    """Train and export; resumes from the newest whole checkpoint in `task.out_dir`.

    Does nothing where the export is whole.

    Runs on every rank of an initialised process group. `report` is called with the metrics of each
    logged step on every rank. `is_preempted` is asked after every step, but not again within
    `preemption_interval_s`, on every rank, and has the same answer on all: true when a node is
    about to be taken away. A checkpoint is then written at once, and training goes on as long as it
    can. On a stop request (training/stopping.py) it returns after the checkpoint, without an
    export. Raises ModelError and InputError before the first step where data or model do not suit.
    """
    config = task.config
    device = _device()
    if config.full_determinism:
        use_deterministic_kernels(device)
    store = open_store(task.out_dir)
    if agree(store.exists(f"{MODEL_FOLDER}/{CONFIG_FILE}")):
        return  # an attempt before this one failed when all was done
    weights = resolve_model(task.model_name_or_path)
    tokenizer = load_tokenizer(weights)
    vocab_size = load_config(weights).get_text_config().vocab_size
    path = _path(task, weights, device)
    template = _of_the_first_attempt(store, _template(task, weights, tokenizer))
    encoder = Encoder(tokenizer, template, vocab_size)
    distinct_pad_id(tokenizer, encoder.template)  # the export needs it: not after days of steps
    model = empty_model(weights, objective_of(config), is_packed=path.is_packed)
    if config.lora is not None:
        add_adapters(model, config.lora)
    require_positions(model.backbone, config.max_length)
    _say(require_exportable(model))
    data = load_training_data(task, encoder)
    compile_blocks(model, config, device)
    shard(model, config, make_mesh(config, device))
    materialise(model, parameter_device(config, device))
    read_weights(model, weights, seed=config.seed)
    model.train()
    optimizer = make_optimizer(model, config)
    runner = StepRunner(model, config, device)
    if config.objective == "dpo":
        data = with_references(data, runner, store, task.inputs)
    notice = PreemptionNotice(is_preempted, preemption_interval_s)
    run = Run(task, data, runner, optimizer, report, notice)
    with settled_heap():
        is_done = run.steps()
    if not is_done:
        return
    run.choose_best()
    _export(task, model, encoder, run.checkpointer)
    if dist.get_rank() == 0:
        run.checkpointer.remove_all()
    dist.barrier()


def _path(task: TrainingTask, weights: str, device: torch.device) -> TrainingPath:
    """How the backbone is trained, as rank 0 finds it; said there. Collective."""
    path: TrainingPath | None = None
    with failing_together():
        if dist.get_rank() == 0:
            config = load_config(weights)
            path = choose_path(config, objective_of(task.config), device)
            _say(path.line(task.stage, config.model_type))
    found = agree(path)
    assert found is not None  # of rank 0
    return found


def _say(line: str) -> None:
    if line and dist.get_rank() == 0:
        say_once(line)


def _template(task: TrainingTask, weights: str, tokenizer: Any) -> PromptTemplate:
    """The template of the initial weights if they were exported by this project, else a new one."""
    if os.path.isfile(os.path.join(weights, TEMPLATE_FILE)):
        template = PromptTemplate.load(weights)
        names = ("template", "append_eos", "chat_template_kwargs")
        trained = (template.kind, template.append_eos, template.chat_template_kwargs)
        for name, value in zip(names, trained, strict=True):
            if value != getattr(task.config, name):
                raise ModelError(
                    f"{task.model_name_or_path} was trained with {name}={value}; the {task.stage} "
                    f"section says {getattr(task.config, name)}.",
                    f"Set {task.stage}.{name} as the model was trained.",
                )
        return template
    config = task.config
    return PromptTemplate.from_tokenizer(
        tokenizer, config.template, config.append_eos, config.chat_template_kwargs
    )


def _of_the_first_attempt(store: Store, template: PromptTemplate) -> PromptTemplate:
    """What the stage began with: a resume on another day has another date. Collective."""
    if dist.get_rank() == 0:
        store.put_exclusive(TEMPLATE_FILE, template.to_json().encode())
        template = PromptTemplate.from_json(store.read_bytes(TEMPLATE_FILE).decode())
    return agree(template)


def _export(task: TrainingTask, model: Any, encoder: Encoder, checkpointer: Checkpointer) -> None:
    """Write the weights; what an attempt left that was killed there goes first. Collective."""
    store = open_store(task.out_dir)
    if dist.get_rank() == 0:
        checkpointer.require_no_other()
        for folder in (MODEL_FOLDER, ADAPTER_FOLDER):
            store.delete_tree(folder)
    dist.barrier()
    if task.config.lora is not None:
        export_adapters(
            model,
            task.config.lora,
            task.model_name_or_path,
            encoder.tokenizer,
            encoder.template,
            store.sub(ADAPTER_FOLDER),
        )
        merge_adapters(model)
    export_model(
        model,
        encoder.tokenizer,
        encoder.template,
        store.sub(MODEL_FOLDER),
        getattr(torch, task.config.export_dtype),
        before_last=checkpointer.require_no_other,
    )


def _device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
