"""How a snippet becomes a <prompt, chosen, rejected> pair (paper section 3.2)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from codepmp_ray.config.base import Section
from codepmp_ray.config.engines import Role, SamplingConfig


class SynthesisConfig(Section):
    """Describe a snippet, then answer the description twice.

    Attributes:
        construction: `strong_weak` (the paper's choice: both sides answer the same description) or
            `description_clip` (Figure 6, "Des-Clip": the rejected side sees a clipped description).
        describer: the role that writes the description; the paper names the strong model.
        clip_fraction: share of the description's words removed from its end for the weak side.
    """

    construction: Literal["strong_weak", "description_clip"] = "strong_weak"
    describer: Role = "strong"
    clip_fraction: float = Field(default=0.1, gt=0, lt=1)
    describe: SamplingConfig = SamplingConfig(temperature=0.7, max_tokens=256)
    chosen: SamplingConfig = SamplingConfig(temperature=0.7, max_tokens=1024)
    rejected: SamplingConfig = SamplingConfig(temperature=0.7, max_tokens=1024)
