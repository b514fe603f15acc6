"""HH-RLHF (Bai et al. 2022), test part: which of two replies people found helpful, or harmless."""

from __future__ import annotations

from codepmp_ray.config.data import HUB_IDS
from codepmp_ray.evaluation.tasks.base import HubSet
from codepmp_ray.evaluation.tasks.source_pairs import pair_task

_ID = HUB_IDS["hh_rlhf"]


def _part(name: str, title: str, folder: str):
    hub = HubSet(_ID, "test", folder, is_folder=True)
    return pair_task(name, title, "MIT", "hh_rlhf", hub)


HELPFUL = _part("hh_helpful", "HH-RLHF helpful", "helpful-base")
HARMLESS = _part("hh_harmless", "HH-RLHF harmless", "harmless-base")
