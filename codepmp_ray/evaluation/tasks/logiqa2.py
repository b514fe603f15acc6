"""LogiQA 2.0 (Liu et al. 2023), multiple choice, English test part."""

from __future__ import annotations

from codepmp_ray.config.data import HUB_IDS, HUB_PLACES
from codepmp_ray.evaluation.tasks.base import HubSet, ProblemTask
from codepmp_ray.evaluation.tasks.choices import problem_reader
from codepmp_ray.evaluation.tasks.source_pairs import pair_task
from codepmp_ray.preference.sources.multiple_choice import LOGIQA2

_LICENSE = "CC BY-NC-SA 4.0"
_PLACE = HUB_PLACES["logiqa2"]
_HUB = HubSet(HUB_IDS["logiqa2"], "test", _PLACE["subset"], _PLACE["revision"])

TASK = ProblemTask(
    name="logiqa2",
    title="LogiQA 2.0",
    license=_LICENSE,
    kind="choice",
    grader="choice",
    hub=_HUB,
    problem=problem_reader("LogiQA2", LOGIQA2),  # `id` repeats in the set itself
)
PAIRS = pair_task("logiqa2_pairs", "LogiQA2.0-pair", _LICENSE, "logiqa2", _HUB)
