"""What may be claimed: verdicts of all comparisons of a report together, and that in words.

All comparisons that are results are one family (Holm), however many studies they come from. What
rests on fewer trainings than `estimates.MIN_TRAININGS` is no result: it has no p-value, no verdict
and no place in the family.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from codepmp_ray.estimates import MIN_TRAININGS
from codepmp_ray.evaluation.statistics import holm
from codepmp_ray.studies.outcome import Comparison, Outcome

HIGHER, LOWER = "higher", "lower"
_NUMBERS = {1: "one training", 2: "two trainings"}


@dataclass(frozen=True)
class Judged:
    """`outcomes` with verdicts; of all `num_comparisons`, those that are results, and those of them
    that are beyond chance."""

    outcomes: list[Outcome]
    num_comparisons: int
    num_results: int
    num_beyond_chance: int


def judge(outcomes: Sequence[Outcome], confidence: float) -> Judged:
    """The verdicts of all comparisons of `outcomes`."""
    every = [c for outcome in outcomes for c in outcome.comparisons]
    results = [c for c in every if c.p_value is not None]
    adjusted = dict(
        zip(map(id, results), holm([c.p_value or 0.0 for c in results]), strict=True)
    )  # fmt: skip

    def judged(outcome: Outcome) -> Outcome:
        found = [
            replace(c, verdict=_verdict(c, adjusted.get(id(c), 1.0) < 1 - confidence))
            for c in outcome.comparisons
        ]
        told = replace(outcome, comparisons=found)
        return _without_paper(told) if told.is_stand_in else told

    made = list(map(judged, outcomes))
    num_seen = sum(p < 1 - confidence for p in adjusted.values())
    return Judged(made, len(every), len(results), num_seen)


def _without_paper(outcome: Outcome) -> Outcome:
    """A stand-in has none of the paper's columns, and no power for what the paper measured."""
    tables = [
        replace(t, paper_source="", rows=[replace(r, paper=[None] * len(r.paper)) for r in t.rows])
        for t in outcome.tables
    ]
    comparisons = [replace(c, power_for_paper=None) for c in outcome.comparisons]
    return replace(outcome, tables=tables, comparisons=comparisons)


def _verdict(comparison: Comparison, is_seen: bool) -> str:
    if comparison.p_value is None:
        num = comparison.num_seeds
        return f"{_NUMBERS.get(num, f'{num} trainings')}: not a result"
    if is_seen:
        return HIGHER if comparison.difference.mean > 0 else LOWER
    if comparison.detectable is None:
        return "undecided"
    return f"undecided (below {100 * comparison.detectable:.1f} points it would be missed)"


def conclude(comparisons: Sequence[Comparison]) -> str:
    """What judged comparisons say: first those that are about models of this study."""
    own = [c for c in comparisons if c.about != "at hand"]
    at_hand = [c for c in comparisons if c.about == "at hand"]
    told = [_sentences(own), f"Reward models at hand: {_sentences(at_hand)}" if at_hand else ""]
    return " ".join(filter(None, told))


def _sentences(group: Sequence[Comparison]) -> str:
    results = [c for c in group if c.p_value is not None]
    others = [c for c in group if c.p_value is None]
    found = []
    if len(results) == 1:
        (only,) = results
        found.append(f"{only.question}: {only.difference_text}: {only.verdict}.")
    elif results:
        up, down = _counts(results)
        found.append(
            f"Of {len(results)} comparisons {up} came out higher and {down} lower beyond chance "
            f"(Holm over the report); {len(results) - up - down} are undecided."
        )
    if others:
        num, most = len(others), max(c.num_seeds for c in others)
        found.append(
            f"{'Not a result' if num == 1 else f'{num} comparisons are not a result'}, with {most} "
            f"training{'s' if most > 1 else ''} of an arm where {MIN_TRAININGS} are needed: "
            f"{_range(others)}."
        )
    found += [c.told for c in results if c.told and c.verdict in (HIGHER, LOWER)]
    return " ".join(found)


def _counts(results: Sequence[Comparison]) -> tuple[int, int]:
    up, down = (sum(c.verdict == word for c in results) for word in (HIGHER, LOWER))
    return up, down


def _range(comparisons: Sequence[Comparison]) -> str:
    """The differences as single figures, which say what was seen and nothing more."""
    means = [100 * c.difference.mean for c in comparisons]
    ends = dict.fromkeys(f"{end:+.1f}" for end in (min(means), max(means)))
    return f"{' to '.join(ends)} points were seen"


def headline(judged: Judged) -> str:
    """The first paragraph of a report: what came out about PMP, and of all else how much."""
    pmp = [c for o in judged.outcomes for c in o.comparisons if c.about == "pmp"]
    rest = (
        f"Of all {judged.num_comparisons} comparisons {judged.num_results} rest on enough to be a "
        f"result; {judged.num_beyond_chance} are beyond chance, their number counted (Holm)."
    )
    if not pmp:
        return f"Nothing here compares models with and without PMP. {rest}"
    results = [c for c in pmp if c.p_value is not None]
    known = [100 * c.paper_difference for c in pmp if c.paper_difference is not None]
    of_paper = (
        f" The paper's, of its own models and sets: {min(known):+.1f} to {max(known):+.1f}."
        if known
        else ""
    )
    up, down = _counts(results)
    answer = "in part" if up and down else "yes" if up else "no" if down else "undecided"
    what = f"of {len(results)} differences between models with and without it {up} are above zero "
    what += f"and {down} below beyond chance"
    if not results:
        answer = "this cannot say"
        what = f"none of its {len(pmp)} differences between models with and without it rests on "
        what += f"{MIN_TRAININGS} trainings of each, so none is a result"
    return (
        f"Does pretraining on code pairs (PMP) help here? {answer.capitalize()}: {what}; "
        f"{_range(results or pmp)}.{of_paper} {rest}"
    )
