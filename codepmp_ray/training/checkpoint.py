"""Sharded checkpoints that exist only when whole, and resume exactly.

    checkpoints/step-00000012.<attempt>/   torch.distributed.checkpoint shards
    checkpoints/step-00000012.json         marker, created exclusively once all ranks have written

Writing is asynchronous: a step waits until its state is copied to CPU memory, the rest happens
beside the steps that follow. The marker comes when every rank has written; a run that dies before
resumes from the checkpoint before.

Epoch order and learning rate are functions of the step, so the step number is the whole of the
trainer's own state. torch.distributed.checkpoint's metadata is a pickle: these folders are read
only from a run directory that this trainer wrote.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save, save

from codepmp_ray.errors import StorageError
from codepmp_ray.storage import LocalStore

_FOLDER = "checkpoints"


@dataclass(frozen=True)
class _Writing:
    """A checkpoint that this rank is writing."""

    step: int
    folder: Path
    future: Future[Any]


class Checkpointer:
    """Saves and restores model, optimizer and step of one training stage. Methods are collective.

    Args:
        keep: newest checkpoints that stay.
        asynchronous: write beside the following steps, at most one checkpoint at a time.
    """

    def __init__(self, store: LocalStore, keep: int, *, asynchronous: bool = True) -> None:
        self.store, self.keep = store, keep
        # Its own group: the writing threads talk while the training talks over the default one.
        group = dist.new_group(backend="gloo") if asynchronous else None
        self._group = group if isinstance(group, dist.ProcessGroup) else None
        self._writing: _Writing | None = None

    def save(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Begin a checkpoint after `step` finished steps; whole when `finish` has returned.

        Raises StorageError, here or in `finish`, when it cannot be written.
        """
        self.finish()
        name = f"step-{step:08d}.{_agree(uuid.uuid4().hex[:12])}"
        folder = self.store.path(f"{_FOLDER}/{name}")
        model_state, optimizer_state = get_state_dict(model, optimizer)
        state = {"model": model_state, "optimizer": optimizer_state}
        if self._group is None:
            with _explained(folder):
                save(state, checkpoint_id=str(folder))
            self._mark(step, folder)
            return
        future = async_save(state, checkpoint_id=str(folder), process_group=self._group)
        assert isinstance(future, Future)
        self._writing = _Writing(step, folder, future)

    def poll(self, device: torch.device) -> None:
        """Mark the checkpoint that is being written if every rank has; does not wait."""
        if self._writing is None:
            return
        is_done = torch.tensor(int(self._writing.future.done()), device=device)
        dist.all_reduce(is_done, op=dist.ReduceOp.MIN)
        if is_done.item():
            self.finish()

    def finish(self) -> None:
        """Wait until the checkpoint that is being written, if any, is whole."""
        if self._writing is None:
            return
        writing, self._writing = self._writing, None
        with _explained(writing.folder):
            writing.future.result()
        self._mark(writing.step, writing.folder)

    def _mark(self, step: int, folder: Path) -> None:
        # Saving ends with a collective: when one rank has written, all have.
        if dist.get_rank() == 0:
            marker = json.dumps({"step": step, "folder": folder.name}).encode()
            self.store.put_exclusive(f"{_FOLDER}/step-{step:08d}.json", marker)
            self._remove_old()

    def restore(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Load the newest whole checkpoint; returns its number of finished steps, 0 without one."""
        newest = _agree(self._newest())
        if newest is None:
            return 0
        folder = self.store.path(f"{_FOLDER}/{newest['folder']}")
        model_state, optimizer_state = get_state_dict(model, optimizer)
        state = {"model": model_state, "optimizer": optimizer_state}
        load(state, checkpoint_id=str(folder))
        set_state_dict(
            model,
            optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
        )
        return int(newest["step"])

    def remove_all(self) -> None:
        """Delete every checkpoint, once the exported model stands. Rank 0 only."""
        shutil.rmtree(self.store.path(_FOLDER), ignore_errors=True)

    def _markers(self) -> list[dict[str, Any]]:
        names = [name for name in self.store.list(_FOLDER) if name.endswith(".json")]
        return [json.loads(self.store.read_bytes(f"{_FOLDER}/{name}")) for name in sorted(names)]

    def _newest(self) -> dict[str, Any] | None:
        markers = self._markers()
        return markers[-1] if markers else None

    def _remove_old(self) -> None:
        """Keep the newest `keep`; markers go before folders, so that none points at nothing."""
        markers = self._markers()
        for marker in markers[: -self.keep]:
            self.store.delete(f"{_FOLDER}/step-{marker['step']:08d}.json")
        kept = {marker["folder"] for marker in markers[-self.keep :]}
        for name in self.store.list(_FOLDER):
            folder: Path = self.store.path(f"{_FOLDER}/{name}")
            if folder.is_dir() and name not in kept:
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """What torch says of a checkpoint that cannot be written, in one line."""
    try:
        yield
    except (OSError, CheckpointException) as error:
        raise StorageError(
            f"Cannot write the checkpoint {folder}: {str(error).splitlines()[0]}",
            "Free disk space and run the same command; training resumes from the last one.",
        ) from error


def _agree(value: Any) -> Any:
    """Rank 0's value, on every rank."""
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]
