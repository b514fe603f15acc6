"""Command lines of the two isolation mechanisms. Which one is used is decided by trying it.

Both give the guest its own pid, network, mount, IPC, UTS and cgroup namespace, and:
- started by an ordinary user, its own user namespace;
- started by root, a real user id that no other process has (root is exempt from RLIMIT_NPROC, and
  a mapping of root onto another id inside a user namespace would still be root outside).

In a container /proc is masked, so that the kernel refuses a fresh one: the guest then gets none,
and what it cannot see it cannot use. Its memory is watched from outside, and a system call filter
is needed, which refuses further user namespaces in place of a limit in /proc/sys. Where root lacks
the right to make namespaces, the tool itself starts as a user id that no other process has (which
must be able to read the interpreter) and makes its own user namespace, as an ordinary user does.

The filter of system calls is the second wall: it is made here with libseccomp, and the guest
installs it.
"""

from __future__ import annotations

import errno
import importlib.metadata
import json
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from codepmp_ray.errors import ConfigError, SandboxUnavailable

_HERE = Path(__file__).resolve().parent
_GUEST = (str(_HERE / "guest"), "/opt/guest")
_START_GUEST = "import sys; sys.path.insert(0, '/opt'); from guest.main import main; main()"
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_FIRST_UID, _NUM_UIDS = 0x4000_0000, 0x3000_0000  # above what systems assign


@dataclass(frozen=True)
class Mechanism:
    """One way to isolate.

    Attributes:
        name: for people.
        command: of (megabytes of /tmp, names of packages), starts the guest.
        drops_uid: the guest gets a user id of its own.
        starts_as_other: the tool gets one.
        has_proc: the guest sees a /proc of its own namespace.
    """

    name: str
    command: Callable[[int, Sequence[str]], list[str]]
    drops_uid: bool
    starts_as_other: bool = False
    has_proc: bool = True

    def guest_uid(self) -> int | None:
        return _fresh_uid() if self.drops_uid else None

    def tool_uid(self) -> int | None:
        return _fresh_uid() if self.starts_as_other else None


def _fresh_uid() -> int:
    return _FIRST_UID + secrets.randbelow(_NUM_UIDS)


def available_mechanisms() -> tuple[list[Mechanism], list[str]]:
    """Mechanisms whose tool is installed, best first, and what is missing in words."""
    mechanisms: list[Mechanism] = []
    missing: list[str] = []
    is_root = os.geteuid() == 0
    starts = [True, False] if is_root else [False]
    ways = [(as_root, has_proc) for as_root in starts for has_proc in (True, False)]
    for name, tool, make in (
        ("bubblewrap", "bwrap", _bwrap_command),
        ("namespaces", "unshare", _unshare_command),
    ):
        path = shutil.which(tool)
        if path is None:
            missing.append(f"{name}: no {tool} on PATH")
            continue
        for as_root, has_proc in ways:
            is_other = is_root and not as_root
            words = " as another user" * is_other + " without /proc" * (not has_proc)
            command = partial(make, path, as_root, has_proc)
            mechanisms.append(Mechanism(name + words, command, as_root, is_other, has_proc))
    return mechanisms, missing


