"""Trackers beside `metrics.jsonl`: each gets every row; one more is a class of two methods."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any, Protocol

from codepmp_ray.errors import ConfigError
from codepmp_ray.storage import Store
from codepmp_ray.training.growing_files import GrowingFolder

TENSORBOARD_FOLDER = "tensorboard"
_PACKAGES = {"tensorboard": "tensorboard"}


class Tracker(Protocol):
    """Where metrics of a run go while it runs."""

    def log(self, row: dict[str, Any]) -> None:
        """Take the metrics of one step or evaluation; `row["step"]` counts finished steps."""
        ...

    def close(self) -> None:
        """Nothing more comes."""
        ...


class TensorBoard:
    """Event files in the stage's folder, under the tags that transformers' callback uses."""

    def __init__(self, store: Store, resume_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder = GrowingFolder(store, TENSORBOARD_FOLDER)
        # Steps after the checkpoint run again: TensorBoard drops what it has of them.
        self._writer = SummaryWriter(
            str(self._folder.path), purge_step=resume_step + 1 if resume_step else None
        )

    def log(self, row: dict[str, Any]) -> None:
        for name, value in row.items():
            if name not in ("step", "total_steps") and isinstance(value, int | float):
                is_eval = name.startswith("eval_")
                tag = f"eval/{name.removeprefix('eval_')}" if is_eval else f"train/{name}"
                self._writer.add_scalar(tag, value, row["step"])
        self._writer.flush()
        self._folder.show()

    def close(self) -> None:
        self._writer.close()
        self._folder.close()


def require_trackers(names: Sequence[str]) -> None:
    """Raises ConfigError when a tracker's package is not installed."""
    for name in names:
        if importlib.util.find_spec(_PACKAGES[name]) is None:
            raise ConfigError(
                f"report_to: the package {_PACKAGES[name]} is not installed.",
                f"Install it (pip install 'codepmp-ray[{name}]') on every node, or leave "
                f"{name} out of report_to; metrics.jsonl is always written.",
            )


def open_trackers(names: Sequence[str], store: Store, resume_step: int) -> list[Tracker]:
    """The trackers of one run. Raises ConfigError when a package is missing."""
    require_trackers(names)
    return [TensorBoard(store, resume_step) for _ in names]
