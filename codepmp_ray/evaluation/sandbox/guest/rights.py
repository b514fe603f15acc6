"""Giving up rights for good: capabilities, user id, new privileges, system calls, resources."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from typing import Any

_SET_PDEATHSIG, _SET_DUMPABLE, _SET_SECCOMP = 1, 4, 22
_CAPBSET_DROP, _SET_NO_NEW_PRIVS = 24, 38
_CAPABILITY_VERSION_3 = 0x20080522
_SECCOMP_MODE_FILTER = 2
_MAX_CAPABILITIES = 64  # as many as the kernel's sets have bits
_libc = ctypes.CDLL(None, use_errno=True)


def _require(result: int, action: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{action} failed")


def _prctl(option: int, value: int) -> int:
    return _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0)


def set_traceable(allowed: bool) -> None:
    """Whether other processes of the same user may trace this one or open its /proc entries."""
    _require(_prctl(_SET_DUMPABLE, int(allowed)), "prctl(PR_SET_DUMPABLE)")


def drop_privileges(uid: int | None) -> None:
    """No capability now or after any exec; with `uid`, also a real user id that nobody else has.

    Raises OSError when one of the steps is refused.
    """
    # Refused without CAP_SETPCAP; the canary sees whether the set is empty in the end.
    for capability in range(_MAX_CAPABILITIES):
        _prctl(_CAPBSET_DROP, capability)
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    _require(_libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")
    _require(_prctl(_SET_NO_NEW_PRIVS, 1), "prctl(PR_SET_NO_NEW_PRIVS)")
    # Changing the user id had cleared it.
    _require(_prctl(_SET_PDEATHSIG, signal.SIGKILL), "prctl(PR_SET_PDEATHSIG)")


class _FilterProgram(ctypes.Structure):
    _fields_ = (("num_instructions", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def install_seccomp(program: bytes) -> None:
    """Install BPF instructions (8 bytes each) for this process and all that it starts."""
    filter_program = _FilterProgram(len(program) // 8, program)
    mode = ctypes.c_ulong(_SECCOMP_MODE_FILTER)
    _require(_libc.prctl(_SET_SECCOMP, mode, ctypes.byref(filter_program), 0, 0), "seccomp")


def limit_resources(limits: dict[str, Any]) -> None:
    """Limits of each process; the tester watches the sum of their memory."""
    cpu_s = int(limits["time_limit_s"]) + 1
    for kind, value in (
        (resource.RLIMIT_AS, limits["memory_mb"] << 20),
        (resource.RLIMIT_FSIZE, limits["max_file_mb"] << 20),
        (resource.RLIMIT_NPROC, limits["max_processes"] + 1),  # the tester counts too
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))
    # A write over the limit then raises OSError instead.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
