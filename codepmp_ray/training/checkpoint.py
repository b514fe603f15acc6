"""Sharded checkpoints that exist only when whole, and resume exactly.

    checkpoints/step-00000012.<attempt>/   torch.distributed.checkpoint shards
    checkpoints/step-00000012.json         marker, created exclusively once all ranks have written

Writing is asynchronous, beside the steps that follow (background_save.py), and so are the marker,
when every rank has written, and the removal of old checkpoints. A run that dies before resumes from
the checkpoint before. The newest stay, and the one that the caller protects.

Epoch order and learning rate are functions of the step, so the step number is the whole of the
trainer's own state. torch.distributed.checkpoint's metadata is a pickle: these folders are read
only from a run directory that this trainer wrote.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from codepmp_ray.errors import StorageError
from codepmp_ray.modeling.collectives import agree
from codepmp_ray.storage import Store
from codepmp_ray.training.background_save import (
    BackgroundSave,
    BackgroundSaver,
    checkpoint_reader,
    checkpoint_writer,
)
from codepmp_ray.training.checkpoint_folders import (
    FOLDER,
    delete_unmarked,
    folder_of,
    marker_name,
    whole_steps,
)

# Whose checkpoints these are: of the attempt that began last. Hidden from listings.
_ATTEMPT = f"{FOLDER}/.attempt"


class Checkpointer:
    """Saves and restores model, optimizer and step of one training stage. Methods are collective.

    A new one takes over what is there: older ones, in processes that were cut off, change nothing
    any more and raise StorageError. So does a new one of a command that another has overtaken, so
    that two commands do not take over from each other in turns.

    Args:
        keep: newest checkpoints that stay.
        command: orders the commands that train here, see TrainingTask.
        asynchronous: write beside the following steps, at most one checkpoint at a time.
        timeout_s: how long writing ranks wait for each other.
        protected: asked with the step of a new checkpoint; the step that has to stay as well.
    """

    def __init__(
        self,
        store: Store,
        keep: int,
        *,
        command: str = "",
        asynchronous: bool = True,
        timeout_s: float = 1800.0,
        protected: Callable[[int], int | None] = lambda step: None,
    ) -> None:
        self.store, self.keep, self._protected = store, keep, protected
        self._attempt = {"command": command, "attempt": agree(uuid.uuid4().hex)}
        overtaken = False
        if dist.get_rank() == 0:
            overtaken = command < self._last_attempt().get("command", "")
            if not overtaken:
                store.put(_ATTEMPT, json.dumps(self._attempt).encode())
        if agree(overtaken):
            raise self._taken_over()
        limit = timedelta(seconds=timeout_s)
        group = dist.new_group(timeout=limit, backend="gloo") if asynchronous else None
        self._saver = BackgroundSaver(group) if isinstance(group, dist.ProcessGroup) else None
        self._writing: tuple[str, BackgroundSave] | None = None

    def save(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        step: int,
        store: Store | None = None,
    ) -> None:
        """Begin a checkpoint after `step` finished steps; whole when `finish` has returned.

        Neither model nor optimizer may change before `wait_until_copied` has returned. `store` is
        another place than the stage's own, where checkpoints stay until they are removed. Raises
        StorageError, here or in `finish`, when it cannot be written.
        """
        self.finish()
        store = store or self.store
        name = f"step-{step:08d}.{agree(uuid.uuid4().hex[:12])}"
        folder = f"{FOLDER}/{name}"
        location = store.locate(folder)
        state = _state_of(model, optimizer)
        mark = partial(self._mark, step, store, folder, self._protected(step))
        if self._saver is not None:
            self._writing = location, self._saver.begin(state, location, then=mark)
            return
        with _explained(location):
            save(state, storage_writer=checkpoint_writer(location))
        mark()

    def wait_until_copied(self) -> None:
        """Wait until the state of the last `save` may change; call it before every update."""
        if self._writing is not None:
            self._writing[1].release()

    def poll(self, device: torch.device) -> None:
        """Raise StorageError if the checkpoint that is being written failed; does not wait for it.

        Ranks look at the same step: when all are through with it.
        """
        if self._writing is None:
            return
        is_done = torch.tensor(int(self._writing[1].written.done()), device=device)
        dist.all_reduce(is_done, op=dist.ReduceOp.MIN)
        if is_done.item():
            self.finish()

    def finish(self) -> None:
        """Wait until the checkpoint that is being written, if any, is whole on every rank.

        On rank 0 it has its marker then, and old ones are gone.
        """
        if self._writing is None:
            return
        (location, writing), self._writing = self._writing, None
        with _explained(location):
            writing.written.result()

    def _mark(self, step: int, store: Store, folder: str, protected: int | None) -> None:
        # Saving ends with a collective: when one rank has written, all have.
        if dist.get_rank() != 0:
            return
        self.require_no_other()
        marker = json.dumps({"step": step, "folder": folder.removeprefix(f"{FOLDER}/")}).encode()
        if not store.put_exclusive(marker_name(step), marker):
            store.delete_tree(folder)
        if store is self.store:
            self._remove_old(protected)

    def restore(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        step: int | None = None,
        other: Store | None = None,
        other_up_to: int = 0,
    ) -> int:
        """Load the newest whole checkpoint; returns its number of finished steps, 0 without one.

        Args:
            step: load the stage's own checkpoint of this step instead.
            other: a second place to look in, for checkpoints of at most `other_up_to` steps.

        Raises StorageError when it is damaged, or of a model of another shape.
        """
        found: tuple[int, str] | None = None
        if dist.get_rank() == 0:
            found = max(self._choices(step, other, other_up_to), default=None)
        found = agree(found)
        if found is None:
            return 0
        state = _state_of(model, optimizer)
        with _unreadable(found[1]):
            load(state, storage_reader=checkpoint_reader(found[1]))
        set_state_dict(
            model,
            optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
            options=_trained_state(model),
        )
        return found[0]

    def _choices(
        self, step: int | None, other: Store | None, other_up_to: int
    ) -> Iterator[tuple[int, str]]:
        """(step, location) of the checkpoints that `restore` may load."""
        for number in whole_steps(self.store):
            if step in (None, number):
                yield number, self.store.locate(folder_of(self.store, number))
        if other is not None:
            for number in whole_steps(other):
                if number <= other_up_to:
                    yield number, other.locate(folder_of(other, number))

    def remove_all(self) -> None:
        """Delete every checkpoint, once the exported model stands. Rank 0 only."""
        self.finish()
        self.require_no_other()
        self.store.delete_tree(FOLDER)

    def require_no_other(self) -> None:
        """Raise StorageError if another attempt has taken over.

        Ranks that were cut off go on for a while, where others read and write by now.
        """
        if self._last_attempt() != self._attempt:
            raise self._taken_over()

    def _last_attempt(self) -> dict[str, str]:
        return json.loads(self.store.read_bytes(_ATTEMPT)) if self.store.exists(_ATTEMPT) else {}

    def _taken_over(self) -> StorageError:
        return StorageError(
            f"A later attempt trains in {self.store.uri}; this one changes nothing there.",
            "Leave it to that one, which goes on from the last whole checkpoint, or end it first. "
            f"If none runs, two hosts' clocks differ: delete {self.store.locate(_ATTEMPT)}.",
        )

    def _remove_old(self, protected: int | None) -> None:
        """Keep the newest `keep`; markers go before folders, so that none points at nothing."""
        steps = whole_steps(self.store)
        for step in steps[: -self.keep]:
            if step != protected:
                self.store.delete(marker_name(step))
        delete_unmarked(self.store)


def _trained_state(model: torch.nn.Module) -> StateDictOptions:
    """What is frozen has the values that it was read with, and lies in no checkpoint."""
    is_whole = all(parameter.requires_grad for parameter in model.parameters())
    return StateDictOptions(ignore_frozen_params=True, strict=is_whole)


def _state_of(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    model_state, optimizer_state = get_state_dict(model, optimizer, options=_trained_state(model))
    return {"model": model_state, "optimizer": optimizer_state}


@contextmanager
def _explained(location: str) -> Iterator[None]:
    """What torch says of a checkpoint that cannot be written, with a remedy."""
    try:
        yield
    except (OSError, CheckpointException) as error:
        raise StorageError(
            f"Cannot write the checkpoint {location}: {_cause(error)}",
            "Make room or the store reachable and run the same command; training resumes from the "
            "last one.",
        ) from error


@contextmanager
def _unreadable(location: str) -> Iterator[None]:
    """What torch says of a checkpoint that cannot be loaded, with a remedy."""
    try:
        yield
    except (OSError, CheckpointException) as error:
        cause = _cause(error)
        is_its_own = any(words in cause for words in _NOT_THE_STORES)
        raise StorageError(
            f"Cannot load the checkpoint {location}: {cause}",
            "It is damaged, or of another model: set another run_dir, or delete its marker (the "
            ".json beside the folder) to do without it."
            if is_its_own
            else "Make the store reachable and run the same command.",
        ) from error


# What torch says of a checkpoint whose files could be read.
_NOT_THE_STORES = ("Size mismatch", "Missing key", "PytorchStreamReader", "pickle", "Unpickling")
_NOT_THE_STORES += ("EOFError",)


def _cause(error: BaseException) -> str:
    """What failed, and on which rank; CheckpointException's own text begins with ranks only."""
    if not isinstance(error, CheckpointException) or not error.failures:
        return str(error).splitlines()[0]
    rank, (failure, _) = min(error.failures.items(), key=lambda item: item[0])
    return f"{str(failure) or type(failure).__name__} (rank {rank})"
