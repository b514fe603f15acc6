"""A pool: questions, the answers to each, and what is known of those: labels, grades, rewards.

Every reader of files of answers makes one. Answers are looked at one by one, or as arrays
[questions, answers], whose rows are filled up where questions have unequally many.

Final answers that say the same, as the number grader sees it, are one vote (`groups`). Graders
store a final answer in a form of its own, and files of pools one as somebody wrote it: 0.5, 1/2 and
2/4 are one number, and so are 10,000 and 10{,}000. Numbers that are equal to six decimal places are
equal, as in `graders.equality`. Formulas are equal where they are written alike.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from codepmp_ray.evaluation.graders.notation import readable, tidy
from codepmp_ray.evaluation.graders.numbers import plain_value
from codepmp_ray.evaluation.pool_report import PoolArrays
from codepmp_ray.evaluation.pool_rows import Answer, PoolRow, read_pool_row
from codepmp_ray.evaluation.statistics import padded
from codepmp_ray.evaluation.tasks.base import Problem
from codepmp_ray.preference.sources.rows import Numbered, Reject, Row, Unusable
from codepmp_ray.resampling import Floats


def answer_groups(answers: Sequence[str | None]) -> list[int]:
    """Equal numbers for equal answers to one problem. What has none agrees with nobody."""
    numbers: dict[object, int] = {}
    keys = [(i,) if answer is None else _key(answer) for i, answer in enumerate(answers)]
    return [numbers.setdefault(key, len(numbers)) for key in keys]


@lru_cache(maxsize=1 << 16)
def _key(answer: str) -> object:
    """What is equal for equal answers: a number, or the text."""
    value = plain_value(tidy(readable(answer)).strip("$ ").removesuffix("."))
    return answer.strip() if value is None else round(value, 6)


@dataclass
class Question:
    """One question of a pool.

    Attributes:
        name: what the pool calls it.
        text: the question itself; None where no row has it.
        row: number of the first row with it.
        answers: of all its rows, in the order of the file.
        given_id: the `problem_id` that its first row with one gives it.
        problem: the task's problem that it is, where the pool answers a task.
    """

    name: str
    text: str | None
    row: int = field(default=0, compare=False)
    answers: list[Answer] = field(default_factory=list)
    given_id: str | None = None
    problem: Problem | None = None


@dataclass
class Pool:
    """Answers to questions.

    Attributes:
        questions: by name, in the order of the file; each has an answer.
        rejects: rows and answers that cannot be used; `index` is the row's number from 0.
        num_unused: answers beyond the cut that was asked for.
        num_repeats: rows whose question an earlier row has.
        name: of the pool, where there are several.
        origin: file and which answers, for reports; `setting` is the pool's name in the recipe.
    """

    questions: dict[str, Question] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)
    num_unused: int = 0
    num_repeats: int = 0
    name: str = ""
    origin: str = ""
    setting: str = ""

    def __iter__(self) -> Iterator[Question]:
        return iter(self.questions.values())

    @property
    def reject_counts(self) -> dict[str, int]:
        return dict(sorted(Counter(str(reject.reason) for reject in self.rejects).items()))

    @property
    def first_reject(self) -> str:
        """The first one in words, for messages; empty where nothing was rejected."""
        first = self.rejects[0] if self.rejects else None
        return f" (first: row {first.index + 1}, {first.detail})" if first else ""

    @property
    def size(self) -> tuple[int, int]:
        """Questions, and answers to the question that has most."""
        return self.correct.shape

    @property
    def models(self) -> set[str]:
        """Who wrote answers, as far as they say it."""
        return {a.model for question in self for a in question.answers if a.model is not None}

    @property
    def length_unit(self) -> str:
        """Tokens where all answers count them, else characters."""
        has_all = all(a.num_tokens is not None for question in self for a in question.answers)
        return "tokens" if has_all else "characters"

    @property
    def prompts(self) -> list[str]:
        return [question.text or "" for question in self]

    @property
    def texts(self) -> list[list[str]]:
        return [[answer.text for answer in question.answers] for question in self]

    @cached_property
    def correct(self) -> Floats:
        """Labels, 0 or 1; what has none is wrong."""
        return self.table(lambda answer: float(answer.label or 0))

    @cached_property
    def groups(self) -> npt.NDArray[np.int64] | None:
        """Equal numbers for equal final answers to one question; None where none is known."""
        finals = [[answer.final for answer in question.answers] for question in self]
        if all(final is None for row in finals for final in row):
            return None
        return padded(list(map(answer_groups, finals)))[0].astype(np.int64)

    def writers(self, all_named: bool = False) -> npt.NDArray[np.int64] | None:
        """Equal numbers for answers of one model; None where one wrote everything, and, where all
        have to be named, where one is not."""
        every = [a.model for question in self for a in question.answers]
        if len(set(every)) < 2 or (all_named and None in every):
            return None
        numbers = {name: number for number, name in enumerate(dict.fromkeys(every))}
        return self.table(lambda answer: numbers[answer.model]).astype(np.int64)

    def table(self, value: Callable[[Answer], float]) -> Floats:
        """`value` of every answer, 0 where a question has fewer than others."""
        return padded([[value(a) for a in question.answers] for question in self])[0]

    def rewards(self, number: int) -> Floats:
        """Those of one model; NaN where there is none."""
        return self.table(lambda answer: _number(answer.rewards[number]))

    def arrays(self, reward_names: Sequence[str] = ()) -> PoolArrays:
        """What figures are made of; rewards that are missing are NaN."""
        is_tokens = self.length_unit == "tokens"
        return PoolArrays(
            self.correct,
            {name: self.rewards(number) for number, name in enumerate(reward_names)},
            self.groups,
            self.table(lambda a: float((a.num_tokens or 0) if is_tokens else a.num_chars)),
            self.writers(),
            padded([[1.0] * len(question.answers) for question in self])[1],
        )

    def rows(
        self, numbered: Iterable[Numbered], columns: Sequence[str] = ()
    ) -> Iterator[tuple[int, Row, PoolRow]]:
        """(number, row, what it says) of rows of a file; those that say nothing are rejected."""
        for item in numbered:
            if isinstance(item, Reject):
                self.rejects.append(item)
                continue
            index, row = item
            try:
                found = read_pool_row(row, columns)
            except Unusable as error:
                self.reject(index, error)
                continue
            self.rejects += [Reject(index, e.reason, e.detail) for e in found.problems]
            yield index, row, found

    def reject(self, index: int, error: Unusable, of: str = "") -> None:
        self.rejects.append(Reject(index, error.reason, f"{of}{error.detail}"))


def _number(reward: float | None) -> float:
    return math.nan if reward is None else reward
