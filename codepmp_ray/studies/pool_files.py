"""Files of labelled answers, as studies read them: questions, answers, who gave them.

Rows are those of `evaluation.pool_rows`; only answers with a label are of use here. Rows with the
same question are one question: counted apart, its answers would pass for those of two problems.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from codepmp_ray.config.study_materials import PoolConfig
from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.pool_rows import Answer, read_pool_row
from codepmp_ray.preference.sources.reading import numbered
from codepmp_ray.preference.sources.rows import Reject, Unusable
from codepmp_ray.records import stable_id
from codepmp_ray.reject_reasons import RejectReason
from codepmp_ray.studies.sets import MissingSet


@dataclass(frozen=True)
class Question:
    """`given_id` is the name that its first row with one gives it."""

    text: str
    given_id: str | None
    answers: list[Answer]

    @property
    def text_id(self) -> str:
        """What training sources call a question that has no name."""
        return stable_id(self.text)


@dataclass(frozen=True)
class PoolContent:
    """A file of pools.

    Attributes:
        questions: each once, in the file's order, with the answers of all its rows.
        rejected: rows and answers that are of no use, by reason.
        num_repeats: rows whose question an earlier row has.
    """

    questions: list[Question]
    rejected: dict[str, int]
    num_repeats: int

    def notes(self, name: str) -> list[str]:
        """What a study says about rows that it left out or put together."""
        found = []
        if self.rejected:
            num = sum(self.rejected.values())
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.rejected.items())
            found.append(f"Pool {name}: {num:,} rows or answers are of no use ({reasons}).")
        if self.num_repeats:
            found.append(
                f"Pool {name}: {self.num_repeats:,} rows repeat a question; their answers count as "
                "those of one question."
            )
        return found


@dataclass(frozen=True)
class AnsweredByAll:
    """Questions that all of some generators answered, in the file's order.

    Attributes:
        correct: [questions, generators], of each one's first answer.
    """

    generators: tuple[str, ...]
    questions: list[str]
    correct: npt.NDArray[np.float64]
    origin: str


def pool_file(name: str, config: PoolConfig, data_dir: str | None) -> Path:
    """Raises MissingSet when it is not there."""
    file = Path(data_dir or "") / config.path
    if data_dir is None or not file.exists():
        raise MissingSet(
            f"The pool {name!r} is not here: it is looked for as {config.path} below "
            f"{'data_dir, which is not set' if data_dir is None else data_dir}.",
            f"Set data_dir=FOLDER, or pools.{name}.path. A row is a question and its candidates, "
            "each with text and correct: docs/data-format.md shows one.",
        )
    return file


def read_pool(name: str, config: PoolConfig, data_dir: str | None) -> PoolContent:
    """Raises MissingSet when the pool is not there, InputError when no row of it is usable."""
    file = pool_file(name, config, data_dir)
    found = file.stat()
    return _read_version(file, found.st_size, found.st_mtime_ns)


def read_questions(name: str, config: PoolConfig, data_dir: str | None) -> list[Question]:
    """The questions of `read_pool`, with the answers of the pool's `generators` alone.

    Raises InputError for a generator that the pool has no answer of, also what `read_pool` raises.
    """
    questions = list(read_pool(name, config, data_dir).questions)
    if not config.generators:
        return questions
    every = {answer.model for question in questions for answer in question.answers}
    known = sorted(model for model in every if model is not None)
    unknown = [generator for generator in config.generators if generator not in every]
    setting = f"pools.{name}.generators"
    if not known:
        raise InputError(
            f"{setting} asks for answers of {', '.join(config.generators)}, and {config.path} does "
            "not say which model gave an answer.",
            f"Leave {setting} out, or give each answer its model.",
        )
    if unknown:
        raise InputError(
            f"{setting} names {', '.join(map(repr, unknown))}, of which {config.path} has no "
            "answer.",
            f"It has answers of {', '.join(known)}.",
        )
    wanted = set(config.generators)
    found = []
    for question in questions:
        answers = [answer for answer in question.answers if answer.model in wanted]
        if answers:
            found.append(replace(question, answers=answers))
    return found


@lru_cache(maxsize=8)
def _read_version(file: Path, size: int, mtime_ns: int) -> PoolContent:
    """The file, read once per process while it stays as it is."""
    rejected: Counter[str] = Counter()
    answers: dict[str, list[Answer]] = {}
    given: dict[str, str | None] = {}
    num_repeats = 0
    for item in numbered("the pool", str(file)):
        if isinstance(item, Reject):
            rejected[str(item.reason)] += 1
            continue
        try:
            row = read_pool_row(item[1])
        except Unusable as error:
            rejected[str(error.reason)] += 1
            continue
        rejected.update(str(problem.reason) for problem in row.problems)
        if not row.question:
            rejected[str(RejectReason.PROMPT_EMPTY)] += 1
            continue
        found = []
        for answer in row.answers:
            if (reason := _useless(answer)) is not None:
                rejected[str(reason)] += 1
            else:
                found.append(answer)
        if not found:
            continue  # the reasons of its answers are counted
        num_repeats += row.question in answers
        answers.setdefault(row.question, []).extend(found)
        name = item[1].get("problem_id")
        given[row.question] = given.get(row.question) or (str(name) if name else None)
    if not answers:
        reasons = f" (rejected: {dict(sorted(rejected.items()))})" if rejected else ""
        raise InputError(
            f"{file} has no row with a question and labelled answers{reasons}.",
            "docs/data-format.md shows a row of a pool.",
        )
    questions = [Question(text, given[text], found) for text, found in answers.items()]
    return PoolContent(questions, dict(sorted(rejected.items())), num_repeats)


def _useless(answer: Answer) -> RejectReason | None:
    """Why a study can do nothing with an answer."""
    if not answer.text.strip():
        return RejectReason.EMPTY
    return RejectReason.BAD_LABEL if answer.label is None else None


def answered_by(
    name: str, config: PoolConfig, data_dir: str | None, generators: tuple[str, ...]
) -> AnsweredByAll:
    """Raises MissingSet when the file is not there, InputError when they share no two questions."""
    questions, correct = [], []
    every: set[str] = set()
    for question in read_questions(name, config, data_dir):
        first = {a.model: float(a.label or 0) for a in reversed(question.answers) if a.model}
        every |= first.keys()
        if all(generator in first for generator in generators):
            questions.append(question.text)
            correct.append([first[generator] for generator in generators])
    if len(questions) < 2:
        raise InputError(
            f"{len(questions)} questions of {config.path} have answers of all of "
            f"{', '.join(generators)}.",
            f"It has answers of {', '.join(sorted(every)) or 'no named generator'}.",
        )
    return AnsweredByAll(generators, questions, np.array(correct), config.path)
