"""Which object stores a run may lie in, and the client packages that talk to them.

A backend is listed when its client's `pipe_file(..., mode="create")` leaves the decision to the
server in one request, as read in its source: s3fs sends `If-None-Match: *`, gcsfs
`ifGenerationMatch=0`, adlfs `overwrite=False`. fsspec's own default looks first and writes then, so
whatever is not listed is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata

from codepmp_ray.errors import StorageError
from codepmp_ray.storage.uris import scheme_of


@dataclass(frozen=True)
class Backend:
    """A client package, the first version whose exclusive create is the server's, and our extra."""

    package: str
    min_version: tuple[int, ...]
    extra: str

    @property
    def requirement(self) -> str:
        return f"{self.package}>={'.'.join(map(str, self.min_version))}"


_S3 = Backend("s3fs", (2025, 2, 0), "s3")
_GCS = Backend("gcsfs", (2025, 2, 0), "gcs")
_AZURE = Backend("adlfs", (2024, 12, 0), "azure")
BACKENDS = {"s3": _S3, "s3a": _S3, "gs": _GCS, "gcs": _GCS, "abfs": _AZURE, "abfss": _AZURE}


def require_backend(uri: str) -> Backend:
    """The backend for `uri`. Raises StorageError for one that is not listed, missing or too old."""
    scheme = scheme_of(uri)
    backend = BACKENDS.get(scheme)
    if backend is None:
        raise StorageError(
            f"run_dir={uri!r}: exclusive creation of files is not known to work on {scheme}://.",
            f"Use a local or shared (NFS) folder, or one of {', '.join(BACKENDS)}.",
        )
    remedy = f"Install codepmp-ray[{backend.extra}], or {backend.requirement}, on every node."
    try:
        version = metadata.version(backend.package)
    except metadata.PackageNotFoundError as error:
        raise StorageError(f"{uri!r} needs the package {backend.package}.", remedy) from error
    if _numbers(version) < backend.min_version:
        raise StorageError(
            f"{uri!r}: {backend.package} {version} cannot create files exclusively.", remedy
        )
    return backend


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
