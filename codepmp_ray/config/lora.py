"""Low-rank adapters in place of training all weights."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from codepmp_ray.config.base import Section


class LoraConfig(Section):
    """LoRA (Hu et al. 2021), made by peft and under its names; dropout is 0 as everywhere here.

    Attributes:
        r: rank of the adapters.
        lora_alpha: adapters count lora_alpha / r.
        target_modules: names of the linear layers that get one, for example [q_proj, v_proj];
            `all-linear` are all within the blocks.
    """

    r: int = Field(default=16, ge=1)
    lora_alpha: float = Field(default=32.0, gt=0)
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"

    @field_validator("target_modules")
    @classmethod
    def _names(cls, names: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if isinstance(names, tuple) and (not names or len({*names}) < len(names)):
            raise ValueError("name each module once, and at least one")
        return names
