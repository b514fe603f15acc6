"""Reasoning Gym (Stojanovski et al. 2025): kinds of problems that are made, each with a verifier.

Mathematics and logic without a hub and without end. A recipe names the kinds with their parameters;
the same settings make the same problems on every machine. No two of them ask the same: "3 * 4" is
"4 * 3", so a fact that was trained on is not asked in the evaluation.
"""

from __future__ import annotations

import dataclasses
import difflib
import io
import json
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from typing import Any

from codepmp_ray.errors import ConfigError
from codepmp_ray.evaluation.graders import Reference
from codepmp_ray.evaluation.graders.verifiers import library
from codepmp_ray.evaluation.tasks.base import ProblemTask, Row, TextProblem, text_of
from codepmp_ray.records import stable_id

# Kinds that are refused, and why; of version 0.1.25.
REFUSED = {
    **dict.fromkeys(
        (
            "binary_matrix", "countdown", "intermediate_integration", "n_queens",
            "polynomial_multiplication", "puzzle24", "simple_integration", "spiral_matrix",
            "string_insertion",
        ),
        "its verifier evaluates what an answer says as Python",
    ),
    **dict.fromkeys(
        ("isomorphic_strings", "knight_swap", "list_functions", "ransom_note", "word_ladder"),
        "its problems differ from one process to the next",
    ),
    **dict.fromkeys(("boxnet", "rush_hour"), "it knows no right answer"),
    "codeio": "it runs programs that a language model wrote",
    "composite": "it mixes other kinds",
}  # fmt: skip
# Where several answers are right, the metadata may have one of them.
_EXAMPLES = ("example_answer", "example_correct_answer", "possible_answer")
_MAX_ROUNDS = 50  # of `size` problems each; a small kind repeats itself
_NUMBER = r"-?\d+(?:\.\d+)?"
# Numbers in a row, with operators or in prose; those of a list in brackets keep their places.
_RUN = re.compile(rf"\[[^][]*\]|{_NUMBER}(?:[\s()]*(?:[-+*/,]|,? and\b)[\s()]*{_NUMBER})+")
_TOKEN = re.compile(r"\d+(?:\.\d+)?|[-+*/]")


def rows(kinds: dict[str, dict[str, Any]], seed: int) -> Iterator[Row]:
    """Rows for `problem`: of each kind as many different ones as its `size` says (500).

    Raises ConfigError for a kind or parameter that there is not, and for a `size` beyond what the
    kind has; InputError where the package is missing.
    """
    seen: set[str] = set()
    for kind in sorted(kinds):
        size, num_made = open_kind(kind, kinds[kind]).size, 0
        for entry in _entries(kind, kinds[kind], seed):
            key = question_key(kind, str(entry["question"]))
            if key in seen or not _answer(entry):
                continue
            seen.add(key)
            num_made += 1
            yield {"kind": kind, "parameters": kinds[kind], "entry": entry}
            if num_made == size:
                break
        else:
            raise ConfigError(
                f"candidates.kinds.{kind} makes {num_made} different problems, not size={size}.",
                "Lower its size, or widen its parameters.",
            )


def problem(row: Row, index: int) -> TextProblem:
    """A row of `rows`. Its answer is bare, so it is no model's answer to be trained on."""
    question = text_of(row["entry"], "question").strip()
    name = f"ReasoningGym/{row['kind']}/{stable_id(question)[:12]}"
    return TextProblem(name, question, "", Reference(_answer(row["entry"]), verifier=row))


def open_kind(kind: str, parameters: dict[str, Any]) -> Any:
    """The library's dataset of a kind. Raises ConfigError that names what there is instead."""
    known = library().DATASETS
    where = f"candidates.kinds.{kind}"
    if kind not in known:
        raise ConfigError(f"{where}: there is no such kind.", _meant(kind, known))
    if kind in REFUSED:
        raise ConfigError(f"{where} is refused: {REFUSED[kind]}.", "Choose another kind.")
    # The seed of all kinds is candidates.split_seed.
    names = {field.name for field in dataclasses.fields(known[kind][1])} - {"seed"}
    if unknown := sorted(set(parameters) - names):
        message = f"{where}: there is no parameter {unknown[0]}."
        raise ConfigError(message, _meant(unknown[0], names))
    try:
        return library().create_dataset(kind, **parameters)
    except (AssertionError, TypeError, ValueError, KeyError) as error:
        raise ConfigError(
            f"{where}={parameters}: {error}.", "See the kind's parameters."
        ) from error


def question_key(kind: str, question: str) -> str:
    """Equal for questions that ask the same, numbers and operators in any order.

    It is equal for some more ("5 - 3", "3 - 5"), which costs a few problems. Where one expression
    has all numbers of a question, the words around it do not matter.
    """
    text = " ".join(question.split())
    runs = [run for run in _RUN.findall(text) if run[0] != "["]
    if (
        len(runs) == 1
        and re.search("[-+*/]", runs[0][1:])
        and not re.search(r"\d", _RUN.sub("", text))
    ):
        return _sorted(runs[0])
    return f"{kind} {_RUN.sub(lambda found: _sorted(found[0]), text)}"


def _sorted(run: str) -> str:
    return run if run[0] == "[" else " ".join(sorted(_TOKEN.findall(run)))


def _entries(kind: str, parameters: dict[str, Any], seed: int) -> Iterator[dict[str, Any]]:
    """Problems in rounds of `size`. The library adds index and seed, so that near seeds would
    make the same problems: ours are far from each other."""
    for number in range(_MAX_ROUNDS):
        own_seed = int(stable_id(kind, str(seed), str(number))[:8], 16)
        made = library().create_dataset(kind, **{**parameters, "seed": own_seed})
        for index in range(made.size):
            with redirect_stdout(io.StringIO()):  # some kinds tell what they do
                entry = made[index]
            yield entry


def _answer(entry: dict[str, Any]) -> str:
    """A right answer as text; "" where the library shows none."""
    metadata = entry["metadata"]
    shown = (entry["answer"], *(metadata.get(name) for name in _EXAMPLES))
    answer = next((value for value in shown if value), "")
    return answer if isinstance(answer, str) else json.dumps(answer)


def _meant(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {close[0]}?" if close else f"There are {', '.join(sorted(known))}."


TASK = ProblemTask(
    name="reasoning_gym",
    title="Reasoning Gym",
    license="Apache-2.0",
    kind="generative",
    grader="reasoning_gym",
    hub=None,
    problem=problem,
)
