"""Model-written tests: what is executed, and what the outcomes mean. Executing is done elsewhere.

Tests are as untrusted as the answers, so both go into one program behind the sandbox's walls and
limits; the only trusted part is the call that starts them.
"""

from __future__ import annotations

from codepmp_ray.config.synthesis import PassRateConfig, SynthesisConfig
from codepmp_ray.reject_reasons import RejectReason
from codepmp_ray.synthesis.answers import find_code
from codepmp_ray.synthesis.model_tests import TEST_FUNCTION, single_tests
from codepmp_ray.synthesis.rows import Row, refuse

ENTRY_POINT = "run_model_written_tests"
TRUSTED_TEST = "def check(candidate):\n    assert candidate() == 1\n"
RESERVED_NAMES = frozenset({TEST_FUNCTION, ENTRY_POINT})
_SIDES = ("chosen", "rejected")
Outcomes = list[tuple[str, str]]  # (outcome, detail) of programs


def suites(row: Row, config: SynthesisConfig) -> list[list[str]]:
    """Tests to hold both answers against: one suite for each model that wrote tests, one code for
    each that is executed by itself. A suite may be empty."""
    if config.construction == "pass_rate":
        most = config.pass_rate.max_tests
        return [single_tests(row[name], most) for name in ("tests", "weak_tests")]
    tests = find_code(row["tests"], "python")
    return [[tests.text if tests else ""]]


def programs(row: Row, tests: str) -> list[str]:
    """The two programs to execute, chosen first; each returns 1 from ENTRY_POINT if it passes."""
    made = []
    for side in _SIDES:
        answer = find_code(row[side], "python")
        call = f"def {ENTRY_POINT}():\n    {TEST_FUNCTION}({row['name']})\n    return 1\n"
        made.append("\n\n".join([answer.text if answer else "", tests, call]))
    return made


def judge_outcomes(row: Row, outcomes: Outcomes) -> Row:
    """The row with the passing side as chosen, or refused; (outcome, detail) of each program.

    `swapped` says that the weak model's answer is the chosen one.
    """
    passed = [outcome == "passed" for outcome, _ in outcomes]
    told = "; ".join(
        f"{side} {outcome} {detail}".rstrip()
        for side, (outcome, detail) in zip(_SIDES, outcomes, strict=True)
    )
    return _without_package(row, outcomes) or _decided(row, [float(one) for one in passed], told)


def judge_rates(row: Row, outcomes: list[list[Outcomes]], settings: PassRateConfig) -> Row:
    """The row with the side that passes more as chosen and the difference as `margin`, or refused.

    `outcomes` are by suite and by test, of both programs each. Suites count alike, whatever their
    numbers of tests. `swapped` as in `judge_outcomes`.
    """
    for name, suite in zip(("tests", "weak_tests"), outcomes, strict=True):
        if not suite:
            return refuse(row, RejectReason.NO_TESTS, f"{name}: nested too deeply")
    flat = [outcome for suite in outcomes for test in suite for outcome in test]
    if refused := _without_package(row, flat):
        return refused
    rates = [
        sum(sum(test[i][0] == "passed" for test in suite) / len(suite) for suite in outcomes)
        / len(outcomes)
        for i in range(len(_SIDES))
    ]
    counts = " and ".join(str(len(suite)) for suite in outcomes)
    told = f"{rates[0]:.3f} and {rates[1]:.3f} of {counts} tests"
    difference = abs(rates[0] - rates[1])
    # Thirds and fifths do not add up exactly.
    if 0 < sum(rates) < 2 and difference < settings.min_difference - 1e-9:
        detail = f"{told}, min_difference={settings.min_difference:g}"
        return refuse(row, RejectReason.SCORE_GAP_TOO_SMALL, detail)
    return {**_decided(row, rates, told), "margin": difference}


def _without_package(row: Row, outcomes: Outcomes) -> Row | None:
    if missing := [detail for outcome, detail in outcomes if outcome == "missing_package"]:
        return refuse(row, RejectReason.NOT_EXECUTED, f"the sandbox has no package {missing[0]}")
    return None


def _decided(row: Row, rates: list[float], told: str) -> Row:
    """The row with the better side as chosen, or refused where both pass or fail everything."""
    if min(rates) == 1:
        return refuse(row, RejectReason.BOTH_PASS, told)
    if max(rates) == 0:
        return refuse(row, RejectReason.BOTH_FAIL, told)
    return row if rates[0] > rates[1] else _swap(row)


def _swap(row: Row) -> Row:
    swapped = dict(row)
    for suffix in ("", "_num_tokens", "_finish_reason"):
        left, right = (f"{side}{suffix}" for side in _SIDES)
        swapped[left], swapped[right] = row[right], row[left]
    return {**swapped, "swapped": True}
