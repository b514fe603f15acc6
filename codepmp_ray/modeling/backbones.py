"""Where decoders differ: where their blocks lie, how wide they end, what else they hold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from codepmp_ray.errors import ModelError


def blocks_of(backbone: Any) -> Iterable[nn.Module]:
    """The blocks of a decoder without head: the list of as many modules as it has layers.

    The outermost such list; without one, that which holds the most. Raises ModelError when there is
    no list at all.
    """
    num_layers = getattr(backbone.config, "num_hidden_layers", None)
    found = [module for module in backbone.modules() if isinstance(module, nn.ModuleList)]
    if not found:
        raise ModelError(
            f"{type(backbone).__name__} has no list of layers to shard by.",
            "Choose a Llama or Qwen backbone.",
        )
    as_many = [module for module in found if len(module) == num_layers]
    return as_many[0] if as_many else max(found, key=_num_parameters)


def _num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def output_size(config: Any) -> int:
    """Width of the last hidden states, which is what heads read.

    OPT-350M alone projects them: its blocks have 1024 numbers, its embeddings and heads 512.
    """
    return getattr(config, "word_embed_proj_dim", None) or config.hidden_size


def num_learned_positions(backbone: Any) -> int | None:
    """Positions for which the model has an embedding; None where they are computed (rotary)."""
    most = getattr(backbone.config, "max_position_embeddings", None)
    tokens = backbone.get_input_embeddings()
    for name, module in backbone.named_modules():
        if not isinstance(module, nn.Embedding) or module is tokens or most is None:
            continue
        # OPT has two rows more than positions.
        if "position" in name or 0 <= module.num_embeddings - most <= 2:
            return int(most)
    return None


def require_positions(backbone: Any, max_length: int) -> None:
    """Raise ModelError when positions of `max_length` tokens are not what the family computes.

    That is where they were not learned, and where a rotary embedding changes with the longest
    sequence of a batch (dynamic, longrope): a pair's rewards would depend on its neighbours.
    """
    config = backbone.config
    most = num_learned_positions(backbone)
    if most is not None and max_length > most:
        raise ModelError(
            f"max_length={max_length} exceeds the {most} positions that {config.model_type} has "
            "learned.",
            f"Set max_length={most} or less.",
        )
    for kind, limit in _changing_rotations(config, getattr(config, "rope_parameters", None)):
        if max_length > limit:
            raise ModelError(
                f"max_length={max_length} exceeds the {limit} positions of {config.model_type} "
                f"from which on its rotary embedding ({kind}) changes with the longest sequence of "
                "a batch.",
                f"Set max_length={limit} or less.",
            )


def _changing_rotations(config: Any, parameters: Any) -> Iterable[tuple[str, int]]:
    """(kind, positions up to which it does not change), of each kind of layer."""
    if not isinstance(parameters, dict):
        return
    kind = parameters.get("rope_type")
    if kind in ("dynamic", "longrope"):
        limit = None
        if kind == "longrope":
            limit = parameters.get("original_max_position_embeddings") or getattr(
                config, "original_max_position_embeddings", None
            )
        yield kind, int(limit or config.max_position_embeddings)
    for value in parameters.values():
        yield from _changing_rotations(config, value)
