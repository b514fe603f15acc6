"""Bring deploy/launcher/on-premises.yaml up on this machine, run a job on it, take it down.

`ray up` is the real one, and so are Ray's updaters, its first autoscaler and the commands of the
file. Stand-ins are only what a single machine lacks: `ssh` and `rsync` act on two folders that play
the hosts' homes, 127.0.0.2 and 127.0.0.3 are their addresses, and the environment is this .venv
instead of one that setup installs. `ray stop`, which would end every Ray here, is left out.

    python scripts/try_launcher.py        # about half a minute; needs no root and no ssh
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
HEAD, WORKER = "127.0.0.2", "127.0.0.3"
NODES_TIMEOUT_S = 240  # on a busy machine; else seconds

# ssh [options] user@host command: the command, at home.
_SSH = """#!{python}
import os, subprocess, sys
arguments, host = sys.argv[1:], None
while arguments and host is None:
    word = arguments.pop(0)
    if word in ("-i", "-o", "-L", "-p"):
        arguments.pop(0)
    elif not word.startswith("-"):
        host = word.rpartition("@")[2]
home = os.path.join({base!r}, host)
environment = {{**os.environ, "HOME": home, "PATH": {base!r} + "/bin:" + os.environ["PATH"]}}
sys.exit(subprocess.call(["bash", "-c", " ".join(arguments)], env=environment, cwd=home))
"""
# rsync ... source user@host:target: a copy, or a link where a checkout is sent.
_RSYNC = """#!{python}
import os, shutil, sys
source, target = sys.argv[-2:]
host, _, path = target.partition(":")
home = os.path.join({base!r}, host.rpartition("@")[2])
path = os.path.join(home, os.path.relpath(path, "~")) if path.startswith("~") else path
if os.path.isdir(source):
    os.makedirs(path, exist_ok=True)
    for name in os.listdir(source):
        link = os.path.join(path, name)
        if name not in (".venv", "runs", ".git") and not os.path.lexists(link):
            os.symlink(os.path.join(os.path.abspath(source), name), link)
else:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    shutil.copy(source, path)
"""
# `ray` of a host's environment: own address, folder and ports beside other Rays of this machine.
_RAY = """#!{python}
import os, sys
words, home = sys.argv[1:], os.environ["HOME"]
# A login shell has set PATH anew, and the head's autoscaler is to find the stand-ins too.
os.environ["PATH"] = {base!r} + "/bin:" + os.environ["PATH"]
if words[:1] == ["stop"]:
    sys.exit(0)
if words[:1] == ["start"]:
    words = [word.replace("6379", "{port}") for word in words]
    words += ["--node-ip-address=" + os.path.basename(home), "--temp-dir=" + home + "/r"]
    words += ["--num-cpus=1", "--num-gpus=0", "--object-store-memory=100000000"]
    if "--head" in words:
        words += ["--dashboard-port={dashboard}", "--dashboard-agent-listen-port={agent}"]
