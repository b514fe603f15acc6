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
from codepmp_ray.studies import words
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

    def judged(comparison: Comparison) -> Comparison:
        p_value = adjusted.get(id(comparison))
        is_seen = p_value is not None and p_value < 1 - confidence
        return replace(comparison, verdict=_verdict(comparison, is_seen))

    made = [replace(o, comparisons=list(map(judged, o.comparisons))) for o in outcomes]
    num_seen = sum(p < 1 - confidence for p in adjusted.values())
    return Judged(made, len(every), len(results), num_seen)


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
    parts = []
    for head, group in (
        ("", [c for c in comparisons if c.about != "at hand"]),
        ("Reward models at hand: ", [c for c in comparisons if c.about == "at hand"]),
    ):
        if group:
            parts.append(head + " ".join(_sentences(group)))
    return " ".join(parts)


def _sentences(group: Sequence[Comparison]) -> list[str]:
    results = [c for c in group if c.p_value is not None]
    found = []
    if len(results) == 1:
        (only,) = results
        found.append(f"{only.question}: {words.difference_text(only)}: {only.verdict}.")
    elif results:
        up, down = (sum(c.verdict == word for c in results) for word in (HIGHER, LOWER))
        found.append(
            f"Of {len(results)} comparisons {up} came out higher and {down} lower beyond chance "
            f"(Holm over the report); {len(results) - up - down} are undecided."
        )
    if others := [c for c in group if c.p_value is None]:
        found.append(f"{_counted(others)}: {_range(others)}.")
    found += [c.told for c in results if c.told and c.verdict in (HIGHER, LOWER)]
    return found


def _counted(others: Sequence[Comparison]) -> str:
    most = max(c.num_seeds for c in others)
    made = f"{most} training{'s' if most > 1 else ''} of an arm, and {MIN_TRAININGS} are needed"
    if len(others) == 1:
        return f"Not a result, with {made}"
    return f"{len(others)} comparisons are not a result, with {made}"


def _range(comparisons: Sequence[Comparison]) -> str:
    """The differences as single figures, which say what was seen and nothing more."""
    means = sorted(100 * c.difference.mean for c in comparisons)
    if len(means) == 1:
        return f"{means[0]:+.1f} points were seen"
    return f"{means[0]:+.1f} to {means[-1]:+.1f} points were seen"


def headline(judged: Judged) -> str:
    """The first paragraph of a report: what came out about PMP, and of all else how much."""
    pmp = [c for o in judged.outcomes for c in o.comparisons if c.about == "pmp"]
    results = [c for c in pmp if c.p_value is not None]
    known = [c.paper_difference for c in pmp if c.paper_difference is not None]
    paper = (
        f" The paper's, of its own models and sets, are {100 * min(known):+.1f} to "
        f"{100 * max(known):+.1f} points."
        if known
        else ""
    )
    num = judged.num_results
    rest = (
        f"Of all {judged.num_comparisons} comparisons {num} "
        f"{'is a result' if num == 1 else 'are results'}, {judged.num_beyond_chance} of them "
        "beyond chance when their number is counted (Holm)."
    )
    if not pmp:
        return f"Nothing here compares models with and without PMP. {rest}"
    if not results:
        return (
            "Does pretraining on code pairs (PMP) help here? This report cannot say: none of its "
            f"{len(pmp)} differences between models with and without PMP rests on {MIN_TRAININGS} "
            f"trainings of each. As single figures, {_range(pmp)}.{paper} {rest}"
        )
    up, down = (sum(c.verdict == word for c in results) for word in (HIGHER, LOWER))
    answer = "undecided" if not up + down else "yes" if not down else "no" if not up else "in part"
    return (
        f"Does pretraining on code pairs (PMP) help here? {answer.capitalize()}: of {len(results)} "
        f"differences between models with and without it, {up} are above zero and {down} below "
        f"beyond chance; {_range(results)}.{paper} {rest}"
    )
