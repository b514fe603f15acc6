"""What jobs and ledgers ask of a run directory, wherever it lies.

`put_exclusive` succeeds for one caller only, however many race, and no reader ever sees half a
file. Everything else is plain: whole files written and read, names listed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:  # imported where tables are: checkpoints need none
    import pyarrow as pa
    from pyarrow.fs import FileSystem

# For a file of a run directory that is not what was written.
DAMAGE_REMEDY = (
    "codepmp verify says what else is damaged, and with --repair takes it back; then the stage's "
    "own command makes it anew."
)
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class FileFacts:
    """Of one file. `version` is another one when the file has been written again."""

    num_bytes: int
    version: str


class Store(ABC):
    """Files below one folder. Names are relative to it, with "/" between parts.

    Attributes:
        num_parallel: how many operations are worth having under way at once.
        poll_s: seconds between two looks at a file that may have come or changed.
    """

    num_parallel: int
    poll_s: float

    @property
    @abstractmethod
    def uri(self) -> str:
        """The folder as `open_store` takes it, on any machine of the cluster."""

    @abstractmethod
    def locate(self, name: str) -> str:
        """Path or URI of `name`, for people and for `open_store`."""

    @abstractmethod
    def sub(self, folder: str) -> Store:
        """The store of a folder below this one."""

    @abstractmethod
    def exists(self, name: str) -> bool: ...

    @abstractmethod
    def list(self, folder: str) -> list[str]:
        """Names (not paths) of the entries of `folder`, sorted, without hidden scratch files."""

    @abstractmethod
    def files(self, folder: str) -> dict[str, FileFacts]:
        """The files (not the folders) that `list` names, with what tells their versions apart."""

    @abstractmethod
    def read_bytes(self, name: str) -> bytes: ...

    @abstractmethod
    def download(self, name: str, path: Path) -> None:
        """Write the bytes of `name` to the local file `path`, which must not exist."""

    @abstractmethod
    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """The Parquet file at `name`; only `columns` are fetched when they are given."""

    @abstractmethod
    def read_table_metadata(self, name: str) -> dict[bytes, bytes]:
        """Key-value metadata of the Parquet file at `name`; only its footer is read."""

    @abstractmethod
    def put(self, name: str, data: bytes | memoryview) -> None:
        """Write `data` at `name`, replacing what was there, atomically."""

    @abstractmethod
    def scratch_folder(self) -> AbstractContextManager[Path]:
        """A folder on this machine for files that `take` moves here; gone at the end."""

    @abstractmethod
    def take(self, name: str, path: Path) -> None:
        """Move the local file `path` to `name`, replacing what was there, atomically."""

    @abstractmethod
    def put_exclusive(self, name: str, data: bytes) -> bool:
        """Create `name` with `data`; False, and nothing changes, if it was there already.

        Who acts on the answer makes `data` its own (an attempt id): a store whose reply was lost
        recognises its own write by it.
        """

    @abstractmethod
    def delete(self, name: str) -> None:
        """Delete the file `name` if it is there."""

    @abstractmethod
    def delete_tree(self, folder: str) -> None:
        """Delete everything below `folder`, if it is there; "" is the whole store."""

    @abstractmethod
    def lock(self, name: str) -> AbstractContextManager[None]:
        """Hold the lock `name`. Raises StorageError when someone else has it."""

    @abstractmethod
    def arrow(self) -> tuple[str, FileSystem]:
        """This folder for libraries that take Arrow's file systems: path, file system."""

    @abstractmethod
    def require_ready(self) -> None:
        """Raise StorageError when nothing can be written here, or not exclusively."""

    def put_table(self, name: str, table: pa.Table) -> None:
        """Write `table` as Parquet at `name`, atomically."""
        self.put(name, parquet_bytes(table))

    def each(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """`function` of every item, in order; several at once where a reply takes its time."""
        return map_in_parallel(function, items, self.num_parallel)


def parquet_bytes(table: pa.Table) -> bytes:
    """`table` as a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def map_in_parallel(
    function: Callable[[T], R], items: Iterable[T], num_parallel: int
) -> Iterator[R]:
    """`map` with threads, holding no more than a few results that nobody asked for yet."""
    if num_parallel == 1:
        yield from map(function, items)
        return
    waiting: list[Any] = []
    pool = ThreadPoolExecutor(num_parallel)
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * num_parallel:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
