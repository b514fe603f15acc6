"""OpenAI's example solutions of GSM8K: a question in each row, and a column for each model's.

All are written in one form, and which model wrote a solution cannot be told by counts of style. But
models differ in how often they are right, so who wrote it could still be what a reward model
learns. So of each question there is one pair, and in as many of them the right solution is of the
model that is right less often as in the others.

Source: github.com/openai/grade-school-math, example_model_solutions.jsonl (MIT).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from codepmp_ray.config.data import DataSourceConfig
from codepmp_ray.preference.sources.rows import Built, Numbered, Reject, Row, of_one_answer
from codepmp_ray.preference.sources.solutions import build as build_solutions
from codepmp_ray.records import stable_id
from codepmp_ray.reject_reasons import RejectReason

_TEXTS = ("question", "ground_truth")
_EVERY = 16  # pairs of a question: all, of four models


def build(rows: Iterable[Numbered]) -> Iterator[Built]:
    """Every pair of a right and a wrong solution, with `models` and `model_rates` of both sides.

    A rate is the model's share of right solutions over all questions. What is no solution is
    rejected.
    """
    right: dict[str, list[bool]] = defaultdict(list)
    questions: list[Numbered] = []
    for item in rows:
        if isinstance(item, Reject):
            yield item
            continue
        index, row = item
        found = {name: value for name, value in row.items() if name not in _TEXTS}
        wrong = [name for name, value in found.items() if not isinstance(value, dict)]
        if wrong:
            yield Reject(
                index, RejectReason.NOT_TEXT, f"{', '.join(wrong)}: no solution of a model"
            )
            continue
        for name, value in found.items():
            if value.get("is_correct") in (True, False):
                right[name].append(bool(value["is_correct"]))
        solutions = [value | {"model": name} for name, value in found.items()]
        questions.append((index, {"question": row.get("question"), "solutions": solutions}))
    rates = {name: sum(labels) / len(labels) for name, labels in right.items()}
    config = DataSourceConfig(
        kind="gsm8k_solutions", path="-", balance=False, max_pairs_per_problem=_EVERY
    )
    for built in map(of_one_answer, build_solutions(questions, config)):
        if isinstance(built, Reject):
            yield built
        else:
            yield built | {"model_rates": [rates[model] for model in built["models"]]}


def one_of_each_question(rows: list[Row]) -> list[Row]:
    """As many pairs with the right solution from the less often right model as from the other.

    Questions that have pairs of one kind only are taken for that kind; of a kind that has too many
    questions some are left out, by a hash. The order stays.
    """
    by_question: dict[str, dict[bool, Row]] = defaultdict(dict)
    for row in sorted(rows, key=lambda row: stable_id("pair", row["pair_id"])):
        if row["model_rates"][0] != row["model_rates"][1]:
            by_question[row["problem_id"]].setdefault(is_from_worse(row), row)
    names = sorted(by_question, key=lambda name: stable_id("direction", name))
    num = min(*(sum(kind in by_question[n] for n in names) for kind in (True, False)),
              len(names) // 2)  # fmt: skip
    taken: list[Row] = []
    for kind in (True, False):
        # Those that have no other kind come first; the sort keeps the hash's order.
        able = sorted(
            (n for n in names if kind in by_question[n]), key=lambda n: len(by_question[n])
        )
        taken += [by_question.pop(name)[kind] for name in able[:num]]
        names = [name for name in names if name in by_question]
    kept = {row["pair_id"] for row in taken}
    return [row for row in rows if row["pair_id"] in kept]


def is_from_worse(row: Row) -> bool:
    """Whether the right solution is of the model that is right less often."""
    chosen, rejected = row["model_rates"]
    return chosen < rejected
