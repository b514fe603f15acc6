"""Time, processes, memory and bytes: what is over a limit ends, and nothing is left behind."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from codepmp_ray.evaluation.sandbox import runner
from tests.unit.evaluation.sandbox_support import (
    CHECK,
    CONFIG,
    is_running,
    run_in,
    value_in,
    wait_until,
)

pytestmark = pytest.mark.slow


def test_endless_loops_and_sleeps_time_out(sandbox):
    for body in (
        "while True: pass",
        "import time; time.sleep(60)",
    ):
        execution = run_in(sandbox, f"def f(x):\n    {body}")
        assert execution.outcome == "timeout"
        assert 2 <= execution.duration_s < 6


def test_fork_bomb_is_bounded_and_gone_afterwards(sandbox):
    marker = f"{os.getpid()}{time.time_ns()}"
    program = (
        "import os\ndef f(x):\n    while True:\n        try: os.fork()\n"
        f"        except OSError: os.execv('/usr/bin/sleep', ['sleep-{marker}', '60'])\n"
    )
    execution = run_in(sandbox, program)
    assert execution.outcome in ("timeout", "failed")
    assert execution.duration_s < 8
    assert not is_running(marker)


def test_number_of_processes_is_limited(sandbox):
    body = (
        "count = 0\n"
        "try:\n"
        "    while count < 50:\n"
        "        if os.fork() == 0: time.sleep(60)\n"
        "        count += 1\n"
        "except OSError: pass\n"
        "return count"
    )
    assert 1 <= value_in(sandbox, body) <= CONFIG.max_processes


def test_daemon_child_dies_with_the_sandbox(sandbox):
    marker = f"{os.getpid()}{time.time_ns()}"
    program = (
        "import os, time\n"
        "def f(x):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        if os.fork() == 0:\n"
        f"            os.execv('/usr/bin/sleep', ['sleep-{marker}', '60'])\n"
        "        os._exit(0)\n"
        "    time.sleep(0.3)\n"
        "    return 22\n"
    )
    assert run_in(sandbox, program).outcome == "passed"
    assert not is_running(marker)


def test_endless_printer_is_killed(sandbox):
    execution = run_in(sandbox, "def f(x):\n    while True: print('x' * 1000)")
    assert execution.outcome == "killed" and "max_output_bytes=10000" in execution.detail
    assert execution.duration_s < 2


def test_memory_is_limited_for_one_process_and_for_all_together(sandbox):
    one = run_in(sandbox, "def f(x):\n    return len(bytearray(1 << 30))")
    assert one.outcome == "failed" and "MemoryError" in one.detail
    several = (
        "import os, time\n"
        "def f(x):\n"
        "    for _ in range(4):\n"
        "        if os.fork() == 0:\n"
        "            hold = bytearray(os.urandom(1 << 20)) * 100; time.sleep(60)\n"
        "    time.sleep(60)\n"
    )
    execution = run_in(sandbox, several)
    assert execution.outcome == "killed" and "MB > 256" in execution.detail


def test_huge_files_and_huge_results_are_refused(sandbox):
    body = (
        "written = 0\n"
        "try:\n"
        "    with open('/tmp/big', 'wb') as file:\n"
        "        while written < 100 << 20: written += file.write(bytes(1 << 20))\n"
        "except OSError: pass\n"
        "return written"
    )
    assert value_in(sandbox, body) <= CONFIG.max_file_mb << 20
    many = body.replace("'/tmp/big'", "'/tmp/big%d' % written")
    assert value_in(sandbox, many) <= CONFIG.max_file_mb << 20
    assert run_in(sandbox, "def f(x): return 'x' * (40 << 20)").outcome in ("killed", "failed")


def test_killing_the_caller_leaves_nothing_behind(sandbox):
    marker = f"{os.getpid()}{time.time_ns()}"
    script = f"""
from codepmp_ray.config.evaluation import SandboxConfig
from codepmp_ray.evaluation.code_extraction import build_program
from codepmp_ray.evaluation.problems import load_problems
from codepmp_ray.evaluation.sandbox import Sandbox, TestJob, mechanisms
config = SandboxConfig(time_limit_s=60)
found = [m for m in mechanisms.available_mechanisms()[0] if m.name == {sandbox.mechanism.name!r}]
body = "import os\\ndef f(x): os.execv('/usr/bin/sleep', ['sleep-{marker}', '60'])"
Sandbox(config, found[0]).run(TestJob(body, "f", "", {CHECK!r}))
"""
    caller = subprocess.Popen([sys.executable, "-c", script])
    try:
        assert wait_until(lambda: is_running(marker), 20), "the answer's process never appeared"
    finally:
        caller.send_signal(signal.SIGKILL)
        caller.wait()
    assert wait_until(lambda: not is_running(marker), 10)


def test_concurrent_runs_do_not_share_process_limits(sandbox):
    program = (
        "import os, time\n"
        "def spawn():\n"
        "    if os.fork() == 0: time.sleep(30)\n"
        "def f(x):\n"
        "    for _ in range(6): spawn()\n"
        "    time.sleep(0.3)\n"
        "    return 22\n"
    )
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: run_in(sandbox, program), range(4)))
    assert [result.outcome for result in results] == ["passed"] * 4


def test_a_test_that_never_ends_is_stopped_from_outside(sandbox, monkeypatch):
    monkeypatch.setattr(runner, "_GRACE_S", 0.5)
    execution = run_in(sandbox, "def f(x): return 1", "def check(c):\n    while True: pass")
    assert execution.outcome == "timeout" and execution.duration_s < 6
