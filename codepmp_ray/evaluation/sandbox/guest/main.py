"""Entry point inside the sandbox: give up rights, fork the worker, only then read the test."""

from __future__ import annotations

import base64
import json
import os
import socket
import sys
from typing import NoReturn

from .rights import drop_privileges, install_seccomp, set_traceable
from .tester import WorkerHandle, run_test
from .wire import read_frame
from .worker import run_worker

_PACKAGES = "/opt/packages"  # what `evaluation.sandbox.packages` names


def main() -> NoReturn:
    """Reads two messages from standard input (limits, job), writes the verdict to the output."""
    header = read_frame(0)
    limits = header["limits"]
    if hasattr(sys, "set_int_max_str_digits"):
        sys.set_int_max_str_digits(0)
    # What started this package is nothing for the answer to import or inherit.
    sys.path.remove("/opt")
    if os.path.isdir(_PACKAGES):
        sys.path.append(_PACKAGES)
    os.environ.pop("LD_LIBRARY_PATH", None)
    drop_privileges(header["uid"])
    mine, theirs = socket.socketpair()
    output_read, output_write = os.pipe()
    if header["seccomp"]:
        install_seccomp(base64.b64decode(header["seccomp"]))
    pid = os.fork()
    if pid == 0:
        try:
            run_worker(theirs, output_write, limits)
        finally:
            os._exit(1)
    theirs.close()
    os.close(output_write)
    set_traceable(False)
    verdict = run_test(WorkerHandle(mine, output_read, pid, limits), read_frame(0))
    sys.stdout.write(json.dumps(verdict))
    sys.stdout.flush()
    os._exit(0)
