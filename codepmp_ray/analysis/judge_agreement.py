"""Do judges agree with the order of a pair, and with each other? Paper, section D.4.2.

There a judge model agrees with 75.12 % of CodePMP's pairs and 71.56 % of CodeUltraFeedback's.
Judges prefer a position, too, so each pair can be shown both ways: a verdict that changes with the
order is no verdict, and a judge that mostly names one position cannot judge.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from codepmp_ray.analysis.lengths import wilson_interval
from codepmp_ray.errors import InputError
from codepmp_ray.resampling import Interval

CHOSEN, REJECTED, TIE = "chosen", "rejected", "tie"
_MOST = 0.9  # of verdicts for one position, or of pairs without a verdict: no judge


@dataclass(frozen=True)
class OrderAgreement:
    """`agreement`: of pairs with a verdict, the share in which it is the pair's order.

    Attributes:
        num_undecided: ties, and verdicts that turned with the order of showing.
        first_shown: of verdicts by order of showing, the share for the answer shown first; None
            when pairs were shown one way only. 0.5 is no preference for a position.
    """

    agreement: Interval
    num_pairs: int
    num_undecided: int
    first_shown: float | None

    @property
    def can_judge(self) -> bool:
        """Whether the verdicts follow the answers at all, and not the order of showing alone."""
        one_position = self.first_shown is not None and not 1 - _MOST < self.first_shown < _MOST
        return not one_position and self.num_undecided < _MOST * self.num_pairs

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def order_agreement(
    chosen_first: Sequence[str], rejected_first: Sequence[str] | None = None
) -> OrderAgreement:
    """From verdicts "chosen", "rejected" or "tie" by pair, with the chosen answer shown first and,
    if pairs were shown twice, second. The interval is Wilson's of 95 %.

    Raises InputError for other verdicts, lists of unequal length, or no pairs.
    """
    both = [chosen_first, chosen_first if rejected_first is None else rejected_first]
    if len(both[0]) != len(both[1]) or not both[0]:
        raise InputError(f"{len(both[0])} and {len(both[1])} verdicts are not those of one set.")
    if wrong := {*both[0], *both[1]} - {CHOSEN, REJECTED, TIE}:
        raise InputError(
            f"{sorted(wrong)[0]!r} is no verdict; they are {CHOSEN}, {REJECTED} and {TIE}."
        )
    verdicts = [one if one == other else TIE for one, other in zip(*both, strict=True)]
    counts = Counter(verdicts)
    num_decided = counts[CHOSEN] + counts[REJECTED]
    share = counts[CHOSEN] / num_decided if num_decided else float("nan")
    low, high = wilson_interval(share, num_decided)
    first = None
    if rejected_first is not None:
        for_first = Counter(chosen_first)[CHOSEN] + Counter(rejected_first)[REJECTED]
        num_verdicts = sum(verdict != TIE for verdict in (*chosen_first, *rejected_first))
        first = for_first / num_verdicts if num_verdicts else None
    return OrderAgreement(Interval(share, low, high), len(verdicts), counts[TIE], first)
