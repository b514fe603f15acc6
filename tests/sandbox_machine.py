"""Which sandboxes this machine allows: faults of our own code are no reason to skip a test."""

import os
import shutil
import subprocess

import pytest


def machine_allows(name: str) -> bool:
    """Asks the tools themselves, none of our code."""
    if name == "bubblewrap":
        return shutil.which("bwrap") is not None
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    command = [
        "unshare",
        *user,
        "--mount",
        "--pid",
        "--net",
        "--fork",
        "mount",
        "--make-rprivate",
        "/",
    ]
    return (
        shutil.which("unshare") is not None
        and subprocess.run(command, capture_output=True, check=False).returncode == 0
    )


# The last one is what works in containers, where no fresh /proc may be mounted.
NAMES = ("bubblewrap", "namespaces", "namespaces without /proc")
MECHANISMS = [name for name in NAMES if machine_allows(name)]


def require_sandbox() -> None:
    """Skip where no sandbox can be had. Where one can, a sandbox that fails is a failure."""
    if not MECHANISMS:
        pytest.skip("neither bubblewrap nor namespaces can be had on this machine")
