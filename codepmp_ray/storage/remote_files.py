"""What clients of object stores raise, in words that a person can act on; and a file object whose
failures are such StorageErrors, also through Arrow's readers.

The clients raise OSErrors, their libraries' own errors, or either with the other as its cause.
They are told apart by codes and names, so that none of the libraries has to be there. Readers of
files take an OSError for damage of the file; a store that does not answer is none.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from codepmp_ray.errors import CodePMPError, StorageError

_EXISTS = {"PreconditionFailed", "412", "BlobAlreadyExists"}
_CONFLICT = {"ConditionalRequestConflict", "OperationAborted", "409"}
_NO_BUCKET = {"NoSuchBucket", "ContainerNotFound"}
_NO_RIGHTS = {
    "403",
    "AccessDenied",
    "ClientAuthenticationError",
    "DefaultCredentialsError",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "NoCredentialsError",
    "PartialCredentialsError",
    "SignatureDoesNotMatch",
}


@contextmanager
def explained(verb: str, location: str) -> Iterator[None]:
    """Turn whatever a client raises into a StorageError about `location`."""
    try:
        yield
    except CodePMPError:
        raise
    except Exception as error:
        raise storage_error(verb, location, error) from error


def storage_error(verb: str, location: str, error: BaseException) -> StorageError:
    """What is wrong, and the way out."""
    marks = _marks(error)
    text = " ".join(str(error).split())[:300] or type(error).__name__
    problem = f"Cannot {verb} {location}: {text.rstrip('.')}."
    if marks & _NO_BUCKET or (verb == "write" and is_missing(error)):
        return StorageError(problem, "Create the bucket, or correct the URI.")
    if marks & _NO_RIGHTS or isinstance(error, PermissionError) or "Forbidden" in text:
        return StorageError(
            problem,
            "Check the credentials in the environment of the job and of every node, and that they "
            "may list, read, write and delete there.",
        )
    if is_missing(error):
        return StorageError(f"Cannot {verb} {location}: no such file.")
    return StorageError(
        problem, "Check that the store can be reached; the same command resumes where it stopped."
    )


def says_exists(error: BaseException) -> bool:
    """Whether an exclusive create was refused because the name is taken."""
    return isinstance(error, FileExistsError) or bool(_marks(error) & _EXISTS)


def is_conflict(error: BaseException) -> bool:
    """Whether the store asks to send the request again, because another one is under way."""
    return bool(_marks(error) & _CONFLICT)


def is_missing(error: BaseException) -> bool:
    return isinstance(error, FileNotFoundError)


def is_missing_bucket(error: BaseException) -> bool:
    return bool(_marks(error) & _NO_BUCKET)


def _marks(error: BaseException | None) -> set[str]:
    """Class names and error codes of `error` and its causes."""
    marks: set[str] = set()
    for _ in range(5):
        if error is None:
            break
        marks.add(type(error).__name__)
        response = getattr(error, "response", None)  # botocore
        if isinstance(response, dict):
            marks.add(str(response.get("Error", {}).get("Code")))
        # Of azure, aiohttp and gcsfs; aiohttp has a `code` too, and warns of it.
        for name in ("error_code", "status", "status_code", "code"):
            value = getattr(error, name, None)
            if isinstance(value, str | int):
                marks.add(str(getattr(value, "value", value)))
                break
        error = error.__cause__ or error.__context__
    return marks


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
