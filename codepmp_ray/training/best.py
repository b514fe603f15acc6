"""Which evaluated step is the best one; without torch, since drivers ask too."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from codepmp_ray.config.training import TrainingConfig


def best_step(config: TrainingConfig, rows: Iterable[dict[str, Any]]) -> int | None:
    """The evaluated step where `best_metric` is best, the earliest of equals; None without one.

    A function of what metrics.jsonl holds, so that a resumed run chooses as the uninterrupted one.
    """
    name = config.best_metric
    if name is None:
        return None
    greater = config.greater_is_better
    if greater is None:
        greater = not name.startswith("eval_loss")
    sign = 1.0 if greater else -1.0
    found = [
        (sign * row[name], -int(row["step"]))
        for row in rows
        if row["step"] > 0 and name in row and math.isfinite(row[name])
    ]
    return -max(found)[1] if found else None
