"""What graders take and give: tuples, since processes hand them to each other by the thousand."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Protocol

from codepmp_ray.records import Outcome

GraderName = Literal["number", "latex", "choice", "reasoning_gym"]


class Reference(NamedTuple):
    """What the right answer is.

    Attributes:
        answer: a number, LaTeX, or the text of the right option.
        options: of multiple choice: all options, in their order.
        verifier: of Reasoning Gym: what its own verifier needs, see `tasks.reasoning_gym`.
    """

    answer: str
    options: tuple[str, ...] = ()
    verifier: dict[str, Any] | None = None


class Verdict(NamedTuple):
    """How an answer was graded.

    Attributes:
        passed: whether it is right; None only where it could not be looked at.
        outcome: why.
        detail: for a person.
        answer: the final answer that was found, in a form that is equal for equal answers;
            majority voting groups by it. None where there is none.
        duration_s: wall-clock time.
    """

    passed: bool | None
    outcome: Outcome
    detail: str = ""
    answer: str | None = None
    duration_s: float = 0.0


class Grader(Protocol):
    """A pure function of its arguments."""

    def __call__(self, reference: Reference, completion: str) -> Verdict: ...


def judged(is_right: bool, answer: str, reference: Reference) -> Verdict:
    """The verdict on a final answer that was found and compared."""
    if is_right:
        return Verdict(True, Outcome.PASSED, answer=answer)
    detail = f"answer {answer[:80]!r}, reference {reference.answer[:80]!r}"
    return Verdict(False, Outcome.FAILED, detail, answer)


def no_answer(what: str) -> Verdict:
    """The verdict on a text without a final answer."""
    return Verdict(False, Outcome.NO_ANSWER, what)
