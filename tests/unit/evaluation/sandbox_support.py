"""What tests of the sandbox share: limits, programs, and looking at processes."""

import time
from pathlib import Path

from codepmp_ray.config.evaluation import SandboxConfig
from codepmp_ray.evaluation.sandbox import Sandbox, TestJob

CONFIG = SandboxConfig(
    time_limit_s=2, memory_mb=256, max_processes=8, max_file_mb=4, max_output_bytes=10_000
)
CHECK = "def check(candidate):\n    assert candidate(20) == 22\n"
REPORT = "def check(candidate):\n    report(candidate())\n"


def run_in(sandbox, program, test=CHECK, entry_point="f"):
    return sandbox.run(TestJob(program, entry_point, "", test))


def patient(sandbox):
    """The same sandbox with a time limit that also a busy machine keeps."""
    return Sandbox(CONFIG.model_copy(update={"time_limit_s": 60}), sandbox.mechanism)


def value_in(sandbox, body):
    """What `body` (of a function) returns inside."""
    lines = "\n".join("    " + line for line in body.splitlines())
    execution = run_in(patient(sandbox), f"import os, sys, time\ndef f():\n{lines}\n", REPORT)
    assert execution.outcome == "passed", execution
    return execution.reports[0]


def is_running(marker: str) -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(f"sleep-{marker}".encode()):
                return True
        except OSError:
            continue
    return False


def wait_until(condition, limit_s: float) -> bool:
    end_s = time.monotonic() + limit_s
    while time.monotonic() < end_s:
        if condition():
            return True
        time.sleep(0.05)
    return False
