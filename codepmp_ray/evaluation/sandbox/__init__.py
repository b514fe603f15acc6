"""Executes untrusted Python behind namespaces, resource limits and, where present, seccomp.

`Sandbox.detect(config)` proves with a canary that the walls hold before anything else runs, and
raises SandboxUnavailable otherwise: there is no weaker way to fall back to.
"""

from codepmp_ray.evaluation.sandbox.runner import Execution, Sandbox, TestJob

__all__ = ["Execution", "Sandbox", "TestJob"]
