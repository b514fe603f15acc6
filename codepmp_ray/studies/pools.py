"""Pools as studies take them: of labelled answers, one question each, the same number to each.

Rows with the same question are one question: counted apart, its answers would pass for those of two
problems.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from codepmp_ray.config.study_materials import PoolConfig
from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.pool_rows import Answer
from codepmp_ray.evaluation.pools import Pool, Question
from codepmp_ray.preference.sources.reading import numbered
from codepmp_ray.preference.sources.rows import Unusable
from codepmp_ray.records import stable_id
from codepmp_ray.reject_reasons import RejectReason
from codepmp_ray.studies.sets import MissingSet, PairSet, is_test

Generators = Literal["all", "weaker", "stronger"]


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


def read_pool(name: str, config: PoolConfig, data_dir: str | None) -> Pool:
    """All of the file; questions are named by their text.

    Raises MissingSet when the pool is not there, InputError when no row of it is usable.
    """
    file = pool_file(name, config, data_dir)
    found = file.stat()
    return _read_version(file, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=8)
def _read_version(file: Path, size: int, mtime_ns: int) -> Pool:
    """The file, read once per process while it stays as it is."""
    pool = Pool()
    for index, row, found in pool.rows(numbered("the pool", str(file))):
        if not found.question:
            pool.reject(index, Unusable(RejectReason.PROMPT_EMPTY, "no question"))
            continue
        answers = [answer for answer in found.answers if _is_of_use(pool, index, answer)]
        if not answers:
            continue  # the reasons of its answers are counted
        pool.num_repeats += found.question in pool.questions
        made = Question(found.question, found.question, index)
        question = pool.questions.setdefault(found.question, made)
        question.answers += answers
        name = row.get("problem_id")
        question.given_id = question.given_id or (str(name) if name else None)
    if not pool.questions:
        reasons = f" (rejected: {pool.reject_counts})" if pool.rejects else ""
        raise InputError(
            f"{file} has no row with a question and labelled answers{reasons}.",
            "docs/data-format.md shows a row of a pool.",
        )
    return pool


def _is_of_use(pool: Pool, index: int, answer: Answer) -> bool:
    """False for an answer that a study can do nothing with; it is rejected."""
    reason = RejectReason.BAD_LABEL if answer.label is None else None
    reason = reason if answer.text.strip() else RejectReason.EMPTY
    if reason is not None:
        pool.reject(index, Unusable(reason, "of no use"), f"answer {answer.place}: ")
    return reason is None


def pool_notes(name: str, pool: Pool) -> list[str]:
    """What a study says about rows that were left out or put together."""
    found = []
    if pool.rejects:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in pool.reject_counts.items())
        num = len(pool.rejects)
        found.append(f"Pool {name}: {num:,} rows or answers are of no use ({reasons}).")
    if pool.num_repeats:
        found.append(
            f"Pool {name}: {pool.num_repeats:,} rows repeat a question; their answers count as "
            "those of one question."
        )
    return found


def read_questions(name: str, config: PoolConfig, data_dir: str | None) -> list[Question]:
    """The questions of `read_pool`, with the answers of the pool's `generators` alone.

    Raises InputError for a generator that the pool has no answer of, also what `read_pool` raises.
    """
    pool = read_pool(name, config, data_dir)
    if not config.generators:
        return list(pool)
    known = pool.models
    unknown = [generator for generator in config.generators if generator not in known]
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
            f"It has answers of {', '.join(sorted(known))}.",
        )
    return _of_models(pool, set(config.generators))


def _of_models(questions: Iterable[Question], models: set[str]) -> list[Question]:
    """The questions that have answers of `models`, with those alone."""
    found = []
    for question in questions:
        answers = [answer for answer in question.answers if answer.model in models]
        if answers:
            found.append(replace(question, answers=answers))
    return found


def answered_by(
    name: str, config: PoolConfig, data_dir: str | None, generators: tuple[str, ...]
) -> Pool:
    """Questions that all of `generators` answered, with the first answer of each, in their order.

    Raises MissingSet when the file is not there, InputError when they share no two questions.
    """
    found, every = Pool(origin=config.path), set()
    for question in read_questions(name, config, data_dir):
        first = {a.model: a for a in reversed(question.answers) if a.model}
        every |= first.keys()
        if all(generator in first for generator in generators):
            answers = [first[generator] for generator in generators]
            found.questions[question.name] = replace(question, answers=answers)
    if len(found.questions) < 2:
        raise InputError(
            f"{len(found.questions)} questions of {config.path} have answers of all of "
            f"{', '.join(generators)}.",
            f"It has answers of {', '.join(sorted(every)) or 'no named generator'}.",
        )
    return found


def load_pool(
    name: str,
    config: PoolConfig,
    data_dir: str | None,
    test_of: tuple[PairSet, float] | None,
    num_problems: int,
    num_candidates: int,
    generators: Generators = "all",
) -> Pool:
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
    num_answers = [0, 0]
    if generators != "all":
        questions = _of_models(questions, _half(questions, generators))
    kept = []
    for question in questions:
        num_answers.append(len(question.answers))
        if len(question.answers) >= num_candidates:
            order = sorted(
                question.answers, key=lambda a: stable_id(question.name, a.model or "", a.text)
            )
            answers = [replace(a, text=a.text.strip()) for a in order[:num_candidates]]
            kept.append(replace(question, answers=answers))
    kept.sort(key=lambda question: hashlib.sha256(question.name.encode()).digest())
    kept = kept[:num_problems]
    of = f" of {', '.join(config.generators)}" if config.generators else ""
    if len(kept) < 2:
        raise InputError(
            f"The pool {name!r} ({config.path}) has {len(kept)} questions with {num_candidates} "
            f"answers of {generators} generators{of}.",
            f"Set pools.{name}.num_candidates to what two questions have: at most "
            f"{sorted(num_answers)[-2]} here"
            + (f", or name more models in pools.{name}.generators." if of else "."),
        )
    words = "" if generators == "all" else f", answers of the {generators} half of its models"
    words += f", answers{of} alone" if of else ""
    return Pool(
        {question.name: question for question in kept},
        name=f"{name}-{generators}",
        origin=f"{config.path}{words}",
        setting=name,
    )


def _untrained(
    questions: list[Question], of: PairSet, fraction: float
) -> Callable[[Question], bool]:
    """Whether a question is none that the set trains on, by the names that the set itself uses.

    Training sources call a question that has no name by a hash of its text.
    """
    names = {row.get("problem_id") for row in (*of.train, *of.test)}
    has_given = sum(q.given_id in names for q in questions if q.given_id is not None)
    has_text = sum(stable_id(q.name) in names for q in questions)

    def is_free(question: Question) -> bool:
        given = question.given_id if has_given > has_text else None
        problem_id = given or stable_id(question.name)
        if of.has_own_split:
            return problem_id not in trained
        # By the hash: of questions that made no pair, too, only the test share is taken.
        return is_test({"problem_id": problem_id}, fraction)

    trained = {row.get("problem_id") for row in of.train} if of.has_own_split else set()
    return is_free


def _half(questions: list[Question], generators: Generators) -> set[str]:
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
