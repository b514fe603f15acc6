"""What a gate says about a row that it refuses."""

from __future__ import annotations

from typing import NamedTuple

from codepmp_ray.reject_reasons import RejectReason


class Rejection(NamedTuple):
    """`detail` holds the measured value and the limit, for a person."""

    reason: RejectReason
    detail: str


def of_field(field: str, kind: str, detail: str) -> Rejection:
    """The rejection of one text: `field` is "description", "tests", "chosen" or "rejected"."""
    if field == "tests":  # why there are none is a detail
        return Rejection(RejectReason.NO_TESTS, f"{kind}: {detail}")
    return Rejection(RejectReason(f"{field}_{kind}"), detail)
