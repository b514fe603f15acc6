"""Namespaces for benchmarks with several hosts: a network of this process's own, and hosts in it.

Linux only; with root, or where users may make namespaces.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

_MARK = "CODEPMP_BENCHMARK_NAMESPACES"
_NETWORK = "10.77.0"
# Private folders: Ray says in /tmp/ray which cluster runs here, names of namespaces lie below /run.
# The shell stays, as process 1: it waits for whoever nobody else waits for.
_PREPARE = """
set -e
ip link set lo up
mkdir -p /tmp/ray
for folder in /tmp/ray /dev/shm /run; do mount -t tmpfs tmpfs $folder; done
mkdir /run/netns
"$@"
"""


def run_in_own_namespaces(module: str, **environment: str) -> None:
    """Run `python -m module` with this process's arguments again, apart, and end as it ends;
    `environment` are variables that it gets.

    There 127.0.0.N are free addresses, no other Ray is to be found, and all processes end with the
    command. Returns at once when this is that process.
    """
    if os.environ.get(_MARK):
        return
    command = ["unshare", "--pid", "--net", "--mount", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid() != 0:
        command += ["--user", "--map-root-user"]
    try:
        possible = subprocess.run([*command, "true"], capture_output=True, text=True)
        problem = possible.stderr.strip() if possible.returncode else ""
    except FileNotFoundError:
        problem = "there is no program `unshare`"
    if problem:
        raise SystemExit(
            f"{module} needs namespaces of its own, and cannot have them: {problem}. "
            "Run it as root, or allow user namespaces (sysctl user.max_user_namespaces)."
        )
    command += ["sh", "-c", _PREPARE, "sh", sys.executable, "-m", module, *sys.argv[1:]]
    # Nobody outside reaches this network, so nothing in it needs a token.
    variables = {**os.environ, _MARK: "1", "RAY_AUTH_MODE": "disabled", **environment}
    variables.pop("RAY_ADDRESS", None)
    raise SystemExit(subprocess.run(command, env=variables).returncode)


class Hosts:
    """Machines on one switch: network namespaces with one cable each, which can be cut.

    They share the file system, as machines with shared storage do: a host that is cut off can still
    write to it.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._numbers = {name: number for number, name in enumerate(names, start=1)}
        _ip("link", "add", "switch", "type", "bridge")
        _ip("link", "set", "switch", "up")
        for name in names:
            _ip("netns", "add", name)
            _ip("link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("link", "set", f"to-{name}", "master", "switch", "up")
            _ip("-n", name, "address", "add", f"{self.address(name)}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-n", name, "link", "set", device, "up")

    def address(self, name: str) -> str:
        return f"{_NETWORK}.{self._numbers[name]}"

    def inside(self, name: str) -> list[str]:
        """The beginning of a command that is to run on this host."""
        return ["nsenter", f"--net=/run/netns/{name}"]

    def cut(self, name: str) -> None:
        """From now on packets to and from this host are lost without a word."""
        _ip("link", "set", f"to-{name}", "nomaster")

    def heal(self, name: str) -> None:
        _ip("link", "set", f"to-{name}", "master", "switch")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
