"""Proof before trust: code that tries what the sandbox must prevent and says what it could do."""

from __future__ import annotations

import os
import socket
import tempfile
from typing import TYPE_CHECKING

from codepmp_ray.config.evaluation import SandboxConfig

if TYPE_CHECKING:
    from codepmp_ray.evaluation.sandbox.runner import Sandbox

# Runs as an answer's code would. Every probe returns words for what it could do, or None.
_PROBES = """
import ctypes, os, socket

def probe(port, secret_path, home, folders, max_processes):
    return [found for found in (
        connect(("127.0.0.1", port)), connect(("192.0.2.1", 53)), read(secret_path), listing(home),
        read("/etc/shadow"), environment(), write(folders), rights(), others(),
        library(), processes(max_processes),
    ) if found]

def connect(address):
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect(address)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.settimeout(1)
            sock.connect(address)
    except TimeoutError:
        return "packets leave for %s" % address[0]
    except OSError:
        return None
    return "connected to %s" % address[0]

def read(path):
    try:
        open(path).close()
    except OSError:
        return None
    return "opened %s" % path

def listing(home):
    try:
        names = [name for name in os.listdir(home) if name.startswith(".ssh")]
    except OSError:
        return None
    return "saw %s" % names if names else None

def environment():
    known = {"PATH", "HOME", "LANG", "PWD", "LC_CTYPE", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"}
    unknown = set(os.environ) - known
    return "environment has %s" % sorted(unknown) if unknown else None

def write(folders):
    for folder in folders:
        try:
            path = os.path.join(folder, "codepmp-canary")
            open(path, "w").close()
        except OSError:
            continue
        os.unlink(path)
        return "wrote into %s" % folder

def rights():
    libc = ctypes.CDLL(None)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if libc.capget(header, sets) != 0 or any(sets):
        return "has capabilities %s" % list(sets)
    if any(libc.prctl(23, capability, 0, 0, 0) == 1 for capability in range(64)):
        return "capabilities can be gained"
    if libc.prctl(39, 0, 0, 0, 0) != 1:
        return "new privileges can be gained"

def others():
    found = os.getpid() // 1000
    for pid in range(1, 40000):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            continue
        except PermissionError:
            pass
        found += 1
    return "sees %d processes" % found if found > 4 else None

def library():
    try:
        import ctypes, hashlib, json, random, typing
    except ImportError as error:
        return "the standard library is out of reach: %s" % error

def processes(limit):
    children = []
    try:
        while len(children) <= limit:
            pid = os.fork()
            if pid == 0:
                while True:
                    os.read(0, 1) or __import__("time").sleep(60)
            children.append(pid)
        return "started %d processes" % len(children)
    except OSError:
        return None
    finally:
        for pid in children:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
"""


def find_breach(sandbox: Sandbox, config: SandboxConfig) -> str | None:
    """What the canary could do that it must not, or None when every wall held."""
    from codepmp_ray.evaluation.sandbox.runner import TestJob

    folders = ["/", "/usr", "/usr/lib", "/dev", "/proc", "/etc"]
    with socket.create_server(("127.0.0.1", 0)) as server, tempfile.NamedTemporaryFile() as secret:
        os.chmod(secret.name, 0o644)  # hidden by the mounts, not by its mode
        port = server.getsockname()[1]
        home = os.path.expanduser("~")
        arguments = (port, secret.name, home, folders, config.max_processes)
        test = f"def check(candidate):\n    report(candidate{arguments!r})\n"
        execution = sandbox.run(TestJob(_PROBES, "probe", "", test))
    if execution.outcome != "passed":
        return f"the canary itself ended as {execution.outcome}: {execution.detail}"
    (found,) = execution.reports
    problems = found["list"]
    return "; ".join(problems) or None
