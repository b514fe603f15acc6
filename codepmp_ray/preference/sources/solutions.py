"""Questions with labelled solutions, as of GSM8K: right against wrong solutions of one question.

A row holds a question and a list of its solutions, each with a text and a truth value. Pairs of one
question are held out together, and there are at most `max_pairs_per_problem` of them.

Where solutions name the models that wrote them, right against wrong can be told by who wrote it and
in which form, without any mathematics. Such pairs are balanced (`balance`, the default): both sides
have one form, and where their models are right unequally often, over the whole set, as many pairs
of the question have the right answer from the worse model as from the better one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from codepmp_ray.config.data import DataSourceConfig
from codepmp_ray.preference.sources.rows import (
    Built,
    Numbered,
    Reject,
    Row,
    Unusable,
    checked_text,
    make_pair,
    pair_up,
    text_cell,
)
from codepmp_ray.records import stable_id
from codepmp_ray.reject_reasons import RejectReason

_LISTS = ("outputs", "candidates", "solutions")
_TEXTS = ("response", "text", "solution")
_LABELS = ("label", "correct", "is_correct")
COLUMNS = tuple({"question", name} for name in _LISTS)


@dataclass(frozen=True)
class _Question:
    """`right` and `wrong`: the model that wrote it ("" if not known), by different text."""

    index: int
    text: str
    right: dict[str, str]
    wrong: dict[str, str]

    @property
    def models(self) -> list[str]:
        return [*self.right.values(), *self.wrong.values()]


def build(rows: Iterable[Numbered], config: DataSourceConfig) -> Iterator[Built]:
    """Pairs of each question; a solution without text or label is rejected by itself.

    Balanced pairs take the shares of right answers of the whole set: all questions are read first.
    """
    waiting: list[_Question] = []
    for item in _questions(rows):
        if isinstance(item, Reject):
            yield item
        elif config.balance and (waiting or len(set(item.models)) > 1):
            waiting.append(item)
        else:
            yield from _every_pair(item, config)
    rates = _rates(waiting)
    for question in waiting:
        yield from _balanced(question, rates, config)


def _questions(rows: Iterable[Numbered]) -> Iterator[_Question | Reject]:
    for item in rows:
        if isinstance(item, Reject):
            yield item
            continue
        index, row = item
        sides: dict[bool, dict[str, str]] = {True: {}, False: {}}
        try:
            question = text_cell(row, "question").strip()
            if not question:
                raise Unusable(RejectReason.PROMPT_EMPTY, "question is missing or blank")
            solutions = _solutions(row)
        except Unusable as error:
            yield Reject(index, error.reason, error.detail)
            continue
        for number, solution in enumerate(solutions):
            try:
                text, label = _read(solution)
            except Unusable as error:
                yield Reject(index, error.reason, f"solution {number}: {error.detail}")
            else:
                model = solution.get("model") or solution.get("generator")
                sides[label].setdefault(text, model if isinstance(model, str) else "")
        # A text that is labelled both ways teaches nothing.
        both = sides[True].keys() & sides[False].keys()
        right, wrong = ({t: m for t, m in sides[s].items() if t not in both} for s in (True, False))
        if not right or not wrong:
            found = f"{len(right)} right and {len(wrong)} wrong distinct solutions"
            yield Reject(index, RejectReason.NO_CONTRAST, found)
            continue
        yield _Question(index, question, right, wrong)


def _every_pair(question: _Question, config: DataSourceConfig) -> Iterator[Row]:
    right, wrong = question.right, question.wrong
    for chosen, rejected in pair_up(list(right), list(wrong), config.max_pairs_per_problem):
        pair = make_pair(
            question.text, chosen, rejected, config, problem_id=stable_id(question.text)
        )
        models = [right[chosen], wrong[rejected]]
        yield pair | ({"models": models} if all(models) else {})


def _rates(questions: list[_Question]) -> dict[str, float]:
    """Each model's share of right answers, over all questions that have right and wrong ones."""
    labels: dict[str, list[bool]] = defaultdict(list)
    for question in questions:
        for model in question.right.values():
            labels[model].append(True)
        for model in question.wrong.values():
            labels[model].append(False)
    return {model: sum(found) / len(found) for model, found in labels.items()}


def _balanced(
    question: _Question, rates: dict[str, float], config: DataSourceConfig
) -> Iterator[Built]:
    """Pairs of which the model says nothing; then equally many with the right answer from the
    better model and from the worse one."""
    even, better, worse = [], [], []
    every = product(question.right.items(), question.wrong.items())
    for (chosen, one), (rejected, other) in sorted(
        every, key=lambda p: stable_id(p[0][0], p[1][0])
    ):
        lead = rates[one] - rates[other]
        if one and other and _form(chosen) == _form(rejected):
            (better if lead > 0 else worse if lead else even).append((chosen, rejected, one, other))
    rest = max(config.max_pairs_per_problem - len(even), 0)
    num = min(len(better), len(worse), rest // 2 or rest)
    if not num and not even:
        detail = (
            f"{len(better)} pairs of one form have the right answer from the better model, and "
            f"{len(worse)} from the worse one (balance=false takes them as they are)"
        )
        yield Reject(question.index, RejectReason.NO_CONTRAST, detail)
    mixed = [*better[:num], *worse[:num]]
    if rest == 1 and mixed:  # half of the questions have it one way, half the other way
        mixed = [mixed[int(stable_id(question.text)[-2:], 16) % 2]]
    for chosen, rejected, one, other in [*even[: config.max_pairs_per_problem], *mixed]:
        pair = make_pair(
            question.text, chosen, rejected, config, problem_id=stable_id(question.text)
        )
        yield pair | {"models": [one, other], "model_rates": [rates[one], rates[other]]}


def _form(text: str) -> tuple[bool, ...]:
    """How the answer is written, as far as that gives its writer away."""
    is_data = text.startswith(("{", "[", "```"))
    return (is_data, *(mark in text for mark in ("The answer is", "####", "\\boxed")))


def _solutions(row: dict[str, Any]) -> list[Any]:
    for name in _LISTS:
        if name in row:
            if isinstance(row[name], list):
                return row[name]
            raise Unusable(
                RejectReason.NOT_TEXT, f"{name} is {type(row[name]).__name__}, not a list"
            )
    raise Unusable(RejectReason.NO_CONTRAST, f"none of {', '.join(_LISTS)}")


def _read(solution: Any) -> tuple[str, bool]:
    if not isinstance(solution, dict):
        raise Unusable(RejectReason.NOT_TEXT, f"is {type(solution).__name__}, not an object")
    name = next((name for name in _TEXTS if name in solution), _TEXTS[0])
    text = checked_text(solution.get(name), name).strip()
    if not text:
        raise Unusable(RejectReason.EMPTY, f"{name} is blank")
    label = next((solution[name] for name in _LABELS if name in solution), None)
    # 0 and 1 equal False and True; fractions are no truth values.
    if label not in (True, False):
        raise Unusable(RejectReason.BAD_LABEL, f"label is {label!r}, not true or false")
    return text, bool(label)
