"""Execution by a service instead of this machine: SandboxFusion's POST /run_code.

For clusters without namespaces, and for languages other than Python. Test and answer share one
process there, so an answer can forge its verdict, and every verdict says so. Written from the
service's published interface and tried against a stub only.
"""

from __future__ import annotations

import re
import secrets
import sys
from typing import Any

import httpx

from codepmp_ray.config.evaluation import SandboxConfig
from codepmp_ray.errors import SandboxUnavailable
from codepmp_ray.evaluation.sandbox.runner import Execution, TestJob

_GRACE_S = 30.0
_MAX_DETAIL_CHARS = 500
_SCRIPT = """
import sys, types
module = sys.modules["answer"] = types.ModuleType("answer")
for name, source in {parts!r}:
    exec(compile(source, name, "exec"), vars(module))
vars(module)["check"](vars(module)[{entry_point!r}])
print({token!r})
"""


class RemoteExecutor:
    """Runs jobs at `evaluation.sandbox.endpoint`."""

    def __init__(self, config: SandboxConfig) -> None:
        self._config = config
        self._url = f"{(config.endpoint or '').rstrip('/')}/run_code"

    @staticmethod
    def detect(config: SandboxConfig) -> RemoteExecutor:
        """Raises SandboxUnavailable unless the service tells a right program from a wrong one."""
        executor = RemoteExecutor(config)
        test = "def check(candidate):\n    assert candidate() == 1\n"
        for value, wanted in ((1, "passed"), (2, "failed")):
            found = executor.run(TestJob(f"def f(): return {value}", "f", "", test))
            if found.outcome != wanted:
                raise executor._unavailable(f"a trial {found.outcome}: {found.detail}")
        return executor

    @property
    def description(self) -> str:
        return f"{self._url} (test and answer in one process: verdicts can be forged)"

    def run(self, job: TestJob) -> Execution:
        """As of `Sandbox`. Raises SandboxUnavailable where the service fails, not the program."""
        token, limit_s = secrets.token_hex(16), self._config.time_limit_s
        parts = [(name, getattr(job, name)) for name in ("setup", "program", "test")]
        code = f"{job.program}\n{job.test}"
        if job.language == "python":
            code = _SCRIPT.format(parts=parts, entry_point=job.entry_point, token=token)
        limits = {"compile_timeout": limit_s, "run_timeout": limit_s}
        limits["memory_limit_MB"] = self._config.memory_mb
        request = {"code": code, "language": job.language, **limits}
        try:
            response = httpx.post(self._url, json=request, timeout=2 * limit_s + _GRACE_S)
            response.raise_for_status()
            reply: dict[str, Any] = response.json()
            if reply["status"] not in ("Success", "Failed"):
                raise ValueError(f"{reply['status']}: {reply.get('message', '')}")
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise self._unavailable(f"{type(error).__name__}: {error}") from error
        result = reply.get("run_result") or reply.get("compile_result") or {}
        duration_s = float(result.get("execution_time") or 0.0)
        said = token if job.language != "python" else result.get("stdout") or ""
        if reply["status"] == "Success" and token in said:
            return Execution("passed", "", duration_s)
        if result.get("status") == "TimeLimitExceeded":
            return Execution("timeout", f"run_timeout={limit_s:g}", duration_s)
        error_line = (result.get("stderr") or "").strip().rpartition("\n")[2][:_MAX_DETAIL_CHARS]
        missing = re.match(r"ModuleNotFoundError: No module named '(\w+)", error_line)
        if missing and missing[1] not in sys.stdlib_module_names:
            return Execution("missing_package", missing[1], duration_s)
        return Execution("failed", error_line, duration_s)

    def _unavailable(self, problem: str) -> SandboxUnavailable:
        return SandboxUnavailable(
            f"The service at {self._url} does not execute code: {problem[:_MAX_DETAIL_CHARS]}.",
            "Start SandboxFusion there, or set evaluation.sandbox.endpoint to null.",
        )
