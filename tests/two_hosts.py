"""Run by tests/unit/test_benchmark_namespaces.py: says what one host hears of another, as JSON."""

from __future__ import annotations

import json
import subprocess
import sys

from benchmarks._namespaces import Hosts, run_in_own_namespaces

PORT = 7000
_ANSWER = """
import socket, sys
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("ready", flush=True)
while True:
    server.accept()[0].sendall(b"hello")
"""
_ASK = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=1.0) as server:
        print(server.recv(9).decode())
except OSError as error:
    print(type(error).__name__)
"""


def main() -> None:
    run_in_own_namespaces("tests.two_hosts")
    hosts = Hosts(("a", "b"))
    where = [hosts.address("b"), str(PORT)]
    server = subprocess.Popen(
        [*hosts.inside("b"), sys.executable, "-c", _ANSWER, *where], stdout=subprocess.PIPE
    )
    assert server.stdout is not None and server.stdout.readline() == b"ready\n"

    def ask() -> str:
        command = [*hosts.inside("a"), sys.executable, "-c", _ASK, *where]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    heard = [ask()]
    hosts.cut("b")
    heard.append(ask())
    hosts.heal("b")
    heard.append(ask())
    print(json.dumps(heard))
    raise SystemExit(5)


if __name__ == "__main__":
    main()
