"""The second wall: a system call filter, made here with libseccomp, installed by the guest."""

from __future__ import annotations

import errno
import tempfile
from functools import cache

# What no answer to a programming task needs and what kernel bugs were found in. Pairs of
# connected sockets stay allowed: the guest and event loops use them.
DENIED = (
    *("socket", "connect", "bind", "listen", "accept", "accept4"),
    *("ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp"),
    *("unshare", "setns", "mount", "umount2", "pivot_root", "chroot", "mount_setattr", "fsopen"),
    *("open_tree", "move_mount", "fsmount", "fsconfig", "fspick", "open_by_handle_at"),
    *("bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "keyctl", "add_key"),
    *("request_key", "memfd_create", "memfd_secret", "shmget", "msgget", "semget", "mq_open"),
    *("init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load"),
    *("reboot", "swapon", "swapoff", "quotactl", "acct", "settimeofday", "clock_settime"),
    *("personality", "modify_ldt", "vmsplice", "name_to_handle_at", "fanotify_init"),
)

_CLONE_NEWUSER = 0x10000000


@cache
def filter_program() -> bytes | None:
    """BPF instructions that refuse `DENIED` with EPERM, or None where libseccomp is missing."""
    try:
        import pyseccomp
    except (ImportError, OSError, RuntimeError):  # the package, or the library that it loads
        return None
    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    for name in DENIED:
        try:
            rules.add_rule(pyseccomp.ERRNO(errno.EPERM), name)
        except (OSError, ValueError, RuntimeError):
            continue  # a name that this libseccomp or architecture does not know
    new_user = pyseccomp.Arg(0, pyseccomp.MASKED_EQ, _CLONE_NEWUSER, _CLONE_NEWUSER)
    rules.add_rule(pyseccomp.ERRNO(errno.EPERM), "clone", new_user)
    # Its flags lie in memory, out of a filter's sight; the C library then falls back to clone.
    rules.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "clone3")
    with tempfile.TemporaryFile() as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()
