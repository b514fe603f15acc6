"""Model-written tests: what is executed, and what the outcomes mean. Executing is done elsewhere.

Tests are as untrusted as the answers, so both go into one program behind the sandbox's walls and
limits; the only trusted part is the call that starts them.
"""

from __future__ import annotations

from codepmp_ray.reject_reasons import RejectReason
from codepmp_ray.synthesis.answers import find_code
from codepmp_ray.synthesis.model_tests import TEST_FUNCTION
from codepmp_ray.synthesis.rows import Row, refuse

ENTRY_POINT = "run_model_written_tests"
TRUSTED_TEST = "def check(candidate):\n    assert candidate() == 1\n"
RESERVED_NAMES = frozenset({TEST_FUNCTION, ENTRY_POINT})
_SIDES = ("chosen", "rejected")


def programs(row: Row) -> list[str]:
    """The two programs to execute, chosen first; each returns 1 from ENTRY_POINT if it passes."""
    tests = find_code(row["tests"], "python")
    made = []
    for side in _SIDES:
        answer = find_code(row[side], "python")
        parts = [part.text if part else "" for part in (answer, tests)]
        call = f"def {ENTRY_POINT}():\n    {TEST_FUNCTION}({row['name']})\n    return 1\n"
        made.append("\n\n".join([*parts, call]))
    return made


def judge_outcomes(row: Row, outcomes: list[tuple[str, str]]) -> Row:
    """The row with the passing side as chosen, or refused; (outcome, detail) of each program.

    `swapped` says that the weak model's answer is the chosen one.
    """
    passed = [outcome == "passed" for outcome, _ in outcomes]
    told = "; ".join(
        f"{side} {outcome} {detail}".rstrip()
        for side, (outcome, detail) in zip(_SIDES, outcomes, strict=True)
    )
    if missing := [detail for outcome, detail in outcomes if outcome == "missing_package"]:
        return refuse(row, RejectReason.NOT_EXECUTED, f"the sandbox has no package {missing[0]}")
    if all(passed):
        return refuse(row, RejectReason.BOTH_PASS, told)
    if not any(passed):
        return refuse(row, RejectReason.BOTH_FAIL, told)
    return row if passed[0] else _swap(row)


def _swap(row: Row) -> Row:
    swapped = dict(row)
    for suffix in ("", "_num_tokens", "_finish_reason"):
        left, right = (f"{side}{suffix}" for side in _SIDES)
        swapped[left], swapped[right] = row[right], row[left]
    return {**swapped, "swapped": True}
