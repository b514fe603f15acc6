"""Questions with options, as problems: ReClor, LogiQA 2.0 and LSAT-LR.

A problem's prompt is the one that finetuning saw (`preference.sources.multiple_choice`), without
the options: each of them is a candidate, and the reward model picks one of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from codepmp_ray.config.data import HUB_IDS, HUB_PLACES
from codepmp_ray.evaluation.graders import Reference
from codepmp_ray.evaluation.tasks.base import BadRow, HubSet, ProblemTask, Row, TextProblem
from codepmp_ray.preference.sources.multiple_choice import (
    LOGIQA2,
    RECLOR,
    Columns,
    read_question,
)
from codepmp_ray.preference.sources.rows import Unusable

_LETTERED = re.compile(r"\(([A-Z])\)\s*")
_ASKED = re.compile(r"(.+?)\s*Q: (.+?) Answer Choices: ", re.DOTALL)


def problem_reader(
    title: str, columns: Columns, id_column: str | None = None
) -> Callable[[Row, int], TextProblem]:
    """Reads rows with these columns; the problem's id is in `id_column`, or the row's number."""

    def problem(row: Row, index: int) -> TextProblem:
        try:
            question = read_question(_plain(row, columns), columns)
        except Unusable as error:
            raise BadRow(error.detail) from error
        if len(set(question.options)) < 2:
            raise BadRow(f"{columns.options} are all the same")
        name = row.get(id_column) if id_column else None
        name = name if isinstance(name, str | int) else index
        right = question.options[question.answer]
        reference = Reference(right, tuple(question.options))
        return TextProblem(f"{title}/{name}", question.prompt(), right, reference)

    return problem


def _plain(row: Row, columns: Columns) -> Row:
    """AGIEval's options "(A)text" without their letters, and its label, a letter, as a number.

    On the hub passage, question and options are one text: query, beside choices and gold.
    """
    if asked := _ASKED.match(str(row.get("query"))):
        gold = row.get("gold")
        letter = "ABCDE"[gold[0]] if gold in [[i] for i in range(5)] else gold
        values = (asked[1], asked[2], row.get("choices"), letter)
        row = dict(zip((columns.passage, columns.question, columns.options, columns.answer), values,
                       strict=True))  # fmt: skip
    options, label = row.get(columns.options), row.get(columns.answer)
    if not (isinstance(options, list) and isinstance(label, str) and len(label) == 1):
        return row
    marks = [_LETTERED.match(option) if isinstance(option, str) else None for option in options]
    letters = [mark[1] for mark in marks if mark]
    if letters != [chr(65 + i) for i in range(len(options))]:
        return row
    texts = [option[mark.end() :] for option, mark in zip(options, marks, strict=True) if mark]
    answer = letters.index(label) if label in letters else label
    return row | {columns.options: texts, columns.answer: answer}


def _task(name: str, title: str, license: str, hub: HubSet, problem) -> ProblemTask:
    return ProblemTask(
        name=name,
        title=title,
        license=license,
        kind="choice",
        grader="choice",
        hub=hub,
        problem=problem,
    )


_PLACE = HUB_PLACES["logiqa2"]
_LSAT_LR = Columns("passage", "question", "options", "label")
CHOICE_TASKS = (
    # The test part has no labels.
    _task(
        "reclor",
        "ReClor",
        "non-commercial research",
        HubSet(HUB_IDS["reclor"], "validation"),
        problem_reader("ReClor", RECLOR, "id_string"),
    ),
    # Its own `id` repeats.
    _task(
        "logiqa2",
        "LogiQA 2.0",
        "CC BY-NC-SA 4.0",
        HubSet(HUB_IDS["logiqa2"], "test", _PLACE["subset"], _PLACE["revision"]),
        problem_reader("LogiQA2", LOGIQA2),
    ),
    _task(
        "lsat_lr",
        "LSAT-LR",
        "MIT (AGIEval)",
        HubSet("dmayhem93/agieval-lsat-lr", "test"),
        problem_reader("LSAT-LR", _LSAT_LR),
    ),
)
