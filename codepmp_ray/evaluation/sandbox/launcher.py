"""Process 1 of fresh namespaces made by unshare(1): builds the file system, then runs the guest.

Standard library only; runs with the base interpreter. The new root is a read-only tmpfs with
read-only bind mounts of the interpreter, the system libraries and the guest's own folder, a small
writable /tmp, four device nodes and, where one may be mounted, the namespace's own /proc. The old
root is unmounted, so nothing else can be named.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys

_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC = 2, 4, 8, 4096, 16384
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4
_AT_FDCWD, _AT_RECURSIVE, _MNT_DETACH = -100, 0x8000, 2
_SYS_MOUNT_SETATTR = 442  # the same number on every architecture; Linux 5.12
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result, action):
    if result != 0:
        error = ctypes.get_errno()
        sys.exit(f"{action}: {os.strerror(error)}")


def mount(source, target, kind, flags, options=""):
    result = _libc.mount(
        source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode()
    )
    _check(result, f"mount {target}")


def pivot_root(new, old):
    _check(_libc.pivot_root(new.encode(), old.encode()), f"pivot_root {new}")


def restrict(path, attributes, recursive=True):
    """Set mount flags, for submounts too, without touching those that are locked already."""
    values = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)
    result = _libc.syscall(
        ctypes.c_long(_SYS_MOUNT_SETATTR),
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(path.encode()),
        ctypes.c_uint(_AT_RECURSIVE if recursive else 0),
        ctypes.byref(values),
        ctypes.c_size_t(ctypes.sizeof(values)),
    )
    _check(result, f"mount_setattr {path} (Linux 5.12 or later)")


def bind(path, name, attributes):
    """Show the host's `path` as `name`."""
    source, target = "/old" + path, "/new" + name
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        open(target, "w").close()
    mount(source, target, "", _MS_BIND | _MS_REC)
    restrict(target, attributes)


def build_root(plan):
    mount("tmpfs", "/tmp", "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755")
    os.mkdir("/tmp/old")
    os.mkdir("/tmp/new")
    os.chdir("/tmp")
    pivot_root("/tmp", "/tmp/old")
    mount("tmpfs", "/new", "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755,size=1m")
    for path, name in plan["read_only"]:
        bind(path, name, _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV)
    for device in plan["devices"]:
        bind(device, device, _ATTR_NOSUID)
    for name, target in plan["links"]:
        os.symlink(target, "/new" + name)
    if plan["proc"]:
        os.mkdir("/new/proc")
        mount("proc", "/new/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    os.mkdir("/new/tmp")
    size = f"mode=1777,size={plan['tmp_mb']}m,nr_inodes=4096"
    mount("tmpfs", "/new/tmp", "tmpfs", _MS_NOSUID | _MS_NODEV, size)
    os.chdir("/new")
    pivot_root(".", ".")
    _check(_libc.umount2(b".", _MNT_DETACH), "umount of the old root")
    restrict("/", _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV, recursive=False)
    os.chdir("/tmp")


def main():
    plan = json.loads(sys.argv[1])
    os.umask(0o022)
    build_root(plan)
    if plan["own_user_namespace"] and plan["proc"]:
        # The limit is the namespace's own: no further ones from inside.
        with open("/proc/sys/user/max_user_namespaces", "w") as file:
            file.write("0")
    os.execve(plan["command"][0], plan["command"], plan["environment"])


if __name__ == "__main__":
    main()
