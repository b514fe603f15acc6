"""Errors that a person can act on.

Every error says what is wrong with which value, which limit it broke and what to do.
All of them survive pickling, because Ray carries them across process borders, and as text none
shows credentials of a URL.
"""

from __future__ import annotations

from codepmp_ray.redaction import redacted


class CodePMPError(Exception):
    """Base class. `problem` names the value and the limit, `remedy` the way out."""

    exit_code = 1

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return redacted(f"{self.problem} {self.remedy}".strip())

    def __reduce__(self) -> tuple[type[CodePMPError], tuple[str, str]]:
        return type(self), (self.problem, self.remedy)


class ConfigError(CodePMPError):
    """A recipe or an override is not valid: unknown key, impossible value."""

    exit_code = 2


class InputError(CodePMPError):
    """A file, folder, row or upstream stage that the job needs is missing or damaged."""

    exit_code = 3


class ResourceError(CodePMPError):
    """The plan asks for CPUs, GPUs, memory, disk or a port that cannot be had."""

    exit_code = 4


class StorageError(CodePMPError):
    """Reading or writing the run directory failed, or what it holds contradicts the plan."""

    exit_code = 5


class ModelError(CodePMPError):
    """A model or tokenizer cannot be loaded, or does not fit the recipe."""

    exit_code = 6


class TrainingError(CodePMPError):
    """A training that learns nothing: losses or gradients are not finite. Nothing is exported."""

    exit_code = 11


class EngineError(CodePMPError):
    """A generation or scoring engine failed on a request."""

    exit_code = 7


class DeadlineError(CodePMPError):
    """The time that a caller gave has passed before there was anything to answer."""

    exit_code = 9


class SandboxUnavailable(CodePMPError):
    """No isolation mechanism works on this machine, so generated code is not executed."""

    exit_code = 8


class LimitReached(CodePMPError):
    """A limit that the recipe sets for its own cost was reached. What is done is kept."""

    exit_code = 12


class ParityError(CodePMPError):
    """Two ways to compute the same reward differ by more than is tolerated."""

    exit_code = 10
