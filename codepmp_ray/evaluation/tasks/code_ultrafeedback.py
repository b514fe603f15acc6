"""CodeUltraFeedback_binarized (Weyssow et al. 2024), the set of Table 13: about 8,500 pairs."""

from __future__ import annotations

from codepmp_ray.config.data import HUB_IDS
from codepmp_ray.evaluation.tasks.base import HubSet
from codepmp_ray.evaluation.tasks.source_pairs import pair_task

PAIRS = pair_task(
    "code_ultrafeedback",
    "CodeUltraFeedback",
    "MIT",
    "code_ultrafeedback",
    HubSet(HUB_IDS["code_ultrafeedback"], "train"),
)
