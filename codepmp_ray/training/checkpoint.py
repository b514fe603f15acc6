"""Sharded checkpoints that exist only when whole, and resume exactly.

    checkpoints/step-00000012.<attempt>/   torch.distributed.checkpoint shards
    checkpoints/step-00000012.json         marker, created exclusively once all ranks have written

Epoch order and learning rate are functions of the step, so the step number is the whole of the
trainer's own state. torch.distributed.checkpoint's metadata is a pickle: these folders are read
only from a run directory that this trainer wrote.
"""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from codepmp_ray.errors import StorageError
from codepmp_ray.storage import LocalStore

_FOLDER = "checkpoints"


class Checkpointer:
    """Saves and restores model, optimizer and step of one training stage."""

    def __init__(self, store: LocalStore, keep: int) -> None:
        self.store, self.keep = store, keep

    def save(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Write a checkpoint after `step` finished steps. Collective; returns when it is whole."""
        attempt = _agree(uuid.uuid4().hex[:12])
        name = f"step-{step:08d}.{attempt}"
        folder = self.store.path(f"{_FOLDER}/{name}")
        model_state, optimizer_state = get_state_dict(model, optimizer)
        try:
            save({"model": model_state, "optimizer": optimizer_state}, checkpoint_id=str(folder))
        except (OSError, CheckpointException) as error:
            raise StorageError(
                f"Cannot write the checkpoint {folder}: {str(error).splitlines()[0]}",
                "Free disk space and run the same command; training resumes from the last one.",
            ) from error
        if dist.get_rank() == 0:
            marker = json.dumps({"step": step, "folder": name}).encode()
            self.store.put_exclusive(f"{_FOLDER}/step-{step:08d}.json", marker)
            self._remove_old()
        dist.barrier()

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


def _agree(value: Any) -> Any:
    """Rank 0's value, on every rank."""
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]
