"""Ways to make the two sides differ (paper Figures 6 and 13), one short file each.

"A & B" in the figures: chosen comes from A, rejected from B. Same family and cross family are
`strong_weak` with other models (jobs/recipes); who describes is `synthesis.describer`.
"""

from __future__ import annotations

from codepmp_ray.config.engines import Role
from codepmp_ray.config.synthesis import SynthesisConfig
from codepmp_ray.synthesis.constructions.base import Construction, Hop
from codepmp_ray.synthesis.constructions.description_clip import DescriptionClip
from codepmp_ray.synthesis.constructions.execution_feedback import ExecutionFeedback
from codepmp_ray.synthesis.constructions.pass_rate import PassRate
from codepmp_ray.synthesis.constructions.same_policy import SamePolicy
from codepmp_ray.synthesis.constructions.source_model import SourceModel
from codepmp_ray.synthesis.constructions.strong_weak import StrongWeak
from codepmp_ray.synthesis.constructions.without_models import WithoutModels

__all__ = ["Construction", "Hop", "all_hops", "make_construction"]

_KINDS: dict[str, type[Construction]] = {
    "strong_weak": StrongWeak,
    "description_clip": DescriptionClip,
    "source_model": SourceModel,
    "execution_feedback": ExecutionFeedback,
    "pass_rate": PassRate,
    "same_policy": SamePolicy,
    "web_pairs": WithoutModels,
    "continuation": WithoutModels,
    "commits": WithoutModels,
}


def make_construction(config: SynthesisConfig) -> Construction:
    """The construction that `config.construction` names."""
    return _KINDS[config.construction](config)


def all_hops(config: SynthesisConfig) -> dict[Hop, Role]:
    """The construction's hops and, if asked for, the label, after the describing model's others."""
    hops = make_construction(config).hops()
    return {**hops, "label": config.describer} if config.label_domain and hops else hops
