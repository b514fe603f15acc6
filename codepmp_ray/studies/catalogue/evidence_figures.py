"""Figures of the experiment `evidence`, from what was kept alone.

The primary figure of an arm is the mean of two shares: of the pairs whose right solution is of the
model that is right less often, and of the others. Who only knows who wrote a solution has one half.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from codepmp_ray.errors import InputError
from codepmp_ray.estimates import MIN_TRAININGS
from codepmp_ray.resampling import Floats
from codepmp_ray.studies import measures
from codepmp_ray.studies.catalogue import common
from codepmp_ray.studies.kept import Kept
from codepmp_ray.studies.outcome import Comparison, Outcome, Table, not_measured
from codepmp_ray.studies.study import Context

NONE, PMP, REVERSED, CEILING = "no PMP", "PMP", "PMP, labels reversed", "ceiling"
ARMS = (NONE, PMP, REVERSED)
LEAST_CEILING = 0.6
_REMEDY = "Take another task (sets), or a model that can learn this one."


def is_too_low(kept: Kept) -> bool:
    """Whether the ceiling run has shown that the model does not learn the task."""
    rewards = kept.common["ceiling"]
    return rewards is not None and bool(_shares(kept, rewards).mean() < LEAST_CEILING)


def require_ceiling(kept: Kept) -> None:
    """Raises InputError where it is too low."""
    if is_too_low(kept):
        raise InputError(_ceiling_text(kept), _REMEDY)


def outcome(context: Context, kept: Kept) -> Outcome:
    """Not measured where the model learns nothing from many pairs, or PMP nothing from its own.

    There is a comparison where the experiment was registered and all of its seeds are there.
    """
    if others := sorted({*kept.seeds} - {*context.seeds}):
        raise InputError(f"Kept are seeds that are not of this experiment: {others}.")
    seeds = list(kept.seeds.values())
    if not kept.common or not seeds:
        if kept.common and is_too_low(kept):
            return not_measured("data", _ceiling_text(kept), _REMEDY)
        return not_measured("time", "No seed has been run.", "Repeat the command with more time.")
    found = Outcome(facts={"made": [s["made"] for s in (kept.common, *seeds)]})
    by_arm = {arm: np.array([_shares(kept, s["test"][arm]) for s in seeds]) for arm in ARMS}
    heads = _heads(kept, seeds)
    code = {arm: np.array([_right(s["code"][arm]) for s in seeds]) for arm in (PMP, REVERSED)}
    found.tables = _tables(context, kept, by_arm, heads, code)
    why = _why_nothing(context, kept, code[PMP])
    spreads = {"finetuned": _spread(by_arm), "heads": _spread(heads)}
    found.facts |= {"num_seeds": len(seeds), "planned_seeds": len(context.seeds), "spread": spreads}
    if why:
        found.status, found.because, found.summary, found.remedy = "not measured", "data", *why
    elif len(seeds) < len(context.seeds):
        found.status = "partly measured"
        found.summary = (
            f"{len(seeds)} of {len(context.seeds)} seeds are there; nothing is compared before all "
            "are (stopping rule)."
        )
    elif not kept.registered:
        found.summary = "A pilot: nothing was registered, so nothing is compared."
    else:
        _compare(context, found, by_arm, heads)
    return found


def _compare(
    context: Context, found: Outcome, by_arm: Mapping[str, Floats], heads: Mapping[str, Floats]
) -> None:
    """The one test, and differences beside it without any."""

    def difference(question: str, one: Floats, other: Floats) -> Comparison:
        return measures.compare(question, one, other, context.confidence, about="pmp")

    primary = difference("PMP against none, both directions", by_arm[PMP], by_arm[NONE])
    found.comparisons = [primary]
    second = [
        difference("PMP against reversed labels", by_arm[PMP], by_arm[REVERSED]),
        difference("heads on frozen features: PMP against none", heads[PMP], heads[NONE]),
        difference("heads: PMP against reversed labels", heads[PMP], heads[REVERSED]),
    ]
    found.facts["secondary"] = [asdict(c) for c in second]
    gaps = (by_arm[PMP] - by_arm[NONE]).mean(axis=1)
    found.facts["by_seed"] = {str(s): float(g) for s, g in zip(context.seeds, gaps, strict=True)}
    found.summary = answer(primary, context.confidence)


def answer(primary: Comparison, confidence: float) -> str:
    """The answer in a sentence, with its interval."""
    low, high = (100 * (end or 0.0) for end in (primary.difference.low, primary.difference.high))
    text = f"{100 * primary.difference.mean:+.1f} points ({low:+.1f} to {high:+.1f})"
    if primary.p_value is None:
        return f"{text} were seen, of too few seeds for a result."
    if primary.p_value < 1 - confidence:
        does = "helps" if primary.difference.mean > 0 else "harms"
        return f"PMP {does}: {text}."
    return (
        f"No effect is seen: {text}. An effect above {high:.1f} points is excluded at this size "
        f"({100 * confidence:.0f} %), and so is one below {low:.1f}."
    )


def _tables(
    context: Context,
    kept: Kept,
    by_arm: Mapping[str, Floats],
    heads: Mapping[str, Floats],
    code: Mapping[str, Floats],
) -> list[Table]:
    seeds, worse = list(kept.seeds.values()), np.array(kept.common["from_worse"], bool)
    right = {arm: np.array([_right(s["test"][arm]) for s in seeds]) for arm in ARMS}
    rules = {name: np.array(shares) for name, shares in kept.common["rules"].items()}
    weights = _weights(kept)
    accuracy = {arm: [by_arm[arm], right[arm][:, worse], right[arm][:, ~worse]] for arm in ARMS}
    accuracy |= {
        f"rule: {name}": [one * weights, one[worse], one[~worse]] for name, one in rules.items()
    }
    columns = ["both directions", "right: worse writer's", "right: better writer's"]
    sizes = list(seeds[0]["heads"][NONE])
    of_heads = {
        arm: [heads[arm], *(_of_size(kept, seeds, arm, size) for size in sizes)] for arm in ARMS
    }
    checks = {f"{arm}: held-out code pairs": [values] for arm, values in code.items()}
    # Seeds are finetuned on different pairs, so this varies over seeds alone.
    checks |= {
        f"{arm}: its own finetuning pairs": [np.array([[s["own_pairs"][arm]] * 2 for s in seeds])]
        for arm in ARMS
    }
    if kept.common["ceiling"] is not None:
        checks["ceiling: test pairs"] = [_shares(kept, kept.common["ceiling"])]
    of_sizes = ["all sizes", *(f"{size} pairs" for size in sizes)]
    return [
        common.table(context, "Accuracy of the reward model", columns, accuracy),
        common.table(context, "Heads on frozen features", of_sizes, of_heads),
        common.table(context, "Manipulation checks", ["accuracy"], checks),
    ]


def _why_nothing(context: Context, kept: Kept, code: Floats) -> tuple[str, str] | None:
    """(reason, remedy) where there is nothing to compare."""
    if is_too_low(kept):
        return _ceiling_text(kept), _REMEDY
    if kept.common["ceiling"] is None and kept.registered:
        return "No ceiling run shows that the model can learn the task.", "Set ceiling_set."
    learned = measures.interval(code, context.confidence)
    if len(code) >= MIN_TRAININGS and (learned.low or 0.0) <= 0.5:
        return (
            f"PMP learned nothing: of held-out code pairs its models order {learned.text('share')} "
            "% right, and the interval has 50 % in it.",
            "Give PMP more pairs, more epochs or a larger learning rate, and register that anew.",
        )
    return None


def _ceiling_text(kept: Kept) -> str:
    seen = 100 * _shares(kept, kept.common["ceiling"]).mean()
    return (
        f"The ceiling run orders {seen:.1f} % of the test pairs right, under "
        f"{100 * LEAST_CEILING:.0f} %: the model cannot learn this task, so no arm can show "
        "anything."
    )


def _right(rewards: Mapping[str, Sequence[float]]) -> Floats:
    """[pairs]: 1 where chosen has the higher reward, ties one half."""
    names = [str(i) for i in range(len(rewards["chosen"]))]
    return measures.pair_shares(rewards["chosen"], rewards["rejected"], names)[1]


def _weights(kept: Kept) -> Floats:
    """Of test pairs: their weighted mean is that of the means of both directions."""
    worse = np.array(kept.common["from_worse"], bool)
    num_worse = int(worse.sum())
    if not 0 < num_worse < len(worse):
        raise InputError("The kept test pairs are all of one direction.")
    return np.where(worse, len(worse) / (2 * num_worse), len(worse) / (2 * (~worse).sum()))


def _shares(kept: Kept, rewards: Mapping[str, Sequence[float]]) -> Floats:
    weights, right = _weights(kept), _right(rewards)
    if len(right) != len(weights):
        raise InputError(f"Kept are {len(right)} rewards of {len(weights)} test pairs.")
    return right * weights


def _of_size(kept: Kept, seeds: list[dict[str, Any]], arm: str, size: str) -> Floats:
    return np.array([s["heads"][arm][size] for s in seeds]) * _weights(kept)


def _heads(kept: Kept, seeds: list[dict[str, Any]]) -> dict[str, Floats]:
    """By arm [seeds, pairs]: the mean over all sizes."""
    return {
        arm: np.mean([_of_size(kept, seeds, arm, size) for size in seeds[0]["heads"][arm]], axis=0)
        for arm in ARMS
    }


def _spread(by_arm: Mapping[str, Floats]) -> dict[str, float | None]:
    """Of PMP's difference from none its standard deviations over seeds and over pairs."""
    gaps = by_arm[PMP] - by_arm[NONE]
    many = len(gaps) > 1
    return {
        "mean": float(gaps.mean()),
        "sd_trainings": float(gaps.mean(axis=1).std(ddof=1)) if many else None,
        "sd_pairs": float(gaps.mean(axis=0).std(ddof=1)),
    }
