"""Trackers beside `metrics.jsonl`: each gets every row; one more is a class of two methods."""

from __future__ import annotations

import hashlib
import importlib.util
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from codepmp_ray.errors import ConfigError
from codepmp_ray.storage import LocalStore, Store
from codepmp_ray.training.growing_files import GrowingFolder

TENSORBOARD_FOLDER = "tensorboard"
WANDB_PROJECT = "codepmp-ray"  # unless WANDB_PROJECT names another


class Tracker(Protocol):
    """Where metrics of a run go while it runs."""

    def log(self, row: dict[str, Any]) -> None:
        """Take the metrics of one step or evaluation; `row["step"]` counts finished steps."""
        ...

    def close(self) -> None:
        """Nothing more comes."""
        ...


class TensorBoard:
    """Event files in the stage's folder."""

    def __init__(self, store: Store, resume_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder = GrowingFolder(store, TENSORBOARD_FOLDER)
        # Steps after the checkpoint run again: TensorBoard drops what it has of them.
        self._writer = SummaryWriter(
            str(self._folder.path), purge_step=resume_step + 1 if resume_step else None
        )

    def log(self, row: dict[str, Any]) -> None:
        for tag, value in _tagged(row):
            self._writer.add_scalar(tag, value, row["step"])
        self._writer.flush()
        self._folder.show()

    def close(self) -> None:
        self._writer.close()
        self._folder.close()


class WeightsAndBiases:
    """A run at wandb.ai, or where WANDB_MODE and WANDB_BASE_URL say; one for all attempts.

    Offline files lie in the stage's folder, or, if that is in an object store, in a temporary one.
    """

    def __init__(self, store: Store, resume_step: int) -> None:
        import wandb

        is_local = isinstance(store, LocalStore)
        folder = str(store.path("")) if is_local else tempfile.mkdtemp(prefix="codepmp-wandb-")
        try:
            # Steps that run again after a resume give the same numbers; wandb drops them.
            self._run = wandb.init(
                project=wandb.env.get_project() or WANDB_PROJECT,
                id=hashlib.sha256(store.uri.encode()).hexdigest()[:16],
                name="/".join(store.uri.rstrip("/").split("/")[-2:]),
                resume="allow",
                dir=folder,
                settings=wandb.Settings(silent=True),
            )
        except wandb.Error as error:
            raise ConfigError(
                f"report_to: wandb cannot begin: {error}",
                "Set WANDB_API_KEY on every node, or WANDB_MODE=offline, or leave wandb out of "
                "report_to; metrics.jsonl is always written.",
            ) from error

    def log(self, row: dict[str, Any]) -> None:
        self._run.log(dict(_tagged(row)), step=row["step"])

    def close(self) -> None:
        self._run.finish()


_TRACKERS: dict[str, Callable[[Store, int], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
}


def _tagged(row: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Numbers of a row under the tags that transformers' callbacks use."""
    for name, value in row.items():
        if name not in ("step", "total_steps") and isinstance(value, int | float):
            is_eval = name.startswith("eval_")
            yield f"eval/{name.removeprefix('eval_')}" if is_eval else f"train/{name}", value


def require_trackers(names: Sequence[str]) -> None:
    """Raises ConfigError when a tracker's package is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"report_to: the package {name} is not installed.",
                f"Install it (pip install 'codepmp-ray[{name}]') on every node, or leave "
                f"{name} out of report_to; metrics.jsonl is always written.",
            )


def open_trackers(names: Sequence[str], store: Store, resume_step: int) -> list[Tracker]:
    """The trackers of one run. Raises ConfigError when a package is missing."""
    require_trackers(names)
    return [_TRACKERS[name](store, resume_step) for name in names]
