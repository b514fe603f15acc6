"""Ways to make the two sides differ (paper Figure 6). "A & B": chosen by A, rejected by B.

A construction is a function from the description to the description that the rejected side sees.
"""

from __future__ import annotations

from collections.abc import Callable

from codepmp_ray.config.synthesis import SynthesisConfig


def rejected_description(config: SynthesisConfig, description: str) -> str:
    """The description that the weak model is given under `config.construction`."""
    return _CONSTRUCTIONS[config.construction](config, description)


def _strong_weak(config: SynthesisConfig, description: str) -> str:
    """6.7B & 1.3B, the paper's choice: both models answer the same description."""
    return description


def _description_clip(config: SynthesisConfig, description: str) -> str:
    """Des-Clip: the last `clip_fraction` of the words is missing, at least one word, never all."""
    words = description.split()
    num_clipped = max(1, round(len(words) * config.clip_fraction))
    return " ".join(words[: max(1, len(words) - num_clipped)])


_CONSTRUCTIONS: dict[str, Callable[[SynthesisConfig, str], str]] = {
    "strong_weak": _strong_weak,
    "description_clip": _description_clip,
}
