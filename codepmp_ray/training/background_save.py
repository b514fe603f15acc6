"""Writing a checkpoint beside the steps that follow it, which forward and backward only read.

On a GPU the state is copied to pinned memory first, on a stream of its own, and written from there.
On CPU it lives where the disk can take it from, so nothing is copied that does not have to be: the
next forward and backward take longer than the writing as a rule, and when the update comes first,
what is not on its way to the disk yet is copied then (a checkpoint costs no memory otherwise).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.metadata import MetadataIndex
from torch.distributed.checkpoint.planner import SavePlan, WriteItem, WriteItemType
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.checkpoint.storage import WriteResult

from codepmp_ray.storage import is_uri
from codepmp_ray.training.checkpoint_files import CheckpointWriter
from codepmp_ray.training.handover import Handover
from codepmp_ray.training.repeated_checkpoint import RepeatedCheckpoint, repeated

_TURN_S = 1e-4


@dataclass(frozen=True)
class BackgroundSave:
    """A checkpoint that this rank is writing.

    Attributes:
        release: returns once the state may change; quick when it may already.
        written: done when every rank has written and `then` has run, or failed.
    """

    release: Callable[[], object]
    written: Future[Any]


class BackgroundSaver:
    """Writes one checkpoint at a time. Keeps the memory of copies from one to the next: making
    their pages anew costs the steps beside it more than anything else.

    Args:
        group: for the writing threads, which talk while the training talks over the default one.
        copies_first: copy the whole state before anything is written; by default on GPUs.
    """

    def __init__(self, group: dist.ProcessGroup, *, copies_first: bool | None = None) -> None:
        self._group = group
        self._copies_first = torch.cuda.is_available() if copies_first is None else copies_first
        self._stager: DefaultStager | None = None
        self._copies: dict[MetadataIndex, torch.Tensor] = {}
        self._state: dict[str, Any] | None = None
        self._places: dict[MetadataIndex, torch.Tensor] = {}  # of the tensors of `_state`
        self._known: RepeatedCheckpoint | None = None  # of `_state`, when it was saved once

    def begin(
        self, state: dict[str, Any], location: str, then: Callable[[], None] = lambda: None
    ) -> BackgroundSave:
        """Begin to write `state` to the folder or URI `location`.

        It must not change before `release` has returned. The same object as last time has to have
        its tensors in the same places, as LiveState sees to.
        `then` is called in the writing thread when every rank has written.
        """
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        if self._copies_first:
            copied = self._copy(state)
            written = thread.submit(
                lambda: self._write(copied.result(), location, None, lambda: None, then)
            )
            release = copied.result
        elif (known := self._known_everywhere(state)) is not None:
            known.file.start()
            written = thread.submit(self._write_again, known, location, then)
            release = known.file.release
        else:
            planner = LiveSavePlanner(self._copies, self._places)
            written = thread.submit(self._write, state, location, planner, planner.close, then)
            release = planner.release
        thread.shutdown(wait=False)
        return BackgroundSave(release, written)

    def _write(
        self,
        state: dict[str, Any],
        location: str,
        planner: DefaultSavePlanner | None,
        when_read: Callable[[], None],
        then: Callable[[], None],
    ) -> None:
        try:
            with _short_turns():
                writer = CheckpointWriter(location, when_read)
                save(state, storage_writer=writer, planner=planner, process_group=self._group)
                if isinstance(planner, LiveSavePlanner) and not is_uri(location):
                    self._known = planner.repeated(Path(location), state, writer.results)
                    self._copies = {} if self._known is not None else self._copies
        finally:
            when_read()  # at last, if it failed before
        then()

    def _write_again(
        self, known: RepeatedCheckpoint, location: str, then: Callable[[], None]
    ) -> None:
        try:
            with _short_turns():
                known.write(Path(location), self._group)
        finally:
            known.file.close()
        then()

    def _known_everywhere(self, state: dict[str, Any]) -> RepeatedCheckpoint | None:
        """The checkpoint of `state` to write again, if every rank has its part of it."""
        if state is not self._state:
            self._state, self._places, self._known = state, {}, None
        known = self._known if self._known is not None and self._known.takes(state) else None
        are_known = torch.tensor(int(known is not None))
        dist.all_reduce(are_known, op=dist.ReduceOp.MIN, group=self._group)
        return known if are_known.item() else None

    def _copy(self, state: dict[str, Any]) -> Future[Any]:
        """`state` in memory of its own; that of a GPU in pinned memory, on a stream of its own."""
        on_gpu = torch.cuda.is_available()
        if on_gpu:
            torch.cuda.synchronize()  # that stream does not wait for an update that is queued
        self._stager = self._stager or DefaultStager(
            StagingOptions(
                use_pinned_memory=on_gpu,
                use_shared_memory=False,
                use_async_staging=True,
                use_non_blocking_copy=on_gpu,
            )
        )
        copied = self._stager.stage(state)
        assert isinstance(copied, Future)
        return copied


@contextmanager
def _short_turns() -> Iterator[None]:
    """Both threads run Python, where a step's gets its turn back after each operation only when the
    other's is over: 5 ms, which is longer than most operations take.
    """
    turn_s = sys.getswitchinterval()
    sys.setswitchinterval(_TURN_S)
    try:
        yield
    finally:
        sys.setswitchinterval(turn_s)


class LiveSavePlanner(DefaultSavePlanner):
    """Gives the writer each tensor where it lives, or its copy if an update came first.

    Args:
        buffers: copies of earlier checkpoints, to be written over; this one's are added.
        places: where tensors of this state were found before; those that are not there are added.
            Looking for one takes 30 us of Python, beside a step that wants to run Python too.
    """

    def __init__(
        self,
        buffers: dict[MetadataIndex, torch.Tensor],
        places: dict[MetadataIndex, torch.Tensor],
    ) -> None:
        super().__init__(enable_plan_caching=True)
        self._buffers, self._places = buffers, places
        self._items: dict[MetadataIndex, WriteItem] = {}  # in the order of the file
        self._handover = Handover(self._copy)
        self.release, self.close = self._handover.release, self._handover.close

    def finish_plan(self, new_plan: SavePlan) -> SavePlan:
        plan = super().finish_plan(new_plan)
        self._items = {item.index: item for item in plan.items}
        tensors = [item.index for item in plan.items if item.type != WriteItemType.BYTE_IO]
        self._handover.begin(tensors)
        return plan

    def resolve_data(self, write_item: WriteItem) -> Any:
        """The writer's next tensor; it asks when it is through with the one before."""
        if self._handover.take(write_item.index):
            return self._buffers[write_item.index]
        if write_item.type == WriteItemType.BYTE_IO:
            return super().resolve_data(write_item)
        return self._place(write_item)

    def _copy(self, index: MetadataIndex) -> None:
        tensor = self._place(self._items[index])
        buffer = self._buffers.get(index)
        if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
            buffer = self._buffers[index] = torch.empty_like(tensor)
        buffer.copy_(tensor)

    def _place(self, item: WriteItem) -> torch.Tensor:
        found = self._places.get(item.index)
        if found is None:
            found = cast(torch.Tensor, super().resolve_data(item)).detach()
            self._places[item.index] = found
        return found

    def repeated(
        self, folder: Path, state: dict[str, Any], results: list[WriteResult]
    ) -> RepeatedCheckpoint | None:
        """This checkpoint, just written to `folder`, to be written again, if that can be done."""
        written = list(zip(self._items.values(), results, strict=True))
        return repeated(folder, state, written, self.mappings, self._place)
