"""Files of answers that somebody sampled, as pools: for a task's problems, or with their labels.

Answers to a task: where every row brings its question and a reference, the file is all that is
needed (number and LaTeX graders); otherwise the task's own problems are read, and rows are matched
with them by id or by the question's text.

Graded answers of a run become rows of such a file: a question and its candidates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import PurePath

from codepmp_ray.config.pool_statistics import PoolStatisticsConfig
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.errors import ConfigError, InputError
from codepmp_ray.evaluation.graders import Reference
from codepmp_ray.evaluation.graders.final_answer import last_box
from codepmp_ray.evaluation.graders.numbers import find_number
from codepmp_ray.evaluation.pool_rows import Answer, PoolRow, read_grades, read_rewards
from codepmp_ray.evaluation.pools import Pool, Question
from codepmp_ray.evaluation.tasks.base import ProblemTask, TextProblem
from codepmp_ray.evaluation.tasks.loading import read_problems
from codepmp_ray.evaluation.tasks.registry import problem_task
from codepmp_ray.io.rows import read_whole
from codepmp_ray.preference.sources.reading import numbered
from codepmp_ray.preference.sources.rows import Numbered, Reject, Row, Unusable
from codepmp_ray.reject_reasons import RejectReason
from codepmp_ray.runs import open_stage

Rows = Iterable[tuple[int, PoolRow]]


def file_label(path: str) -> str:
    """The file's name, for rows' ids."""
    return PurePath(path).name


@cache
def load_pool(task_name: str, path: str, task_path: str | None) -> Pool:
    """A file of answers to problems of a task, read once per process; questions are problems.

    Raises InputError when it cannot be read or none of its rows gives an answer to a problem.
    """
    task, pool = problem_task(task_name), Pool()
    made = pool.rows(enumerate(read_whole("candidates.pool_path", path)))
    rows = [(index, found) for index, _, found in made if found.answers]
    of_text = task.grader in ("number", "latex")
    if of_text and all(row.question and row.reference for _, row in rows):
        _own_problems(pool, task, rows)
    else:
        _task_problems(pool, task, rows, task_path)
    if not pool.questions:
        raise InputError(
            f"No row of {path} gives answers to a problem of {task.title}: "
            f"{len(pool.rejects)} were rejected{pool.first_reject}.",
            "docs/evaluation.md says what a row of candidates.pool_path holds.",
        )
    return pool


def _own_problems(pool: Pool, task: ProblemTask, rows: Rows) -> None:
    """Problems of the file's own questions and references."""
    name_of: dict[str, str] = {}  # of a question: what it was called first
    for index, row in rows:
        text = row.question or ""
        name = name_of.get(text)
        if name is None:
            name = f"{task.title}/{index}" if row.problem_id is None else row.problem_id
            name = f"{task.title}/{name}" if name.isdigit() else name
        answer = _final(task, row.reference or "")
        known = pool.questions.get(name)
        detail = ""
        if answer is None:
            detail = f"the reference {row.reference!r:.80} holds no answer"
        elif known and isinstance(of := known.problem, TextProblem) and (
            of.prompt != text or of.reference.answer != answer
        ):  # fmt: skip
            detail = f"{name!r} has another question or reference in an earlier row"
        if detail or answer is None:
            pool.rejects.append(Reject(index, RejectReason.BAD_LABEL, detail))
            continue
        name_of[text] = name
        problem = TextProblem(name, text, row.reference or "", Reference(answer))
        question = pool.questions.setdefault(name, Question(name, text, index, problem=problem))
        question.answers += row.answers


def _final(task: ProblemTask, reference: str) -> str | None:
    if task.grader == "number":
        return find_number(reference)
    return (last_box(reference) or reference).strip() or None


def _task_problems(pool: Pool, task: ProblemTask, rows: Rows, task_path: str | None) -> None:
    """Rows matched with the task's own problems."""
    known = {problem.problem_id: problem for problem in read_problems(task, task_path)}
    by_prompt = {problem.prompt: name for name, problem in known.items()}
    for index, row in rows:
        name = row.problem_id
        if name is not None and name not in known and f"{task.title}/{name}" in known:
            name = f"{task.title}/{name}"
        if name not in known:
            name = by_prompt.get(row.question or "")
        if name is None:
            detail = f"{task.title} has neither the id {row.problem_id!r} nor this question"
            pool.rejects.append(Reject(index, RejectReason.UNKNOWN_PROBLEM, detail))
            continue
        made = Question(name, known[name].prompt, index, problem=known[name])
        pool.questions.setdefault(name, made).answers.extend(row.answers)


def load_labelled_pool(
    config: PoolStatisticsConfig, with_texts: bool = False, setting: str = "pool_statistics.path"
) -> Pool:
    """The pool of `config.path`, which `setting` names, cut to `num_problems`, `num_candidates`.

    Every answer has a label, and rewards in the order of the configuration.

    Raises ConfigError without a path; InputError for files that cannot be read or have nothing to
    use, and where candidates without a reward are to be refused.
    """
    if not config.path:
        raise ConfigError(
            "pool_statistics.path is not set.",
            "Name a file of labelled candidates; docs/evaluation.md says what a row holds.",
        )
    pool = Pool(origin=config.path)
    for question, answer in _labelled(pool, config, setting):
        questions, answers = pool.questions, question.answers
        is_new = question.name not in questions
        size, limit = (
            (len(questions), config.num_problems)
            if is_new
            else (len(answers), config.num_candidates)
        )
        if size == limit:
            pool.num_unused += 1
            continue
        questions[question.name] = question
        kept = answer if with_texts else replace(answer, text="")
        answers.append(replace(kept, place=len(answers)))
    if not pool.questions:
        raise InputError(
            f"{config.path} has no candidate with a label: {len(pool.rejects)} rows and "
            f"candidates were rejected{pool.first_reject}.",
            "docs/evaluation.md says what a row of a pool holds.",
        )
    if config.nan_scores == "refuse":
        _require_rewards(config, pool)
    return pool


