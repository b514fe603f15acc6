"""Gates that compare the two sides of a pair."""

from __future__ import annotations

from rapidfuzz.distance import Indel

from codepmp_ray.config.synthesis import GatesConfig
from codepmp_ray.reject_reasons import RejectReason
from codepmp_ray.synthesis.gates.verdict import Rejection

# The comparison takes quadratic time, and a web page's answer may be megabytes. No model's is.
_MAX_COMPARED_CHARS = 200_000


def equal(chosen: str, rejected: str) -> Rejection | None:
    """Both sides say the same, blank space aside."""
    if chosen.split() != rejected.split():
        return None
    return Rejection(RejectReason.SIDES_EQUAL, "blank space aside")


def near_equal(chosen: str, rejected: str, gates: GatesConfig) -> Rejection | None:
    """Nearly all characters can be matched in order, blank space aside (indel similarity)."""
    if gates.max_similarity is None:
        return None
    sides = [" ".join(side.split())[:_MAX_COMPARED_CHARS] for side in (chosen, rejected)]
    # 0 below the cutoff, which spares most of the table that the algorithm fills.
    similarity = Indel.normalized_similarity(*sides, score_cutoff=gates.max_similarity)
    if similarity <= gates.max_similarity:
        return None
    detail = f"similarity {similarity:.3f}, max_similarity={gates.max_similarity:g}"
    return Rejection(RejectReason.SIDES_NEAR_EQUAL, detail)


def like_reference(
    reference: str | None, chosen: str, rejected: str, gates: GatesConfig
) -> Rejection | None:
    """A side repeats the reference, so that no more is learnt than to compare texts."""
    for side, text in (("chosen", chosen), ("rejected", rejected)):
        if reference and (found := equal(reference, text) or near_equal(reference, text, gates)):
            detail = f"{side}: {found.reason}: {found.detail}"
            return Rejection(RejectReason.NO_REFERENCE, detail)
    return None


def length_ratio(chosen: int, rejected: int, unit: str, gates: GatesConfig) -> Rejection | None:
    """One side is so much longer that length gives the label away; lengths in `unit`."""
    if gates.max_length_ratio is None:
        return None
    ratio = max(chosen, rejected) / max(min(chosen, rejected), 1)
    if ratio <= gates.max_length_ratio:
        return None
    limit = f"max_length_ratio={gates.max_length_ratio:g}"
    return Rejection(RejectReason.LENGTH_RATIO, f"{chosen} and {rejected} {unit}, {limit}")
