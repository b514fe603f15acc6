"""The host's side: start the guest, hand it the work, wait with a limit, read the verdict."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, Protocol

import psutil

from codepmp_ray.config.evaluation import SandboxConfig
from codepmp_ray.errors import SandboxUnavailable
from codepmp_ray.evaluation.sandbox import canary, mechanisms
from codepmp_ray.evaluation.sandbox.guest.wire import frame
from codepmp_ray.evaluation.sandbox.mechanisms import Mechanism

Outcome = Literal["passed", "failed", "timeout", "killed", "missing_package"]
# Start-up and the test's own work on a busy machine; the guest keeps the time of the answer itself.
_GRACE_S = 15.0
_TICK_S = 0.1
_LIMITS = {"time_limit_s", "memory_mb", "max_processes", "max_file_mb", "max_output_bytes"}
_REMEDY = (
    "Install bubblewrap (apt install bubblewrap), or allow user namespaces: "
    "sysctl user.max_user_namespaces=10000 and, on Ubuntu, "
    "kernel.apparmor_restrict_unprivileged_userns=0; {place}or name a service that executes code "
    "(evaluation.sandbox.endpoint)."
)
_PLACES = {
    "/run/secrets/kubernetes.io": "in this pod set securityContext.seccompProfile.type: Unconfined "
    "and, where nodes have AppArmor, appArmorProfile.type: Unconfined; ",
    "/.dockerenv": "in this container add --security-opt seccomp=unconfined and --security-opt "
    "apparmor=unconfined; ",
    "/run/.containerenv": "in this container add --security-opt seccomp=unconfined; ",
}


@dataclass(frozen=True)
class TestJob:
    """One execution.

    Attributes:
        program: untrusted source that defines `entry_point`.
        entry_point: name of the function under test.
        setup: trusted source run on the test's side first (helpers that the test uses).
        test: trusted source that defines `check(candidate)`; `report(value)` hands a value back.
        shared: run the test in the answer's own process, so that they can share objects. The
            walls stand, but the answer can forge its verdict.
        language: other than Python only where a service executes (`sandbox.remote`); the test is
            then what follows the program in its file.
    """

    __test__ = False  # not a test class, whatever its name

    program: str
    entry_point: str
    setup: str
    test: str
    shared: bool = False
    language: str = "python"


@dataclass(frozen=True)
class Execution:
    """How it ended. `killed`: a limit on memory, output or processes, or a fatal signal.

    `missing_package`: the program or test imports what is not there; the detail is its name.
    """

    outcome: Outcome
    detail: str
    duration_s: float
    reports: list[Any] = field(default_factory=list)


class Executor(Protocol):
    """What runs jobs, here or elsewhere; from several threads."""

    @property
    def description(self) -> str: ...
    def run(self, job: TestJob) -> Execution: ...


class Sandbox:
    """Runs jobs under one mechanism. Make it with `detect`; `run` may be called from threads."""

    def __init__(self, config: SandboxConfig, mechanism: Mechanism) -> None:
        self._limits = config.model_dump(include=_LIMITS)
        self.mechanism = mechanism
        self._command = mechanism.command(config.max_file_mb, config.packages)
        program = mechanisms.filter_program()
        self._seccomp = base64.b64encode(program).decode() if program else None

    @property
    def description(self) -> str:
        """For reports, for example "bubblewrap + rlimits + seccomp"."""
        return f"{self.mechanism.name} + rlimits" + (" + seccomp" if self._seccomp else "")

    @staticmethod
    def detect(config: SandboxConfig) -> Executor:
        """The best mechanism that works on this machine, shown by running the canary in it; or the
        service that the configuration names, once it has told a right program from a wrong one.

        Raises SandboxUnavailable that names what was tried and what to install.
        """
        return _detect(config.model_dump_json())

    def run(self, job: TestJob) -> Execution:
        """Execute `job` and wait; everything it started has ended on return.

        An execution without a verdict counts as killed if the sandbox still works otherwise (the
        kernel may have ended the tester for want of memory). Raises SandboxUnavailable if not.
        """
        execution, message = self._run_once(job)
        if execution is None:
            harmless = TestJob("def f(): return 1", "f", "", "def check(c):\n    assert c() == 1")
            control, _ = self._run_once(harmless)
            if control is None:
                raise SandboxUnavailable(
                    f"The sandbox ({self.mechanism.name}) fails: {message}.", _remedy()
                )
            execution, message = self._run_once(job)
        return execution or Execution("killed", f"no verdict: {message}", 0.0)

    def _run_once(self, job: TestJob) -> tuple[Execution | None, str]:
        """The execution, or None and why the guest gave no verdict."""
        header = {
            "limits": self._limits,
            "uid": self.mechanism.guest_uid(),
            "seccomp": self._seccomp,
        }
        start_s = time.monotonic()
        process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=mechanisms.outer_environment(),
            cwd="/",
            start_new_session=True,
            user=(uid := self.mechanism.tool_uid()),
            group=uid,
            extra_groups=None if uid is None else [],
        )
        work: bytes | None = frame(header) + frame(vars(job))
        try:
            while True:
                try:
                    wait_s = self._wait_s if self.mechanism.has_proc else _TICK_S
                    out, err = process.communicate(work, timeout=wait_s)
                    break
                except subprocess.TimeoutExpired:
                    work = None  # it has gone out
                duration_s = time.monotonic() - start_s
                if broken := self._broken_limit(process.pid, duration_s):
                    return Execution(*broken, duration_s), ""
        finally:
            _kill(process)
        try:
            verdict = json.loads(out)
        except ValueError:
            message = err.decode(errors="replace").strip()[-500:] or "no message"
            return None, f"exit code {process.returncode}, {message}"
        execution = Execution(
            verdict["outcome"],
            # The program words its errors itself; half a surrogate pair could not be stored.
            verdict["detail"].encode("utf-8", "backslashreplace").decode(),
            time.monotonic() - start_s,
            verdict.get("reports", []),
        )
        return execution, ""

    @property
    def _wait_s(self) -> float:
        return self._limits["time_limit_s"] + _GRACE_S

    def _broken_limit(self, pid: int, duration_s: float) -> tuple[Outcome, str] | None:
        if duration_s >= self._wait_s:
            return "timeout", f"the test did not end {_GRACE_S:g} s after time_limit_s"
        used_mb, limit = 0, self._limits["memory_mb"]
        for process in _descendants(pid):
            with contextlib.suppress(psutil.Error):  # what ends meanwhile counts as nothing
                used_mb += process.memory_info().rss >> 20
        if used_mb > limit:
            return "killed", f"all processes together used {used_mb} MB > {limit}"
        return None


def _descendants(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).children(recursive=True)
    return []


@cache
def _detect(config_json: str) -> Executor:
    config = SandboxConfig.model_validate_json(config_json)
    if config.endpoint is not None:
        from codepmp_ray.evaluation.sandbox.remote import RemoteExecutor

        return RemoteExecutor.detect(config)
    candidates, reasons = mechanisms.available_mechanisms()
    for mechanism in candidates:
        try:
            sandbox = Sandbox(config, mechanism)
            if not mechanism.has_proc and mechanisms.filter_program() is None:
                raise SandboxUnavailable("needs libseccomp")
            breach = canary.find_breach(sandbox, config)
        except (OSError, subprocess.SubprocessError, SandboxUnavailable) as error:
            reasons.append(f"{mechanism.name}: {getattr(error, 'problem', error)}")
            continue
        if breach is None:
            return sandbox
        reasons.append(f"{mechanism.name}: the canary got through: {breach}")
    raise SandboxUnavailable(
        f"No sandbox works here, so generated code is not executed ({'; '.join(reasons)}).",
        _remedy(),
    )


def _remedy() -> str:
    """What to do, with the words of the place that this is."""
    here = [words for path, words in _PLACES.items() if os.path.exists(path)]
    return _REMEDY.format(place="".join(here[:1]))


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the tool; with it the kernel ends process 1 of the namespace and so all the others."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
    process.wait()
