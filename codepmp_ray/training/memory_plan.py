"""What one training step holds in the memory of one GPU, before any GPU is asked for.

The real step (model code, packing, FSDP2, mixed precision, checkpointing, optimizer) runs on fake
tensors over a fake process group, while torch's own FSDP memory tracker counts. Nothing is
allocated, so a 72B on 64 ranks takes seconds on a laptop. Blocks are all alike: two shallow models
say what each further block costs.

Not counted: the CUDA context and what the allocator loses to fragmentation (`HEADROOM`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
from torch.testing._internal.distributed.fake_pg import FakeStore

from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.errors import ResourceError
from codepmp_ray.modeling.building import model_from_config
from codepmp_ray.modeling.lm_loss import CHUNK_TOKENS
from codepmp_ray.modeling.lora import add_adapters
from codepmp_ray.preference.items import EncodedItem
from codepmp_ray.preference.packing import pack
from codepmp_ray.training.fsdp import make_mesh, shard
from codepmp_ray.training.optimizer import make_optimizer
from codepmp_ray.training.step import objective_of

GIB = 2**30
HEADROOM = 0.08
# Usable memory in bytes, as the makers' data sheets name it.
GPU_BYTES = {
    "a10g-24gb": 24e9,
    "rtx4090-24gb": 24e9,
    "a100-40gb": 40e9,
    "l40s-48gb": 48e9,
    "a100-80gb": 80e9,
    "h100-80gb": 80e9,
    "h200-141gb": 141e9,
    "b200-192gb": 192e9,
}
_OFFLOADED = ("parameters", "gradients", "optimizer")
# With fewer blocks the peak lies elsewhere in the step.
_SHALLOW, _DEEPER = 4, 5
# The tracker's kinds under the names of the field.
_KINDS = {
    "Sharded Param": "parameters",
    "Sharded Grad": "gradients",
    "OptState": "optimizer",
    "Unsharded Param": "gathered_parameters",
    "Unsharded Grad": "gathered_gradients",
    "Activation": "activations",
    "Temp": "temporary",
    "All Gather": "communication",
    "Reduce Scatter": "communication",
    "Buffer": "buffers",
    "Inputs": "buffers",
}


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on each GPU at the peak of a step, by kind; `total` adds HEADROOM.

    Attributes:
        on_host: bytes that each worker has in host memory instead (`cpu_offload`).
        logits: of one chunk of tokens, with their log-probabilities in fp32, while the LM loss
            runs; part of `temporary` and `activations` if the peak is there.
    """

    num_parameters: int
    by_kind: dict[str, int]
    capacity: float | None
    on_host: int = 0
    logits: int = 0

    @property
    def total(self) -> float:
        return sum(self.by_kind.values()) * (1 + HEADROOM)

    @property
    def fits(self) -> bool:
        return self.capacity is None or self.total <= self.capacity


def plan_memory(
    config: TrainingConfig, model_config: Any, gpu: str | None = None, *, is_packed: bool = True
) -> MemoryPlan:
    """The plan for `config.num_workers` GPUs. Needs a process without a process group.

    Without `is_packed` that of the plain path (modeling/paths.py).

    Raises ResourceError for a GPU kind that is not in GPU_BYTES.
    """
    if gpu is not None and gpu.lower() not in GPU_BYTES:
        raise ResourceError(
            f"The GPU kind {gpu!r} is not known.", f"Known kinds: {', '.join(GPU_BYTES)}."
        )
    depth = model_config.num_hidden_layers
    samples = sorted({min(depth, _SHALLOW), min(depth, _DEEPER)})
    found = [_measure(config, model_config, layers, is_packed) for layers in samples]
    names = dict.fromkeys(_KINDS.values())
    low = found[0]
    by_kind = {}
    for name in names:
        slope = 0.0
        if len(found) == 2:
            slope = (found[1].bytes[name] - low.bytes[name]) / (samples[1] - samples[0])
        by_kind[name] = round(low.bytes[name] + slope * (depth - samples[0]))
    per_block = (found[-1].parameters - low.parameters) / max(1, samples[-1] - samples[0])
    num_parameters = round(low.parameters + per_block * (depth - samples[0]))
    on_host = 0
    if config.cpu_offload:  # what FSDP2 keeps there between uses
        on_host = sum(by_kind[name] for name in _OFFLOADED)
        by_kind |= dict.fromkeys(_OFFLOADED, 0)
    capacity = GPU_BYTES[gpu.lower()] if gpu else None
    logits = _logits_of_a_chunk(config, model_config)
    return MemoryPlan(num_parameters, by_kind, capacity, on_host, logits)


