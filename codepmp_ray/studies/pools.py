"""Pools: many labelled answers to each question, from a file, as arrays.

A row is a question and its answers: `{"question": ..., "candidates": [{"text": ..., "correct":
true, "answer": "18", "model": "..."}]}`; `outputs`/`response`/`label` are understood too, as in the
training kind `gsm8k_solutions`. `answer` (for majority voting), `model` and `problem_id` (by which
questions are split; else by their text) may be missing.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from codepmp_ray.config.data import DataSourceConfig
from codepmp_ray.config.studies import PoolConfig, SetConfig
from codepmp_ray.errors import InputError
from codepmp_ray.preference.sources.reading import read_source
from codepmp_ray.preference.sources.rows import Reject
from codepmp_ray.records import stable_id
from codepmp_ray.studies.sets import MissingSet, is_test

Generators = Literal["all", "weaker", "stronger"]
_LISTS = ("candidates", "outputs", "solutions")
_TEXTS = ("text", "response", "solution")
_LABELS = ("correct", "label", "is_correct")


@dataclass(frozen=True)
class LabelledPool:
    """The same number of answers to each question.

    Attributes:
        prompts: [problems]; `texts` [problems][candidates].
        correct: [problems, candidates], 0 or 1.
        answers: [problems, candidates], equal numbers for equal final answers; None if not known.
        origin: file and which answers, for the report.
    """

    name: str
    prompts: list[str]
    texts: list[list[str]]
    correct: npt.NDArray[np.float64]
    answers: npt.NDArray[np.int64] | None
    origin: str

    @property
    def size(self) -> tuple[int, int]:
        return self.correct.shape


def load_pool(
    name: str,
    config: PoolConfig,
    data_dir: str | None,
    test_of: SetConfig | None,
    num_problems: int,
    num_candidates: int,
    generators: Generators = "all",
) -> LabelledPool:
    """`num_candidates` answers, drawn by a hash, to up to `num_problems` questions.

    With `generators` the answers are those of the half of the models that is weaker, or stronger,
    by their share of right answers in the whole file. Questions with fewer answers are left out.

    Raises MissingSet when the file is not there, InputError when it holds no usable question.
    """
    questions = _read(_file(name, config, data_dir))
    allowed = _models(questions, generators)
    kept: list[tuple[str, list[dict[str, Any]]]] = []
    for problem_id, question, found in questions:
        if test_of is not None and not is_test({"problem_id": problem_id}, test_of.test_fraction):
            continue
        answers = [a for a in found if allowed is None or a["model"] in allowed]
        if len(answers) >= num_candidates:
            answers.sort(key=lambda a: stable_id(question, a["model"] or "", a["text"]))
            kept.append((question, answers[:num_candidates]))
    kept.sort(key=lambda item: hashlib.sha256(item[0].encode()).digest())
    kept = kept[:num_problems]
    if len(kept) < 2:
        raise InputError(
            f"The pool {name!r} ({config.path}) has {len(kept)} questions with {num_candidates} "
            f"answers of {generators} generators.",
            f"Lower num_candidates, which is {num_candidates}.",
        )
    words = "" if generators == "all" else f", answers of the {generators} half of its models"
    return LabelledPool(
        f"{name}-{generators}",
        [question for question, _ in kept],
        [[a["text"] for a in answers] for _, answers in kept],
        np.array([[float(a["correct"]) for a in answers] for _, answers in kept]),
        _groups([[a["answer"] for a in answers] for _, answers in kept]),
        f"{config.path}{words}",
    )


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


def answered_by(
    name: str, config: PoolConfig, data_dir: str | None, generators: tuple[str, ...]
) -> AnsweredByAll:
    """Raises MissingSet when the file is not there, InputError when they share no two questions."""
    questions, correct = [], []
    every: set[str] = set()
    for _, question, answers in _read(_file(name, config, data_dir)):
        first = {a["model"]: a["correct"] for a in reversed(answers) if a["model"]}
        every |= first.keys()
        if all(generator in first for generator in generators):
            questions.append(question)
            correct.append([float(first[generator]) for generator in generators])
    if len(questions) < 2:
        raise InputError(
            f"{len(questions)} questions of {config.path} have answers of all of "
            f"{', '.join(generators)}.",
            f"It has answers of {', '.join(sorted(every)) or 'no named generator'}.",
        )
    return AnsweredByAll(generators, questions, np.array(correct), config.path)


Question = tuple[str, str, list[dict[str, Any]]]


def _file(name: str, config: PoolConfig, data_dir: str | None) -> Path:
    file = Path(data_dir or "") / config.path
    if data_dir is None or not file.exists():
        raise MissingSet(
            f"The pool {name!r} is not here: it is looked for as {config.path} below "
            f"{'data_dir, which is not set' if data_dir is None else data_dir}.",
            f"Set data_dir=FOLDER, or pools.{name}.path. A row is a question and its candidates, "
            "each with text and correct: docs/data-format.md shows one.",
        )
    return file


def _read(file: Path) -> list[Question]:
    """(problem id, question, usable answers) by row; answers without text or label are left out."""
    questions = []
    for item in read_source(DataSourceConfig(kind="preference", path=str(file))):
        if isinstance(item, Reject):
            continue
        row = item[1]
        question = row.get("question")
        found = next((row[name] for name in _LISTS if isinstance(row.get(name), list)), None)
        if not isinstance(question, str) or not question.strip() or found is None:
            continue
        answers = [a for a in map(_answer, found) if a is not None]
        problem_id = row.get("problem_id") or stable_id(question.strip())
        questions.append((str(problem_id), question.strip(), answers))
    if not questions:
        raise InputError(f"{file} has no row with a question and a list of answers.")
    return questions


def _answer(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, dict):
        return None
    text = next((value[name] for name in _TEXTS if name in value), None)
    label = next((value[name] for name in _LABELS if name in value), None)
    if not isinstance(text, str) or not text.strip() or label not in (True, False):
        return None
    model, answer = value.get("model"), value.get("answer")
    return {
        "text": text.strip(),
        "correct": bool(label),
        "model": model if isinstance(model, str) else None,
        "answer": None if answer is None else str(answer).strip(),
    }


def _models(questions: list[Question], generators: Generators) -> set[str | None] | None:
    if generators == "all":
        return None
    rates: dict[str, list[bool]] = defaultdict(list)
    for _, _, answers in questions:
        for answer in answers:
            if answer["model"] is not None:
                rates[answer["model"]].append(answer["correct"])
    order = sorted(rates, key=lambda name: (np.mean(rates[name]), name))
    half = len(order) // 2
    return set(order[:half] if generators == "weaker" else order[-half:] if half else [])


def _groups(answers: list[list[str | None]]) -> npt.NDArray[np.int64] | None:
    if all(answer is None for row in answers for answer in row):
        return None
    rows = []
    for row in answers:
        numbers: dict[str, int] = {}
        # No answer agrees with nobody.
        names = [name if name is not None else f"none {i}" for i, name in enumerate(row)]
        rows.append([numbers.setdefault(name, len(numbers)) for name in names])
    return np.array(rows, dtype=np.int64)
