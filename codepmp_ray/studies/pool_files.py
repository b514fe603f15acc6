"""Files of labelled answers, as studies read them: questions, answers, who gave them.

Rows are those of `evaluation.pool_rows`; only answers with a label are of use here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from codepmp_ray.config.data import DataSourceConfig
from codepmp_ray.config.studies import PoolConfig
from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.pool_rows import Answer, read_pool_row
from codepmp_ray.preference.sources.reading import read_source
from codepmp_ray.preference.sources.rows import Reject, Unusable
from codepmp_ray.records import stable_id
from codepmp_ray.studies.sets import MissingSet


@dataclass(frozen=True)
class Question:
    """`given_id` is the row's own name for it, if it has one."""

    text: str
    given_id: str | None
    answers: list[Answer]

    @property
    def text_id(self) -> str:
        """What training sources call a question that has no name."""
        return stable_id(self.text)


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


def read_questions(name: str, config: PoolConfig, data_dir: str | None) -> list[Question]:
    """Raises MissingSet when the pool is not there, InputError when no row of it is usable."""
    file = pool_file(name, config, data_dir)
    questions = []
    for item in read_source(DataSourceConfig(kind="preference", path=str(file))):
        if isinstance(item, Reject):
            continue
        try:
            row = read_pool_row(item[1])
        except Unusable:
            continue
        answers = [a for a in row.answers if a.label is not None and a.text.strip()]
        if row.question and answers:
            given = item[1].get("problem_id")
            questions.append(Question(row.question, str(given) if given else None, answers))
    if not questions:
        raise InputError(f"{file} has no row with a question and labelled answers.")
    return questions


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
