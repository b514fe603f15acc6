"""Which engine pools a construction needs, and which hops each of them does.

A hop is one question to one model. The describing model does all its hops while the row is with
it, so that whichever model describes, no weights are loaded twice: at most two pools, and only one
where one model does everything.
"""

from __future__ import annotations

from dataclasses import dataclass

from codepmp_ray.config.engines import EngineConfig, EnginesConfig, Role, SamplingConfig
from codepmp_ray.config.synthesis import SynthesisConfig
from codepmp_ray.errors import ConfigError
from codepmp_ray.synthesis.constructions import Hop, all_hops


@dataclass(frozen=True)
class PoolPlan:
    """One pool of engines and its hops, in order."""

    name: str
    engine: EngineConfig
    hops: tuple[Hop, ...]


def plan_pools(synthesis: SynthesisConfig, engines: EnginesConfig) -> list[PoolPlan]:
    """Pools in the order in which a shard passes them.

    Raises ConfigError for an answer that is as long as its engine's context.
    """
    hops = all_hops(synthesis)
    for hop, role in hops.items():
        engine: EngineConfig = getattr(engines, role)
        require_room(f"synthesis.{hop}", synthesis.sampling(hop), engine, f"engines.{role}")
    roles: list[Role] = list(dict.fromkeys(hops.values()))
    if len(roles) > 1 and engines.strong.result_fields() == engines.weak.result_fields():
        return [PoolPlan("strong+weak", engines.strong, tuple(hops))]
    return [
        PoolPlan(role, getattr(engines, role), tuple(hop for hop in hops if hops[hop] == role))
        for role in roles
    ]


def require_room(setting: str, sampling: SamplingConfig, engine: EngineConfig, where: str) -> None:
    """Raise ConfigError where answers may fill the context, so that no prompt fits before them."""
    if sampling.max_tokens >= engine.max_model_len:
        raise ConfigError(
            f"{setting}.max_tokens={sampling.max_tokens} leaves no room for a prompt in "
            f"{where}.max_model_len={engine.max_model_len}.",
            "Lower max_tokens or raise max_model_len.",
        )