def outer_environment() -> dict[str, str]:
    """Environment of the tool itself: nothing of the caller's but where its libraries lie."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    return {"PATH": os.defpath, **kept}


def interpreter() -> tuple[str, str]:
    """The base interpreter (not the virtual environment's) and its prefix, links resolved.

    Raises SandboxUnavailable when binding the prefix would show the home directory.
    """
    # CPython sets it; it is the interpreter that made the virtual environment.
    base = str(getattr(sys, "_base_executable", None) or sys.executable)
    prefix = os.path.realpath(sys.base_prefix)
    home = os.path.realpath(os.path.expanduser("~"))
    if prefix == "/" or home == prefix or home.startswith(prefix + os.sep):
        raise SandboxUnavailable(
            f"The interpreter's prefix {prefix} holds the home directory, which must stay hidden.",
            "Use a Python installed in a folder of its own.",
        )
    return os.path.realpath(base), prefix


def _read_only_paths(prefix: str) -> list[str]:
    paths = ["/usr"] if os.path.isdir("/usr") else []
    if os.path.commonpath([prefix, "/usr"]) != "/usr":
        paths.append(prefix)
    paths += [path for path in _library_folders() if not os.path.islink(path)]
    if os.path.exists("/etc/ld.so.cache"):
        paths.append("/etc/ld.so.cache")
    return paths


def _packages(names: Sequence[str]) -> list[tuple[str, str]]:
    """(path here, path inside) of the files of installed distributions.

    Raises ConfigError that names the one that is not installed.
    """
    found: dict[str, str] = {}
    for name in names:
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError as error:
            raise ConfigError(
                f"evaluation.sandbox.packages names {name!r}, which is not installed here.",
                "Install it on every node that grades, or leave it out.",
            ) from error
        for top in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
            found[os.path.realpath(str(distribution.locate_file(top)))] = f"/opt/packages/{top}"
    return sorted(found.items())


def _library_folders() -> list[str]:
    return [path for path in ("/lib", "/lib64", "/lib32") if os.path.isdir(path)]


def _links() -> list[tuple[str, str]]:
    return [(path, os.readlink(path)) for path in _library_folders() if os.path.islink(path)]


def _guest_environment(prefix: str) -> dict[str, str]:
    own_libraries = os.path.join(prefix, "lib")
    needs = own_libraries in os.environ.get("LD_LIBRARY_PATH", "").split(":")
    environment = {"PATH": "/usr/bin", "HOME": "/tmp", "LANG": "C.UTF-8"}
    # numpy's libraries start a thread for each core, which is over the limit of processes.
    environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return {**environment, **({"LD_LIBRARY_PATH": own_libraries} if needs else {})}


def _guest_command(python: str) -> list[str]:
    return [python, "-I", "-S", "-B", "-X", "utf8", "-c", _START_GUEST]


def _unshare_command(
    unshare: str, is_root: bool, has_proc: bool, tmp_mb: int, packages: Sequence[str]
) -> list[str]:
    python, prefix = interpreter()
    own = [(path, path) for path in _read_only_paths(prefix)]
    plan = {
        "read_only": [*own, _GUEST, *_packages(packages)],
        "proc": has_proc,
        "links": _links(),
        "devices": _DEVICES,
        "tmp_mb": tmp_mb,
        "own_user_namespace": not is_root,
        "command": _guest_command(python),
        "environment": _guest_environment(prefix),
    }
    spaces = ["--mount", "--pid", "--net", "--ipc", "--uts", "--cgroup", "--fork", "--kill-child"]
    user = [] if is_root else ["--user", "--map-root-user"]
    launcher = (_HERE / "launcher.py").read_text(encoding="utf-8")
    run = [python, "-I", "-S", "-B", "-c", launcher, json.dumps(plan)]
    return [unshare, *spaces, *user, "--", *run]


def _bwrap_command(
    bwrap: str, is_root: bool, has_proc: bool, tmp_mb: int, packages: Sequence[str]
) -> list[str]:
    python, prefix = interpreter()
    command = [bwrap, "--die-with-parent", "--new-session", "--as-pid-1", "--clearenv"]
    for space in ("pid", "net", "ipc", "uts"):
        command.append(f"--unshare-{space}")
    command.append("--unshare-cgroup-try")
    if is_root:
        # Just enough for the guest to become somebody else and to give these up.
        command += ["--cap-drop", "ALL"]
        for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):
            command += ["--cap-add", capability]
    else:
        command += ["--unshare-user", "--uid", "65534", "--gid", "65534"]
    for parent in reversed(Path(prefix).parents[:-1]):
        # Made on the way to a mount point they would be for root alone.
        command += ["--perms", "0755", "--dir", str(parent)]
    for path in _read_only_paths(prefix):
        command += ["--ro-bind", path, path]
    command += ["--perms", "0755", "--dir", "/opt", "--ro-bind", *_GUEST]
    for path, name in _packages(packages):
        command += ["--perms", "0755", "--dir", "/opt/packages", "--ro-bind", path, name]
    for path, target in _links():
        command += ["--symlink", target, path]
    command += [*(["--proc", "/proc"] if has_proc else []), "--dir", "/dev"]
    for device in _DEVICES:
        command += ["--dev-bind", device, device]
    command += ["--perms", "1777", "--size", str(tmp_mb << 20), "--tmpfs", "/tmp"]
    command += ["--remount-ro", "/", "--chdir", "/tmp"]
    for name, value in _guest_environment(prefix).items():
        command += ["--setenv", name, value]
    return [*command, "--", *_guest_command(python)]


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
