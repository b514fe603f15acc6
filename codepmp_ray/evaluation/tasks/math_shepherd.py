"""MathShepherd (Wang et al. 2023b) as pairs, Table 1's MathShepherd-pair.

The set has one part, which finetuning reads too, and the paper does not say what it held out: name
a file of held-out rows, or hold questions out in finetuning (`eval_fraction`).
"""

from __future__ import annotations

from codepmp_ray.config.data import HUB_IDS
from codepmp_ray.evaluation.tasks.base import HubSet
from codepmp_ray.evaluation.tasks.source_pairs import pair_task

PAIRS = pair_task(
    "math_shepherd",
    "MathShepherd-pair",
    "MIT",
    "math_shepherd",
    HubSet(HUB_IDS["math_shepherd"], "train"),
)
