"""How a device computes the blocks: compiled by torch.compile, and with the same bits each time.

Between matrix products a block does many small things, each a pass over memory of its own;
compiled, they are a few passes. The parts of a block are compiled (norms, projections with rotary
embedding, MLP), not the block: FSDP's hooks and gradient checkpointing lie around it, and the
kernel of `modeling/attention` inside it. All blocks share what is compiled, whatever the length of
a pack.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch

from codepmp_ray.errors import ConfigError
from codepmp_ray.modeling.backbones import blocks_of
from codepmp_ray.modeling.preference_model import PreferenceModel

if TYPE_CHECKING:
    from codepmp_ray.config.training import TrainingConfig


def compile_blocks(
    model: PreferenceModel, config: TrainingConfig, device: torch.device
) -> PreferenceModel:
    """Compile in place, at the first forward, if `config` asks for it; parameters keep their names.

    Blocks of the plain path only where it asks by name: among them are routers and recurrences.
    With `full_determinism` kernels are chosen by rule and not by timing them. Raises ConfigError
    where torch cannot compile: on CPU it does not quote its own folder in the compiler's command.
    """
    is_default = device.type == "cuda" and model.is_packed
    wanted = is_default if config.torch_compile is None else config.torch_compile
    if wanted and device.type == "cpu" and " " in torch.__file__:
        raise ConfigError(
            f"torch_compile=true, but torch lies in a folder with a space: {torch.__file__}.",
            "Set torch_compile to null or false, or move the checkout.",
        )
    if wanted:
        options = {"deterministic": config.full_determinism}
        for block in blocks_of(model.backbone):
            for part in block.children():
                part.forward = torch.compile(part.forward, dynamic=True, options={**options})
    return model


def use_deterministic_kernels(device: torch.device) -> None:
    """For this process and from now on; on CPU the kernels are deterministic as they are."""
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
        torch.use_deterministic_algorithms(True)
