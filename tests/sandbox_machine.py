"""Which sandboxes this machine allows: faults of our own code are no reason to skip a test."""

import os
import shutil
import subprocess

import pytest


def machine_allows(name: str) -> bool:
    """Asks the tools themselves, none of our code."""
    if name == "bubblewrap":
        return shutil.which("bwrap") is not None
    is_root, as_other = os.geteuid() == 0, " without /proc" in name
    user = [] if is_root and not as_other else ["--user", "--map-root-user"]
    nobody = {"user": 65534, "group": 65534, "extra_groups": []} if is_root and as_other else {}
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
        and subprocess.run(command, capture_output=True, check=False, **nobody).returncode == 0
    )


# The last one is what works in containers, where no fresh /proc may be mounted.
NAMES = ("bubblewrap", "namespaces", "namespaces without /proc")
MECHANISMS = [name for name in NAMES if machine_allows(name)]


def require_sandbox() -> None:
    """Skip where no sandbox can be had. Where one can, a sandbox that fails is a failure."""
    if not MECHANISMS:
        pytest.skip("neither bubblewrap nor namespaces can be had on this machine")
