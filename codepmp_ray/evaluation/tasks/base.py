"""What a task is: where its rows come from and what each of them means.

Problem tasks ask for an answer that can be graded; of multiple choice the options themselves are
the candidates, which is best-of-4 (section 4.1.3). Preference tasks hold pairs whose order is
known. A file per task turns one row into a problem, or rows into pairs; `registry` names them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from codepmp_ray.evaluation.graders import GraderName, Reference
from codepmp_ray.preference.messages import Message
from codepmp_ray.preference.sources.rows import Numbered, Reject

Row = dict[str, Any]
Kind = Literal["generative", "choice", "preference"]


@dataclass(frozen=True)
class HubSet:
    """A set on the Hugging Face hub. `subset` is a configuration, or with `is_folder` a folder."""

    hub_id: str
    split: str
    subset: str | None = None
    revision: str | None = None
    is_folder: bool = False


class Problem(Protocol):
    """One problem of any kind.

    Attributes:
        problem_id: unique in its task.
        prompt: what the reward model sees, as it did in finetuning; the generator is asked the
            same, with the task's instruction behind it.
        canonical_answer: the set's own solution, in the form of a model's answer; "" where the set
            has none in that form.
    """

    @property
    def problem_id(self) -> str: ...
    @property
    def prompt(self) -> str: ...
    @property
    def canonical_answer(self) -> str: ...


@dataclass(frozen=True)
class TextProblem:
    """A problem whose final answer is compared with `reference`; see `Problem`."""

    problem_id: str
    prompt: str
    canonical_answer: str
    reference: Reference


class BadRow(ValueError):
    """A row that is no problem; the message names the column."""


@dataclass(frozen=True)
class ProblemTask:
    """Problems with graders.

    Attributes:
        name: as in `candidates.task`.
        title: as people write it.
        license: of the set's rows.
        kind: `choice` where the candidates are the options.
        grader: a name in `graders.GRADERS`, or `code` for the sandbox.
        hub: None where a package carries the rows.
        problem: one row, with its number from 0, as a problem; raises BadRow.
        packaged: rows of an installed package, which are read where no path is given.
        instruction: follows the prompt when a generator is asked.
        num_problems: of the whole set, where a file with other than that is a wrong file.
    """

    name: str
    title: str
    license: str
    kind: Kind
    grader: GraderName | Literal["code"]
    hub: HubSet | None
    problem: Callable[[Row, int], Problem]
    packaged: Callable[[], Iterable[Row]] | None = None
    instruction: str = ""
    num_problems: int | None = None


@dataclass(frozen=True)
class PreferencePair:
    """A prompt with a better and a worse answer.

    Attributes:
        pair_id: unique in its task.
        problem_id: equal for pairs that are not independent.
        prompt: text, or messages where it is a conversation.
        subset: the part of the set that it belongs to; "" where there are none.
        variant: which forms of the two answers are compared, where there are several.
        models: who wrote the chosen and the rejected answer, where the set says so of both.
    """

    pair_id: str
    problem_id: str
    prompt: str | list[Message]
    chosen: str
    rejected: str
    subset: str = ""
    variant: str | None = None
    models: tuple[str, str] | None = None


PairBuilder = Callable[[Iterable[Numbered]], Iterator[PreferencePair | Reject]]


@dataclass(frozen=True)
class PreferenceTask:
    """Pairs with a known order.

    Attributes:
        name, title, license, hub: as of problem tasks.
        columns: a set needs those of one of these.
        pairs: rows as pairs; what is no pair is a Reject with its reason.
        file_column: column that a file's name is where its rows lack it: the part before "_".
    """

    name: str
    title: str
    license: str
    hub: HubSet | None
    columns: tuple[set[str], ...]
    pairs: PairBuilder
    file_column: str | None = None
    kind: Kind = "preference"


def text_of(row: Row, name: str) -> str:
    """The text in a column. Raises BadRow where there is none, or only white space."""
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise BadRow(f"no text in {name!r}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadRow(f"half of a surrogate pair in {name!r}") from error
    return value
