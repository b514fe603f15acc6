"""Trackers beside `metrics.jsonl`: each gets every row; one more is a class of two methods."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import textwrap
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from importlib import import_module
from typing import Any, Protocol

from codepmp_ray.errors import ConfigError
from codepmp_ray.redaction import redacted_values
from codepmp_ray.storage import LocalStore, Store
from codepmp_ray.storage.scratch import ScratchFolder
from codepmp_ray.training.growing_files import GrowingFolder

TENSORBOARD_FOLDER = "tensorboard"
_PROJECT = "codepmp-ray"
_FINISH_TIMEOUT_S = 60.0
Settings = dict[str, Any]  # JSON values


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

    def __init__(self, store: Store, resume_step: int, settings: Settings) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder = GrowingFolder(store, TENSORBOARD_FOLDER)
        # Steps after the checkpoint run again: TensorBoard drops what it has of them.
        self._writer = SummaryWriter(
            str(self._folder.path), purge_step=resume_step + 1 if resume_step else None
        )
        # Under the tag of transformers' callback. Indented text is shown as it is.
        text = json.dumps(settings, indent=2)
        self._writer.add_text("args", textwrap.indent(text, "    "), resume_step)

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

    The stage's folder keeps the run's id, and the files of an offline run (one folder for each
    attempt). Raises ConfigError when wandb cannot begin.
    """

    def __init__(self, store: Store, resume_step: int, settings: Settings) -> None:
        wandb: Any = import_module("wandb")  # an extra

        self._scratch: ScratchFolder | None = None
        if isinstance(store, LocalStore):
            folder = store.root
        elif os.environ.get("WANDB_MODE") in ("offline", "dryrun"):
            raise ConfigError(
                f"report_to: an offline run of wandb is files, and the stage lies in {store.uri}.",
                "Unset WANDB_MODE, use a local run_dir, or leave wandb out of report_to.",
            )
        else:
            self._scratch = ScratchFolder()
            folder = self._scratch.path
        try:
            # Steps that run again after a resume give the same numbers; wandb drops them.
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", _PROJECT),
                id=_kept_id(store, "wandb-id"),
                name=_run_name(store),
                resume="allow",
                config=settings,
                allow_val_change=True,  # an attempt may have more workers than the one before
                dir=str(folder),
                # Other ranks wait meanwhile; what is not sent by then is not waited for.
                settings=wandb.Settings(silent=True, finish_timeout=_FINISH_TIMEOUT_S),
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
        if self._scratch is not None:
            self._scratch.remove()


class Trackio:
    """A run of trackio: on this node, or where TRACKIO_SPACE_ID or TRACKIO_SERVER_URL say.

    All attempts of a stage are one run. Raises ConfigError when trackio cannot begin.
    """

    def __init__(self, store: Store, resume_step: int, settings: Settings) -> None:
        trackio: Any = import_module("trackio")  # an extra

        # It finds a run by its name alone, and other run directories may be called the same.
        name = f"{_run_name(store)} {_kept_id(store, 'trackio-id')[:8]}"
        try:
            with redirect_stdout(sys.stderr):  # it greets
                self._run = trackio.init(
                    project=os.environ.get("TRACKIO_PROJECT", _PROJECT),
                    name=name,
                    resume="allow",
                    config=settings,
                    embed=False,
                    auto_log_gpu=False,
                    auto_log_cpu=False,
                )
        except (ValueError, OSError) as error:  # of addresses, and of tokens
            raise ConfigError(
                f"report_to: trackio cannot begin: {error}",
                "Set what it names on every node, or leave trackio out of report_to; "
                "metrics.jsonl is always written.",
            ) from error

    def log(self, row: dict[str, Any]) -> None:
        self._run.log(dict(_tagged(row)), step=row["step"])

    def close(self) -> None:
        with redirect_stdout(sys.stderr):
            self._run.finish()


_TRACKERS: dict[str, Callable[[Store, int, Settings], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "trackio": Trackio,
}


def _kept_id(store: Store, name: str) -> str:
    """32 hex digits, which stay in the stage's folder as `name` for its later attempts."""
    store.put_exclusive(name, uuid.uuid4().hex.encode())
    return store.read_bytes(name).decode()


def _run_name(store: Store) -> str:
    """Run directory and stage."""
    return "/".join(store.uri.rstrip("/").split("/")[-2:])


def _tagged(row: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Numbers of a row under the tags that transformers' callbacks use."""
    for name, value in row.items():
        if name not in ("step", "total_steps") and isinstance(value, int | float):
            is_of_set, is_eval = name.startswith("eval/"), name.startswith("eval_")
            tag = f"eval/{name.removeprefix('eval_')}" if is_eval else f"train/{name}"
            yield name if is_of_set else tag, value


def require_trackers(names: Sequence[str]) -> None:
    """Raises ConfigError when a tracker's package is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"report_to: the package {name} is not installed.",
                f"Install it (pip install 'codepmp-ray[{name}]') on every node, or leave "
                f"{name} out of report_to; metrics.jsonl is always written.",
            )


def open_trackers(
    names: Sequence[str], store: Store, resume_step: int, settings: Settings
) -> list[Tracker]:
    """The trackers of one run, told its `settings` without credentials of URLs.

    Raises ConfigError for a missing package.
    """
    require_trackers(names)
    shown = redacted_values(settings)
    return [_TRACKERS[name](store, resume_step, shown) for name in names]
