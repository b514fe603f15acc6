"""The studies, in the order in which they share work best: one short file each kind."""

from __future__ import annotations

from collections.abc import Iterable

from codepmp_ray.errors import ConfigError
from codepmp_ray.studies.catalogue import (
    abilities,
    best_of_n,
    constructions,
    efficiency,
    evidence,
    grpo,
    judging,
    losses,
    policies,
    rm_accuracy,
    scaling,
    texts,
)
from codepmp_ray.studies.study import Study

STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        *rm_accuracy.STUDIES,
        *best_of_n.STUDIES,
        best_of_n.TABLE_12,
        losses.TABLE_2,
        *efficiency.STUDIES,
        *scaling.STUDIES,
        constructions.FIGURE_6,
        *texts.STUDIES,
        abilities.FIGURE_13,
        judging.JUDGE,
        policies.SEED_004,
        grpo.GRPO,
        evidence.EVIDENCE,
    )
}


def find_studies(names: Iterable[str]) -> list[Study]:
    """The studies of these names. Raises ConfigError for one that there is not."""
    names = list(names)
    for name in names:
        if name not in STUDIES:
            raise ConfigError(f"There is no study {name!r}.", f"Known: {', '.join(STUDIES)}.")
    return [STUDIES[name] for name in names]
