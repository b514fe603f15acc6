"""A file object of fsspec whose failures are StorageErrors, also through Arrow's readers.

Readers of files take an OSError for damage of the file. A store that does not answer is none.
"""

from __future__ import annotations

import io
from typing import Any

from codepmp_ray.storage.remote_errors import explained


class CheckedFile(io.RawIOBase):
    """A readable, seekable file. Closing it closes the file that it was made from."""

    def __init__(self, file: Any, location: str) -> None:
        self._file, self.name = file, location

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        with explained("read", self.name):
            return self._file.read(size)

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: Any, /) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def size(self) -> int:
        return self._file.size

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
