"""Where decoders differ: where their blocks lie, how wide they end, what else they hold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from codepmp_ray.errors import ModelError


def blocks_of(backbone: Any) -> Iterable[nn.Module]:
    """The blocks of a decoder without head. Raises ModelError when they are not in a list."""
    found = getattr(backbone, "layers", None)
    if found is None:  # OPT has its decoder inside
        found = getattr(getattr(backbone, "decoder", None), "layers", None)
    if found is None:
        raise ModelError(
            f"{type(backbone).__name__} has no `layers` to shard by.",
            "Choose a Llama or Qwen backbone.",
        )
    return found


def output_size(config: Any) -> int:
    """Width of the last hidden states, which is what heads read.

    OPT-350M alone projects them: its blocks have 1024 numbers, its embeddings and heads 512.
    """
    return getattr(config, "word_embed_proj_dim", None) or config.hidden_size


def num_learned_positions(backbone: Any) -> int | None:
    """Positions for which the model has an embedding; None where they are computed (rotary)."""
    is_learned = any(
        isinstance(module, nn.Embedding) and "position" in name
        for name, module in backbone.named_modules()
    )
    return int(backbone.config.max_position_embeddings) if is_learned else None


def require_positions(backbone: Any, max_length: int) -> None:
    """Raise ModelError when pairs of `max_length` tokens have positions that were not learned."""
    most = num_learned_positions(backbone)
    if most is not None and max_length > most:
        raise ModelError(
            f"max_length={max_length} exceeds the {most} positions that "
            f"{backbone.config.model_type} has learned.",
            f"Set max_length={most} or less.",
        )
