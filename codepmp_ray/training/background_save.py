"""Writing a checkpoint beside the steps that follow it: torch's stager copies the state, a thread
writes the copy.

On a GPU the copy goes to pinned memory, on a stream of its own, beside the next forward and
backward. On CPU it is made at once. Its memory is kept from one checkpoint to the next. The
metadata is a pickle: only folders that this trainer wrote are read.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint._fsspec_filesystem import FsspecReader, FsspecWriter
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_saver import save

from codepmp_ray.storage import is_uri

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
    """Writes one checkpoint at a time.

    Args:
        group: for the writing threads, which talk while the training talks over the default one.
        copies_beside: copy beside the steps too; by default on GPUs.
    """

    def __init__(self, group: dist.ProcessGroup, *, copies_beside: bool | None = None) -> None:
        self._group = group
        self._on_gpu = torch.cuda.is_available()
        self._copies_beside = self._on_gpu if copies_beside is None else copies_beside
        self._stager: DefaultStager | None = None

    def begin(
        self, state: dict[str, Any], location: str, then: Callable[[], None] = lambda: None
    ) -> BackgroundSave:
        """Begin to write `state` to the folder or URI `location`.

        It must not change before `release` has returned. `then` is called in the writing thread
        when every rank has written.
        """
        copied = self._copy(state)
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        written = thread.submit(self._write, copied, location, then)
        thread.shutdown(wait=False)
        return BackgroundSave(copied.result, written)

    def _write(self, copied: Future[Any], location: str, then: Callable[[], None]) -> None:
        state = copied.result()
        with _short_turns():
            save(state, storage_writer=checkpoint_writer(location), process_group=self._group)
        then()

    def _copy(self, state: dict[str, Any]) -> Future[Any]:
        if self._on_gpu:
            torch.cuda.synchronize()  # the copy's stream does not wait for an update in the queue
        # Made here: its stream has to be made after the training's.
        self._stager = self._stager or DefaultStager(
            StagingOptions(
                use_pinned_memory=self._on_gpu,
                use_shared_memory=False,
                use_async_staging=self._copies_beside,
                use_non_blocking_copy=self._on_gpu,
            )
        )
        copied = self._stager.stage(state)
        if isinstance(copied, Future):
            return copied
        done: Future[Any] = Future()
        done.set_result(copied)
        return done


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


def checkpoint_writer(location: str) -> FileSystemWriter:
    """Writes one file a rank to the folder or URI `location`."""
    if is_uri(location):
        # There is no file to be synchronised; torch would synchronise all disks of the node. And
        # listings are not kept: other processes write there too.
        return FsspecWriter(location, sync_files=False, use_listings_cache=False)
    return FileSystemWriter(location)


def checkpoint_reader(location: str) -> FileSystemReader:
    """What `torch.distributed.checkpoint.load` reads the folder or URI `location` with."""
    if is_uri(location):
        return FsspecReader(location, use_listings_cache=False)
    return FileSystemReader(location)
