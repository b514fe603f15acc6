"""ReClor (Yu et al. 2020), multiple choice. The test part has no labels: validation is used."""

from __future__ import annotations

from codepmp_ray.config.data import HUB_IDS
from codepmp_ray.evaluation.tasks.base import HubSet, ProblemTask
from codepmp_ray.evaluation.tasks.choices import problem_reader
from codepmp_ray.evaluation.tasks.source_pairs import pair_task
from codepmp_ray.preference.sources.multiple_choice import RECLOR

_LICENSE = "non-commercial research"
_HUB = HubSet(HUB_IDS["reclor"], "validation")

TASK = ProblemTask(
    name="reclor",
    title="ReClor",
    license=_LICENSE,
    kind="choice",
    grader="choice",
    hub=_HUB,
    problem=problem_reader("ReClor", RECLOR, "id_string"),
)
PAIRS = pair_task("reclor_pairs", "ReClor-pair", _LICENSE, "reclor", _HUB)
