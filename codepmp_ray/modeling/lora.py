"""Low-rank adapters (LoRA, Hu et al. 2021) that peft puts beside the linear layers of the blocks.

y = W x + lora_alpha / r x B A x, with A [r, in] and B [out, r]. Of a model with adapters only these
and the reward head are trained; W and the LM head stay as they were read, and are in no checkpoint.
B begins as zeros, so that training begins with the model itself. The export is the sum
(`merge_adapters`), and beside it the adapters as peft writes them (adapter_export.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from codepmp_ray.errors import ConfigError, ModelError
from codepmp_ray.modeling.backbones import blocks_of
from codepmp_ray.modeling.preference_model import PreferenceModel

if TYPE_CHECKING:
    from codepmp_ray.config.lora import LoraConfig

_A, _B, _BASE = ".lora_A.default.weight", ".lora_B.default.weight", ".base_layer"
_REMEDY = "Name its linear layers in lora.target_modules, or leave lora out and train all weights."


def require_peft() -> None:
    """Raise ConfigError where peft is not installed."""
    if find_spec("peft") is None:
        raise ConfigError(
            "lora: the package peft is not installed.",
            "Install it (pip install 'codepmp-ray[lora]') on every node, or leave lora out and "
            "train all weights.",
        )


def add_adapters(model: PreferenceModel, lora: LoraConfig) -> None:
    """Put adapters beside the layers that `lora` names and freeze all but them and the reward head.

    They are zeros until `initial_adapters` says what they begin with. Raises ConfigError without
    peft, and ModelError for a family whose layers it would not find, or not only.
    """
    require_peft()
    peft: Any = import_module("peft")  # an extra
    paths = _paths(model.backbone, lora)
    settings = peft_settings(lora, sorted({path.rpartition(".")[2] for path in paths}))
    peft.inject_adapter_in_model(settings, model.backbone, low_cpu_mem_usage=True)
    found = {name.removesuffix(_A) for name, _ in model.backbone.named_parameters() if _A in name}
    if found != paths:
        raise ModelError(
            f"{model.config.model_type}: peft finds {sorted(found - paths)} besides the linear "
            f"layers of the blocks, and not {sorted(paths - found)}.",
            _REMEDY,
        )
    for path in paths:
        # peft made them on the meta device; its own way to the layer's does not know the tensors
        # without contents that a plan is made of.
        base = model.backbone.get_parameter(f"{path}{_BASE}.weight")
        for end in (_A, _B):
            layer = model.backbone.get_submodule(f"{path}{end.removesuffix('.weight')}")
            zeros = base.new_zeros(layer.get_parameter("weight").shape)
            layer.register_parameter("weight", nn.Parameter(zeros))
    if model.lm_head is not None:
        model.lm_head.requires_grad_(False)
    moved = {
        f"backbone.{path}.{leaf}": f"backbone.{path}{_BASE}.{leaf}"
        for path in paths
        for leaf in ("weight", "bias")
    }
    if model.origins is not None:
        origins: Any = model.origins
        model.origins = replace(
            origins,
            keys={moved.get(name, name): key for name, key in origins.keys.items()},
            converted={moved.get(name, name): key for name, key in origins.converted.items()},
        )


def peft_settings(lora: LoraConfig, target_modules: list[str], **more: Any) -> Any:
    """peft's own configuration of these adapters."""
    peft: Any = import_module("peft")
    settings = {"r": lora.r, "lora_alpha": lora.lora_alpha, "lora_dropout": 0.0, "bias": "none"}
    return peft.LoraConfig(**settings, target_modules=target_modules, **more)


def _paths(backbone: Any, lora: LoraConfig) -> set[str]:
    """Where the layers that get adapters lie below the backbone."""
    names = {module: name for name, module in backbone.named_modules()}
    inside = {
        f"{names[block]}.{name}": module
        for block in blocks_of(backbone)
        for name, module in block.named_modules()
        if name
    }
    linear = {path for path, module in inside.items() if isinstance(module, nn.Linear)}
    kind = backbone.config.model_type
    if lora.target_modules == "all-linear":
        others = {
            f"{path}.{name}"
            for path, module in inside.items()
            for name, parameter in module.named_parameters(recurse=False)
            if parameter.ndim > 1 and path not in linear
        }
        if others or not linear:
            raise ModelError(
                f"{kind}: its blocks compute with matrices that are no linear layers, which would "
                f"get no adapter: {', '.join(sorted(others)[:3]) or 'all of them'}.",
                _REMEDY,
            )
        return linear
    for name in lora.target_modules:
        of_name = {path for path in inside if path.rpartition(".")[2] == name}
        if not of_name or of_name - linear:
            known = sorted({path.rpartition(".")[2] for path in linear})
            raise ModelError(
                f"lora.target_modules names {name!r}, which is no linear layer of the blocks of "
                f"{kind}.",
                f"Choose among {', '.join(known) or 'those of another family'}.",
            )
    return {path for path in linear if path.rpartition(".")[2] in lora.target_modules}


def initial_adapters(
    model: PreferenceModel, seed: int
) -> Iterator[tuple[nn.Parameter, torch.Tensor]]:
    """(parameter, its whole first value) of each adapter, as peft draws them; none without any.

    A function of seed and name, so alike for any number of ranks.
    """
    for name, parameter in model.named_parameters():
        if name.endswith(_A):
            digest = hashlib.sha256(f"{seed}|{name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:6], "big"))
            bound = parameter.shape[1] ** -0.5
            yield (
                parameter,
                torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator),
            )
        elif name.endswith(_B):
            yield parameter, torch.zeros(parameter.shape)


@torch.no_grad()
def merge_adapters(model: PreferenceModel) -> None:
    """Add every adapter to its layer's weight and make it zero: the model computes what it did.

    Collective where parameters are sharded; W and B are cut alike, along their rows.
    """
    parameters = dict(model.named_parameters())
    for name, a in parameters.items():
        if not name.endswith(_A):
            continue
        path = name.removesuffix(_A)
        scaling: float = model.get_submodule(path).scaling["default"]  # pyright: ignore
        weight, b = (_own(parameters[f"{path}{end}"]) for end in (f"{_BASE}.weight", _B))
        whole = a.full_tensor() if isinstance(a, DTensor) else a
        weight += scaling * (b @ whole.to(b.device))
        b.zero_()


def _own(parameter: torch.Tensor) -> torch.Tensor:
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter.data


def is_adapter(name: str) -> bool:
    """Whether a parameter of that name is one of an adapter."""
    return name.endswith((_A, _B))


def plain_name(name: str) -> str:
    """What a parameter is called in a model without adapters."""
    return name.replace(f"{_BASE}.", ".")
