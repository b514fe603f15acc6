"""Executes untrusted Python behind namespaces, resource limits and, where present, seccomp.

`Sandbox.detect(config)` proves with a canary that the walls hold before anything else runs, and
raises SandboxUnavailable otherwise: there is no weaker way to fall back to. `remote` executes by a
service instead, where the configuration names one.
"""

from codepmp_ray.evaluation.sandbox.runner import Execution, Executor, Sandbox, TestJob

__all__ = ["Execution", "Executor", "Sandbox", "TestJob"]