def _labelled(
    pool: Pool, config: PoolStatisticsConfig, setting: str
) -> Iterator[tuple[Question, Answer]]:
    """Labelled answers in the order of the file; others are rejected."""
    path = config.path or ""
    columns = [item.column for item in config.rewards if item.column is not None]
    tables = [read_rewards(item.name, item.path) if item.path else None for item in config.rewards]
    grades = read_grades(config.grades_path) if config.grades_path else None
    questions: dict[str, Question] = {}
    seen: set[str] = set()
    rows: Iterator[Numbered] = (
        item
        for item in numbered(setting, path)
        if config.split is None or isinstance(item, Reject) or item[1].get("split") == config.split
    )
    for index, _, row in pool.rows(rows, columns):
        name = row.problem_id or row.question or ""
        question = questions.setdefault(name, Question(name, row.question, index))
        question.text = question.text or row.question
        if row.question not in (None, question.text):
            detail = f"{name!r} has another question in an earlier row"
            pool.rejects.append(Reject(index, RejectReason.BAD_LABEL, detail))
            continue
        of_tables = [table and table.of(row, f"{file_label(path)}#{index}") for table in tables]
        for answer in row.answers:
            of_columns = iter(answer.rewards)
            try:
                label, final = _label(answer, grades, seen)
            except Unusable as error:
                pool.reject(index, error, f"answer {answer.place}: ")
                continue
            rewards = [
                next(of_columns) if of is None else of.get(answer.place) for of in of_tables
            ]  # fmt: skip
            yield question, replace(answer, label=label, final=final, rewards=tuple(rewards))


def _label(
    answer: Answer, grades: dict[str, Row] | None, seen: set[str]
) -> tuple[bool, str | None]:
    """(whether it is right, its final answer).

    Raises Unusable for an answer without a label, and for a second one of the same id.
    """
    if answer.candidate_id is not None:
        if answer.candidate_id in seen:
            raise Unusable(
                RejectReason.EXACT_DUPLICATE, f"a second candidate {answer.candidate_id!r}"
            )
        seen.add(answer.candidate_id)
    if grades is not None:
        grade = grades.get(answer.candidate_id or "")
        if grade is None or grade.get("passed") is None:
            raise Unusable(RejectReason.NOT_EXECUTED, "no grade")
        return bool(grade["passed"]), grade.get("answer")
    if answer.label is None:
        raise Unusable(RejectReason.BAD_LABEL, "no label")
    return answer.label, answer.final


def _require_rewards(config: PoolStatisticsConfig, pool: Pool) -> None:
    every: Sequence[tuple[str, Answer]] = [(q.name, a) for q in pool for a in q.answers]
    for number, item in enumerate(config.rewards):
        missing = [(name, a.place) for name, a in every if a.rewards[number] is None]
        if missing:
            name, place = missing[0]
            raise InputError(
                f"{len(missing)} of {len(every)} candidates have no reward of {item.name!r} that "
                f"is a finite number; the first is candidate {place} of problem {name!r:.80}.",
                f"Score {config.path} with that model (ids and numbers of candidates have to be "
                "equal), or rank such candidates last: pool_statistics.nan_scores=last.",
            )


def graded_pool(recipe: Recipe, split: str = "eval") -> tuple[list[Row], dict[str, int]]:
    """(rows of docs/data-format.md, counts of the answers) from candidates and grades.

    Rows and answers are in the order of ids and samples. An answer without a grade, and an empty
    one, are not in the pool, but in the counts. Raises InputError when a stage is missing or
    nothing is left.
    """
    candidates = open_stage(recipe, "candidates").require().ledger
    grades = open_stage(recipe, "grades").require().ledger
    grade_of = {row["candidate_id"]: row for row in grades.read("grades").to_pylist()}
    rows: dict[str, Row] = {}
    counts: Counter[str] = Counter(num_used=0, num_without_grade=0, num_empty=0)
    answers = [row for row in candidates.read("candidates").to_pylist() if row["split"] == split]
    for answer in sorted(answers, key=lambda row: (row["problem_id"], row["sample_index"])):
        grade = grade_of.get(answer["candidate_id"])
        if grade is None or grade["passed"] is None:
            counts["num_without_grade"] += 1
            continue
        if not (answer["completion"] or "").strip():
            counts["num_empty"] += 1
            continue
        counts["num_used"] += 1
        row = rows.setdefault(
            answer["problem_id"],
            {"problem_id": answer["problem_id"], "question": answer["prompt"], "candidates": []},
        )
        row["candidates"].append(
            {
                "candidate_id": answer["candidate_id"],
                "text": answer["completion"],
                "correct": grade["passed"],
                "answer": grade["answer"],
                "model": answer["model"],
                "num_tokens": answer["num_tokens"],
            }
        )
    if not rows:
        raise InputError(
            f"No answer of the {split} problems of {recipe.run_dir} has a grade: "
            f"{counts['num_without_grade']} could not be graded, {counts['num_empty']} are empty.",
            "Run codepmp answers sample and codepmp answers grade first, where a sandbox works "
            "(codepmp cluster check says so).",
        )
    return list(rows.values()), dict(counts)
