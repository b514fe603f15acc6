"""FSDP2 around a PreferenceModel: one group per block, one for the fp32 head, one for the rest."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)

from codepmp_ray.errors import ConfigError
from codepmp_ray.modeling.backbones import blocks_of
from codepmp_ray.modeling.preference_model import PreferenceModel

if TYPE_CHECKING:
    from codepmp_ray.config.training import TrainingConfig


def make_mesh(config: TrainingConfig, device: torch.device) -> DeviceMesh:
    """All ranks, or with replicas (HSDP) a mesh [replicas, ranks that share one copy].

    Raises ConfigError when the ranks cannot be dealt out evenly.
    """
    world_size, replicas = dist.get_world_size(), config.data_parallel_replicate_degree
    if replicas == 1:
        return init_device_mesh(device.type, (world_size,))
    if world_size % replicas:
        raise ConfigError(
            f"data_parallel_replicate_degree={replicas} does not divide the {world_size} workers.",
            "Set it to the number of nodes, with equally many workers on each.",
        )
    ranks = torch.arange(world_size).view(replicas, -1)
    # Groups have a timeout of their own, which a mesh that makes them cannot be told.
    limit = timedelta(seconds=config.process_group_timeout_s)
    groups = []
    for members in (ranks.T, ranks):
        own, _ = dist.new_subgroups_by_enumeration(members.tolist(), timeout=limit)
        assert isinstance(own, dist.ProcessGroup)  # each rank is in one of them
        groups.append(own)
    names = ("dp_replicate", "dp_shard")
    return DeviceMesh.from_group(groups, device.type, mesh=ranks, mesh_dim_names=names)


def parameter_device(config: TrainingConfig, device: torch.device) -> torch.device:
    """Where parameters and optimizer lie between steps."""
    return torch.device("cpu") if config.cpu_offload else device


def shard(model: PreferenceModel, config: TrainingConfig, mesh: DeviceMesh) -> PreferenceModel:
    """Shard `model` in place over `mesh`; parameters stay fp32, blocks compute in bf16 if asked.

    The LM head stays in the root group, which remains gathered through forward and backward: ranks
    with different numbers of LM chunks would otherwise gather it a different number of times.
    """
    compute = torch.bfloat16 if config.bf16 else torch.float32
    policy = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32)
    offload = OffloadPolicy()
    if config.cpu_offload and mesh.device_type != "cpu":
        offload = CPUOffloadPolicy()
    blocks = blocks_of(model.backbone)
    if config.gradient_checkpointing:
        model.backbone.gradient_checkpointing_enable({"use_reentrant": False})
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy, offload_policy=offload)
    if model.score is not None:
        precise = MixedPrecisionPolicy(param_dtype=torch.float32, reduce_dtype=torch.float32)
        fully_shard(model.score, mesh=mesh, mp_policy=precise, offload_policy=offload)
    fully_shard(
        model, mesh=mesh, mp_policy=policy, offload_policy=offload, reshard_after_forward=False
    )
    for module in model.modules():
        if isinstance(module, FSDPModule):
            # Losses are sums divided by global counts, so gradients add up over ranks, unaveraged.
            module.set_gradient_divide_factor(1.0)
            # gloo has no scaled sum.
            module.set_force_sum_reduction_for_comms(True)
    return model