os.execv({python!r}, [{python!r}, "-m", "ray.scripts.scripts", *words])
"""


def main() -> None:
    base = Path(tempfile.mkdtemp(prefix="up", dir="/tmp"))  # short: sockets lie below it
    marks: list[tuple[str, float]] = []
    start_s = time.monotonic()
    try:
        port, dashboard = prepare(base)
        environment = client_environment(base)
        ray_up(base, environment)
        marks.append(("ray up returned", time.monotonic() - start_s))
        inside = {
            **environment,
            "RAY_ADDRESS": f"{HEAD}:{port}",
            "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
        }
        labels = wait_for_nodes(base, inside, 2)
        marks.append(("both nodes are there", time.monotonic() - start_s))
        print(json.dumps(labels, indent=2))
        submit(base, {k: v for k, v in inside.items() if k != "RAY_ADDRESS"})
        marks.append(("a submitted job has ended", time.monotonic() - start_s))
    finally:
        stop_processes(base)
        shutil.rmtree(base, ignore_errors=True)
    for what, seconds in marks:
        print(f"{seconds:6.1f} s  {what}")


def prepare(base: Path) -> tuple[int, int]:
    """Hosts, stand-ins and the file with its addresses filled in; returns the head's ports."""
    ports = [free_port() for _ in range(3)]
    names = {"port": ports[0], "dashboard": ports[1], "agent": ports[2], "base": str(base)}
    python = sys.executable
    (base / "bin").mkdir()
    for name, text in (("ssh", _SSH), ("rsync", _RSYNC)):
        write_program(base / "bin" / name, text.format(python=python, base=str(base)))
    ray = base / "bin" / "ray-of-a-host"  # base/ray is where the provider keeps its state
    write_program(ray, _RAY.format(python=python, **names))
    for host in (HEAD, WORKER):
        programs = base / host / "codepmp-ray" / ".venv" / "bin"
        programs.mkdir(parents=True)
        (programs / "ray").symlink_to(ray)
        # Not a link: Python looks for its packages beside the name it was called by.
        write_program(programs / "python", f'#!/bin/sh\nexec "{python}" "$@"\n')
        (base / host / ".bashrc").write_text("")
        (base / host / ".profile").write_text(". ~/.bashrc\n")  # as Ubuntu and Debian have it
    (base / WORKER / "codepmp-labels").write_text("codepmp-role=strong-synthesis\n")
    (base / ".ray").mkdir()
    (base / ".ray" / "auth_token").write_text(secrets.token_hex(32))
    (base / "key").write_text("")
    (base / "shared").mkdir()
    text = (ROOT / "deploy/launcher/on-premises.yaml").read_text(encoding="utf-8")
    launcher: dict[str, Any] = yaml.safe_load(text)
    launcher["provider"].update(head_ip=HEAD, worker_ips=[WORKER])
    launcher["auth"]["ssh_private_key"] = str(base / "key")
    launcher["file_mounts"]["~/.ray/auth_token"] = str(base / ".ray" / "auth_token")
    # What this machine has already: the environment, and a folder that both hosts see.
    launcher["setup_commands"] = launcher["setup_commands"][1:]
    launcher["initialization_commands"] = [f"test -d {base}/shared"]
    (base / "launcher.yaml").write_text(yaml.safe_dump(launcher))
    return ports[0], ports[1]


def client_environment(base: Path) -> dict[str, str]:
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith("RAY_")},
        "PATH": f"{base}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(base),
        "RAY_TMPDIR": str(base),
        "RAY_AUTH_MODE": "token",
        "RAY_UP_enable_autoscaler_v2": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def ray_up(base: Path, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "ray.scripts.scripts", "up", "-y", "--no-config-cache"]
    command.append(str(base / "launcher.yaml"))
    done = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True)
    print(done.stdout[-3000:], flush=True)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])


def wait_for_nodes(
    base: Path, environment: dict[str, str], count: int
) -> dict[str, dict[str, str]]:
    """Address -> labels of our own, once `count` nodes live."""
    script = (
        "import json, ray; ray.init(logging_level='ERROR', log_to_driver=False); "
        "print(json.dumps({n['NodeManagerAddress']: {k: v for k, v in n['Labels'].items() "
        "if not k.startswith('ray.io/')} for n in ray.nodes() if n['Alive']}))"
    )
    deadline_s = time.monotonic() + NODES_TIMEOUT_S
    while True:
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, text=True, capture_output=True
        )
        found = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {}
        if len(found) >= count:
            return found
        if time.monotonic() > deadline_s:
            logs = sorted((base / HEAD / "r" / "session_latest" / "logs").glob("monitor*"))
            said = "".join(log.read_text(errors="replace")[-2000:] for log in logs)
            raise SystemExit(f"{len(found)} of {count} nodes: {done.stderr[-2000:]}{said}")
        time.sleep(1)


def submit(base: Path, environment: dict[str, str]) -> None:
    """`jobs.check` on the cluster, as anybody would send it."""
    command = [sys.executable, "-m", "jobs.submit", "check", f"run_dir={base}/shared/run"]
    command += ["engines.strong.kind=fake", "engines.weak.kind=fake"]
    command += ["engines.strong.label_selector.codepmp-role=strong-synthesis"]
    done = subprocess.run(command, cwd=ROOT, env=environment)
    if done.returncode:
        raise SystemExit(f"jobs.submit ended with {done.returncode}")


def stop_processes(base: Path) -> None:
    """End what runs from `base`: SIGTERM, then SIGKILL."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        for process in Path("/proc").glob("[0-9]*"):
            try:
                mine = str(base).encode() in (process / "environ").read_bytes()
                if mine and int(process.name) != os.getpid():
                    os.kill(int(process.name), sent)
            except OSError:
                continue
        time.sleep(2)


def write_program(file: Path, text: str) -> None:
    file.write_text(text)
    file.chmod(0o755)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    main()
