"""Token lengths of a preference dataset, and how far length alone gives the label away.

Paper section 4.1.1 and Table 11: chosen and rejected answers have similar mean lengths (194.5 and
189.9 tokens), "ensuring that response length does not bias the CodePMP learning process". Equal
means do not ensure that; the two figures below that compare pairs do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Lengths = npt.NDArray[np.integer]


@dataclass(frozen=True)
class LengthStats:
    """Statistics of one column of token counts. All are NaN or 0 for an empty column."""

    num_rows: int
    mean: float
    median: float
    p95: float
    max: int

    @classmethod
    def of(cls, lengths: Lengths) -> LengthStats:
        if not len(lengths):
            return cls(0, math.nan, math.nan, math.nan, 0)
        return cls(
            len(lengths),
            float(np.mean(lengths)),
            float(np.median(lengths)),
            float(np.percentile(lengths, 95)),
            int(np.max(lengths)),
        )


@dataclass(frozen=True)
class LengthBias:
    """What length alone knows of the label.

    Attributes:
        num_pairs: pairs compared.
        chosen_longer / equal: shares of pairs.
        low / high: 95 % Wilson interval of `longer_rule`.
        accuracy: of the better of the two rules "the longer is chosen", "the shorter is chosen";
            ties count as half. 0.5 is no bias.
        auc: probability that a random chosen answer is longer than a random rejected answer of any
            pair, ties as half. 0.5 is no bias.
    """

    num_pairs: int
    chosen_longer: float
    equal: float
    low: float
    high: float
    accuracy: float
    auc: float

    @property
    def longer_rule(self) -> float:
        """Accuracy of "the longer answer is the chosen one", ties as half; 0.5 is no bias."""
        return self.chosen_longer + self.equal / 2

    @property
    def rule(self) -> str:
        """The better rule in words."""
        side = "shorter" if self.longer_rule < 0.5 else "longer"
        return f"the {side} answer is the chosen one"


@dataclass(frozen=True)
class PairLengths:
    """Statistics of the three texts of a pair, and the bias between the two answers."""

    description: LengthStats
    chosen: LengthStats
    rejected: LengthStats
    bias: LengthBias


def pair_lengths(description: Lengths, chosen: Lengths, rejected: Lengths) -> PairLengths:
    """All length figures of a dataset; the three arrays have one entry per pair, in tokens."""
    return PairLengths(
        LengthStats.of(description),
        LengthStats.of(chosen),
        LengthStats.of(rejected),
        length_bias(chosen, rejected),
    )


def length_bias(chosen: Lengths, rejected: Lengths) -> LengthBias:
    """Length as a predictor of the label. Both arrays have one entry per pair, in tokens."""
    num_pairs = len(chosen)
    if num_pairs != len(rejected):
        raise ValueError(f"{num_pairs} chosen lengths but {len(rejected)} rejected ones")
    if not num_pairs:
        return LengthBias(0, *[math.nan] * 6)
    longer = float(np.mean(chosen > rejected))
    equal = float(np.mean(chosen == rejected))
    longer_rule = longer + equal / 2
    low, high = wilson_interval(longer_rule, num_pairs)
    ordered = np.sort(rejected)
    below = np.searchsorted(ordered, chosen, side="left")
    not_above = np.searchsorted(ordered, chosen, side="right")
    auc = float(np.mean((below + not_above) / 2) / num_pairs)
    return LengthBias(num_pairs, longer, equal, low, high, max(longer_rule, 1 - longer_rule), auc)


def wilson_interval(share: float, num: int) -> tuple[float, float]:
    """Wilson score interval (95 %) of a share of `num` trials; (0, 1) when there are none."""
    if num <= 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.975)
    centre = (share + z * z / (2 * num)) / (1 + z * z / num)
    half = z * math.sqrt(share * (1 - share) / num + z * z / (4 * num * num)) / (1 + z * z / num)
    return max(0.0, centre - half), min(1.0, centre + half)
