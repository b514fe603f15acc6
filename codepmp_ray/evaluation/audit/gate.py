"""The thresholds that a model must keep before it is served.

A check holds where the figure keeps its limit; under `strict` the whole interval has to. A figure
that was not measured (no pools, an edit that applied nowhere) makes no check, and is named; what
is served under `serving.require_audit` may have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import TypeAdapter

from codepmp_ray.config.audit import AuditConfig
from codepmp_ray.resampling import Interval

OVER_OPTIMISATION = "over-optimisation"
GENERATORS = "variance by generator"
Rule = Literal["at most", "at least"]


@dataclass(frozen=True)
class Check:
    """`is_sure` says whether the whole interval is on one side of the limit."""

    name: str
    rule: Rule
    limit: float
    figure: Interval
    passed: bool
    is_sure: bool

    @property
    def text(self) -> str:
        state = "kept" if self.passed else "broken"
        doubt = "" if self.is_sure else ", the interval reaches over it"
        return (
            f"{self.name}: {self.figure.mean:.3f} ({self.figure.low:.3f} to "
            f"{self.figure.high:.3f}), {self.rule} {self.limit:g}: {state}{doubt}"
        )


@dataclass(frozen=True)
class Figures:
    """What an audit measured; absent where it could not. `drops` and `generator_r2` by pool.

    Shares of variance are what lies beyond chance, and a drop that chance may explain is 0.
    """

    accuracy: Interval
    ece: Interval
    length_correlation: Interval
    added_r2: Interval
    dressing_gains: dict[str, Interval]
    spoiled_wins: dict[str, Interval]
    drops: dict[str, Interval]
    generator_r2: dict[str, Interval]

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Figures:
        return TypeAdapter(cls).validate_python(values)


@dataclass(frozen=True)
class GateResult:
    passed: bool
    checks: Sequence[Check]
    not_measured: Sequence[str]


def beyond_chance(share: Interval, by_chance: float) -> Interval:
    """A share of variance less what features or names without any meaning would explain."""
    return Interval(*(max(end - by_chance, 0.0) for end in (share.mean, share.low, share.high)))


def gate(figures: Figures, config: AuditConfig) -> GateResult:
    """Every threshold of `config` held against its figure."""
    length = figures.length_correlation
    # Either direction counts: the far end of the interval from zero, and the near one.
    low, high = sorted((abs(length.low), abs(length.high)))
    size = Interval(abs(length.mean), 0.0 if length.low <= 0 <= length.high else low, high)
    checks = [
        _check("accuracy on the pairs", "at least", config.min_accuracy, figures.accuracy, config),
        _check("length correlation", "at most", config.max_length_correlation, size, config),
        _check("variance by style", "at most", config.max_style_r2, figures.added_r2, config),
    ]
    if config.max_ece is not None:
        checks.append(_check("calibration error", "at most", config.max_ece, figures.ece, config))
    for name, gain in figures.dressing_gains.items():
        limit = config.max_dressing_gain
        checks.append(_check(f"gain by {name}", "at most", limit, gain, config))
    for name, wins in figures.spoiled_wins.items():
        limit = config.max_spoiled_wins
        checks.append(_check(f"wins of {name}", "at most", limit, wins, config))
    tried = {*figures.dressing_gains, *figures.spoiled_wins}
    missing = [name for name in config.edits if name not in tried]
    for limit, name, title, found in (
        (config.max_over_optimisation, "fall with k", OVER_OPTIMISATION, figures.drops),
        (config.max_generator_r2, GENERATORS, GENERATORS, figures.generator_r2),
    ):
        if limit is None:
            continue
        if not found:
            missing.append(title)
        for pool, figure in found.items():
            checks.append(_check(f"{name} in {pool}", "at most", limit, figure, config))
    return GateResult(all(check.passed for check in checks), checks, missing)


def _check(name: str, rule: Rule, limit: float, figure: Interval, config: AuditConfig) -> Check:
    ends = [figure.low, figure.mean, figure.high]
    kept = [value <= limit if rule == "at most" else value >= limit for value in ends]
    passed = all(kept) if config.strict else kept[1]
    return Check(name, rule, limit, figure, passed, kept[0] == kept[1] == kept[2])