def remedies(
    config: TrainingConfig, model_config: Any, gpu: str, *, is_packed: bool = True
) -> list[tuple[str, MemoryPlan]]:
    """Changes that make the step fit, cheapest first; at most two."""
    half = max(config.max_length, config.max_tokens_per_micro_batch // 2)
    changes: list[dict[str, Any]] = [
        {"gradient_checkpointing": True},
        {"max_tokens_per_micro_batch": half},
        {"gradient_checkpointing": True, "max_tokens_per_micro_batch": half},
        *(
            {"gradient_checkpointing": True, "num_workers": config.num_workers * n}
            for n in (2, 4, 8)
        ),
        {"gradient_checkpointing": True, "cpu_offload": True},
    ]
    fitting: list[tuple[str, MemoryPlan]] = []
    for change in changes:
        if all(getattr(config, name) == value for name, value in change.items()):
            continue
        changed = config.model_copy(update=change)
        plan = plan_memory(changed, model_config, gpu, is_packed=is_packed)
        if plan.fits:
            fitting.append((", ".join(f"{k}={_yaml(v)}" for k, v in change.items()), plan))
        if len(fitting) == 2:
            break
    return fitting


@dataclass(frozen=True)
class _Sample:
    parameters: int
    bytes: dict[str, int]


def _measure(
    config: TrainingConfig, model_config: Any, num_layers: int, is_packed: bool = True
) -> _Sample:
    """The peak of the second step, when gradients of an earlier micro-batch and state exist."""
    shape = {**model_config.to_dict(), **_depth(model_config, num_layers)}
    shallow = type(model_config).from_dict(shape)
    dist.init_process_group("fake", rank=0, world_size=config.num_workers, store=FakeStore())
    try:
        mesh = make_mesh(config, torch.device("cpu"))
        with (fake := FakeTensorMode()):
            model = model_from_config(shallow, objective_of(config), is_packed=is_packed)
        if config.lora is not None:
            add_adapters(model, config.lora)
        with fake:
            num_parameters = sum(parameter.numel() for parameter in model.parameters())
            shard(model, config, mesh)
            model.train()
            optimizer = make_optimizer(model, config)
            batch = pack(full_batch(config), sides=model.objective.sides)
            _backward(model, batch)
            optimizer.step()
            tracker = FSDPMemTracker(model, optimizer)
            with tracker:
                # Gradients of a first micro-batch stay while the next one runs.
                _backward(model, batch)
                optimizer.step()
            snapshot = tracker.get_tracker_snapshot("peak")
    finally:
        dist.destroy_process_group()
    totals = dict.fromkeys(_KINDS.values(), 0)
    for amounts in snapshot.values():
        for kind, amount in amounts.items():
            name = str(getattr(kind, "value", kind))
            if name in _KINDS:
                totals[_KINDS[name]] += amount
    return _Sample(num_parameters, totals)


def _logits_of_a_chunk(config: TrainingConfig, model_config: Any) -> int:
    objective = objective_of(config)
    if not objective.has_lm:
        return 0
    batch = full_batch(config)
    num_targets = sum(len(ids) for item in batch for ids in item.targets(objective.sides))
    num_bytes = 4 + (2 if config.bf16 else 4)
    return min(num_targets, CHUNK_TOKENS) * model_config.vocab_size * num_bytes


def _backward(model: Any, batch: Any) -> None:
    model.objective.loss(model(batch), {"pair": 1, "list": 1, "token": 1}).backward()


def full_batch(config: TrainingConfig) -> list[EncodedItem]:
    """Pairs that fill a micro-batch; prompt and responses of one length, at the limit."""
    part = max(1, min(config.max_length // 2, config.max_tokens_per_micro_batch // 3))
    num_pairs = max(1, config.max_tokens_per_micro_batch // (3 * part))
    part_ids = [1] * part
    return [EncodedItem.of_pair(str(i), part_ids, part_ids, part_ids) for i in range(num_pairs)]


def _depth(model_config: Any, num_layers: int) -> dict[str, Any]:
    changes: dict[str, Any] = {"num_hidden_layers": num_layers}
    if getattr(model_config, "layer_types", None):
        changes["layer_types"] = list(model_config.layer_types[:num_layers])
    return changes


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def readable(num_bytes: float) -> str:
    """Bytes in GiB."""
    return f"{num_bytes / GIB:,.2f} GiB" if math.isfinite(num_bytes) else "?"
