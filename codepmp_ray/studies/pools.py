"""Pools: many labelled answers to each question, from a file, as arrays."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from codepmp_ray.config.study_materials import PoolConfig
from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.answer_groups import answer_groups
from codepmp_ray.evaluation.pool_rows import Answer
from codepmp_ray.records import stable_id
from codepmp_ray.studies.pool_files import Question, read_questions
from codepmp_ray.studies.sets import PairSet, is_test

Generators = Literal["all", "weaker", "stronger"]


@dataclass(frozen=True)
class LabelledPool:
    """The same number of answers to each question.

    Attributes:
        prompts: [problems]; `texts` [problems][candidates].
        correct: [problems, candidates], 0 or 1.
        answers: [problems, candidates], equal numbers for equal final answers; None if not known.
        models: [problems, candidates], equal numbers for one generator; None unless all are known.
        origin: file and which answers, for the report; `config_name` is the pool's in the recipe.
        num_generators: how many models the answers name; 0 where they name none.
    """

    name: str
    prompts: list[str]
    texts: list[list[str]]
    correct: npt.NDArray[np.float64]
    answers: npt.NDArray[np.int64] | None
    models: npt.NDArray[np.int64] | None
    origin: str
    config_name: str
    num_generators: int

    @property
    def size(self) -> tuple[int, int]:
        return self.correct.shape


def load_pool(
    name: str,
    config: PoolConfig,
    data_dir: str | None,
    test_of: tuple[PairSet, float] | None,
    num_problems: int,
    num_candidates: int,
    generators: Generators = "all",
) -> LabelledPool:
    """`num_candidates` answers, drawn by a hash, to up to `num_problems` questions.

    With `generators` the answers are those of the half of the models that is weaker, or stronger,
    by their share of right answers in the whole file. Questions with fewer answers are left out.

    Args:
        test_of: a set with its share of test questions: no other question of it is taken.

    Raises MissingSet when the file is not there, InputError when it holds no usable question.
    """
    questions = read_questions(name, config, data_dir)
    if test_of is not None:
        questions = list(filter(_untrained(questions, *test_of), questions))
    num_candidates = min(num_candidates, config.num_candidates or num_candidates)
    allowed = _models(questions, generators)
    kept: list[tuple[str, list[Answer]]] = []
    num_answers = []
    for question in questions:
        answers = [a for a in question.answers if allowed is None or a.model in allowed]
        num_answers.append(len(answers))
        if len(answers) >= num_candidates:
            answers.sort(key=lambda a: stable_id(question.text, a.model or "", a.text))
            kept.append((question.text, answers[:num_candidates]))
    kept.sort(key=lambda item: hashlib.sha256(item[0].encode()).digest())
    kept = kept[:num_problems]
    of = f" of {', '.join(config.generators)}" if config.generators else ""
    if len(kept) < 2:
        raise InputError(
            f"The pool {name!r} ({config.path}) has {len(kept)} questions with {num_candidates} "
            f"answers of {generators} generators{of}.",
            f"Set pools.{name}.num_candidates to what two questions have: at most "
            f"{sorted(num_answers)[-2] if len(num_answers) > 1 else 0} here"
            + (f", or name more models in pools.{name}.generators." if of else "."),
        )
    words = "" if generators == "all" else f", answers of the {generators} half of its models"
    words += f", answers{of} alone" if of else ""
    return LabelledPool(
        f"{name}-{generators}",
        [question for question, _ in kept],
        [[a.text.strip() for a in answers] for _, answers in kept],
        np.array([[float(a.label or 0) for a in answers] for _, answers in kept]),
        _groups([[a.final for a in answers] for _, answers in kept]),
        _numbers([[a.model for a in answers] for _, answers in kept]),
        f"{config.path}{words}",
        name,
        len({a.model for _, answers in kept for a in answers if a.model is not None}),
    )


def _untrained(
    questions: list[Question], of: PairSet, fraction: float
) -> Callable[[Question], bool]:
    """Whether a question is none that the set trains on, by the names that the set itself uses."""
    names = {row.get("problem_id") for row in (*of.train, *of.test)}
    has_given = sum(q.given_id in names for q in questions if q.given_id is not None)
    has_text = sum(q.text_id in names for q in questions)

    def is_free(question: Question) -> bool:
        given = question.given_id if has_given > has_text else None
        problem_id = given or question.text_id
        if of.has_own_split:
            return problem_id not in trained
        # By the hash: of questions that made no pair, too, only the test share is taken.
        return is_test({"problem_id": problem_id}, fraction)

    trained = {row.get("problem_id") for row in of.train} if of.has_own_split else set()
    return is_free


def _models(questions: list[Question], generators: Generators) -> set[str | None] | None:
    if generators == "all":
        return None
    rates: dict[str, list[float]] = defaultdict(list)
    for question in questions:
        for answer in question.answers:
            if answer.model is not None:
                rates[answer.model].append(float(answer.label or 0))
    if len(rates) < 2:
        raise InputError(
            f"The {generators} half of {len(rates)} generators is asked for.",
            "It takes a pool with answers of two models or more, whose answers name their model.",
        )
    order = sorted(rates, key=lambda name: (np.mean(rates[name]), name))
    half = len(order) // 2
    return set(order[:half] if generators == "weaker" else order[-half:])


def _groups(answers: list[list[str | None]]) -> npt.NDArray[np.int64] | None:
    if all(answer is None for row in answers for answer in row):
        return None
    return np.array(list(map(answer_groups, answers)), dtype=np.int64)


def _numbers(models: list[list[str | None]]) -> npt.NDArray[np.int64] | None:
    """None where one is not named, or one model wrote everything."""
    names = sorted({name for row in models for name in row if name is not None})
    if len(names) < 2 or any(name is None for row in models for name in row):
        return None
    return np.array([[names.index(name or "") for name in row] for row in models], dtype=np.int64)
