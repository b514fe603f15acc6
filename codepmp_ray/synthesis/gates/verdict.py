"""What a gate says about a row that it refuses."""

from __future__ import annotations

from typing import NamedTuple

from codepmp_ray.reject_reasons import RejectReason


class Rejection(NamedTuple):
    """`detail` holds the measured value and the limit, for a person."""

    reason: RejectReason
    detail: str


# Texts that are no part of a pair's sides.
_WHOLE = {
    "tests": RejectReason.NO_TESTS,
    "weak_tests": RejectReason.NO_TESTS,
    "reference": RejectReason.NO_REFERENCE,
}


def of_field(field: str, kind: str, detail: str) -> Rejection:
    """The rejection of one text: `field` is "description", "tests", "chosen", "rejected", ..."""
    if field in _WHOLE:  # why there is none is a detail
        return Rejection(_WHOLE[field], f"{kind}: {detail}")
    return Rejection(RejectReason(f"{field}_{kind}"), detail)
