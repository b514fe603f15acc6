"""Figure 13: is the stronger of two generators better in every kind of question?

Pairs of preference data take the stronger model's answer for the better one. The paper finds that
this holds within a family and fails between families, for generators of code. Here the generators
are those of a pool of labelled answers, and the kinds of questions are told by their words: of
programming problems (HumanEval, MBPP) strings, lists, numbers and so on. Other pools are stand-ins.
"""

from __future__ import annotations

import re

import numpy as np

from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.pools import Pool
from codepmp_ray.resampling import Floats
from codepmp_ray.studies import measures, paper
from codepmp_ray.studies.outcome import Outcome, Plot, Row, Series, Table, Value
from codepmp_ray.studies.pools import answered_by
from codepmp_ray.studies.scores import ScoreBook
from codepmp_ray.studies.study import Context, Models, Study
from codepmp_ray.studies.trainings import Arm

_MIN_QUESTIONS = 10  # of a kind; fewer say nothing
_OF_CODE = ("HumanEval", "MBPP")
_CODE_KINDS = {
    "strings": r"\bstr(?:ing)?s?\b|\bcharacters?\b|\bwords?\b|\bsubstring",
    "lists": r"\blists?\b|\barrays?\b|\btuples?\b|\belements?\b",
    "dictionaries": r"\bdict",
    "numbers": r"\bint(?:eger)?s?\b|\bfloat|\bnumbers?\b|\bsum\b|\bdigits?\b",
    "recursion": r"\brecursi|fibonacci|factorial|\btribonacci|\bsequence\b|nested",
    "sorting": r"\bsort|\border|\blargest\b|\bsmallest\b|\bmaximum\b|\bminimum\b",
    "conditions": r"\bcheck\b|\bwhether\b|\btrue\b|\bfalse\b",
}
_KINDS = {
    "money": r"\$|\b(?:dollars?|cents?|pay|cost|price)",
    "parts": r"%|\b(?:percent|half|third|quarter|fifth)|\d/\d",
    "time": r"\b(?:hours?|minutes?|days?|weeks?|months?|years?)\b",
    "rates": r"\b(?:per|each|every)\b",
    "more or less": r"\b(?:more|less|fewer|twice|times as)\b",
}
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
_LONG, _MANY_NUMBERS = 55, 5


def kinds_of(question: str, is_code: bool = False) -> set[str]:
    """The kinds of a question in words; it may have several, or none."""
    text = question.lower()
    if is_code:
        return {name for name, pattern in _CODE_KINDS.items() if re.search(pattern, text)}
    found = {name for name, pattern in _KINDS.items() if re.search(pattern, text)}
    if len(text.split()) >= _LONG:
        found.add("long")
    if len(_NUMBER.findall(text)) >= _MANY_NUMBERS:
        found.add("many numbers")
    return found


def arms(context: Context) -> list[Arm]:
    """Nothing is trained; what is missing is said."""
    _pairs_of(context)
    return []


def measure(context: Context, models: Models, book: ScoreBook) -> Outcome:
    pairs = _pairs_of(context)
    config = context.bench.config
    outcome = Outcome(
        facts={
            "paper": "within a family the stronger model is better in every dimension, between "
            "families not: Figure 13, whose values are only drawn"
        },
    )
    name = (context.options.pools or ("",))[0]
    benchmark = paper.benchmark_of(name, config.pools[name])
    is_code = benchmark in _OF_CODE
    words = []
    for group, found in pairs.items():
        by_kind = _by_kind(found, is_code)
        # Intervals of one pair of generators hold together (Bonferroni).
        alone = 1 - (1 - config.confidence) / len(by_kind)
        gaps = {
            n: measures.compare(n, v[:, 0], v[:, 1], alone).difference for n, v in by_kind.items()
        }
        generators = context.options.generator_pairs[group]
        title = f"{generators[0]} and {generators[1]}, {group}"
        outcome.tables.append(_table(title, by_kind, gaps))
        outcome.plots.append(_radar(title, generators, by_kind))
        words.append(f"{title}: {_verdict(gaps)}")
    outcome.summary = f"{'; '.join(words)}."
    outcome.differs = [
        f"Generators of the pool {found.origin} on {len(found.questions):,} questions that both "
        "answered, one answer each; kinds of questions by their words."
        for found in list(pairs.values())[:1]
    ]
    if not is_code:
        outcome.stand_ins.append(
            f"Answers to questions of {benchmark or name} in place of programs: give a pool of "
            "answers of two code models to HumanEval's or MBPP's problems (jobs.pool of each)."
        )
    outcome.notes.append(
        "Intervals of one pair's differences hold together (Bonferroni). A question may be of "
        "several kinds."
    )
    return outcome


def _pairs_of(context: Context) -> dict[str, Pool]:
    """What both generators of each pair answered, by the kind of the pair. Raises MissingSet."""
    names, pairs = context.options.pools or (), context.options.generator_pairs
    if not names or not pairs:
        raise InputError(
            f"{context.name} names no pool, or no pairs of its generators.",
            f"Set studies.{context.name}.pools and generator_pairs.",
        )
    config = context.bench.config
    pool = config.pools[names[0]]
    return {
        label: answered_by(names[0], pool, config.data_dir, (strong, weak))
        for label, (strong, weak) in pairs.items()
    }


def _by_kind(found: Pool, is_code: bool) -> dict[str, Floats]:
    """What both generators have right [questions, 2] by kind of question, and of all."""
    kinds = [kinds_of(question, is_code) for question in found.prompts]
    values = {}
    for name in _CODE_KINDS if is_code else [*_KINDS, "long", "many numbers"]:
        rows = [i for i, of in enumerate(kinds) if name in of]
        if len(rows) >= _MIN_QUESTIONS:
            values[name] = found.correct[rows]
    if not values:
        raise InputError(f"No kind of question has {_MIN_QUESTIONS} in {found.origin}.")
    return values | {"all": found.correct}


def _table(title: str, by_kind: dict[str, Floats], gaps: dict[str, Value]) -> Table:
    rows = [
        Row(f"{n} ({len(v):,})", [*(Value(float(m)) for m in v.mean(axis=0)), gaps[n]], [None] * 3)
        for n, v in by_kind.items()
    ]
    return Table(f"Share right by kind of question: {title}", ["strong", "weak", "gap"], rows)


def _radar(title: str, generators: tuple[str, ...], by_kind: dict[str, Floats]) -> Plot:
    spokes = list(by_kind)
    values = np.array([found.mean(axis=0) for found in by_kind.values()])
    at = [float(i) for i in range(len(spokes))]
    series = [
        Series(name, at, column.tolist()) for name, column in zip(generators, values.T, strict=True)
    ]
    return Plot(title, "", "share right", series, False, kind="radar", spokes=spokes)


def _verdict(gaps: dict[str, Value]) -> str:
    better = [name for name, gap in gaps.items() if gap.low is not None and gap.low > 0]
    worse = [name for name, gap in gaps.items() if gap.high is not None and gap.high < 0]
    if len(better) == len(gaps):
        return "better in every kind"
    if worse:
        return f"worse in {', '.join(worse)}"
    return f"better in {len(better)} of {len(gaps)} kinds, undecided in the others"


FIGURE_13 = Study(
    "figure13",
    "Figure 13",
    "abilities of strong and weak generators",
    "Is the stronger of two models better in every kind of question?",
    arms,
    measure,
)
