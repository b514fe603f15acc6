"""Which engine pools synthesis needs, and which hops each of them does.

A hop is one question to one model. The describing model also writes its side of the pair while the
row is with it, so that whichever model describes, no weights are loaded twice: at most two pools.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from codepmp_ray.config.engines import EngineConfig, EnginesConfig
from codepmp_ray.config.synthesis import SynthesisConfig

Hop = Literal["describe", "chosen", "rejected"]
_SIDE_OF: dict[str, Hop] = {"strong": "chosen", "weak": "rejected"}


@dataclass(frozen=True)
class PoolPlan:
    """One pool of engines and its hops, in order."""

    name: str
    engine: EngineConfig
    hops: tuple[Hop, ...]


def plan_pools(synthesis: SynthesisConfig, engines: EnginesConfig) -> list[PoolPlan]:
    """Pools in the order in which a shard passes them."""
    first = synthesis.describer
    second = "weak" if first == "strong" else "strong"
    if engines.strong.result_fields() == engines.weak.result_fields():
        return [PoolPlan("strong+weak", engines.strong, ("describe", "chosen", "rejected"))]
    return [
        PoolPlan(first, getattr(engines, first), ("describe", _SIDE_OF[first])),
        PoolPlan(second, getattr(engines, second), (_SIDE_OF[second],)),
    ]
