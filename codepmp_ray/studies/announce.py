"""What is left to do and about how long it takes, said before it starts."""

from __future__ import annotations

import math
import sys

from codepmp_ray.analysis.text import duration
from codepmp_ray.studies.bench import Bench
from codepmp_ray.studies.cost import Rates, training_keys
from codepmp_ray.studies.study import Context, Study
from codepmp_ray.studies.trainings import Arm


def announce(study: Study, context: Context, arms: list[Arm], budget_s: float | None) -> float:
    """Print one study's cost; the seconds that it will take."""
    rates = Rates(context.bench)
    num_tokens = study.num_tokens(context) * len(context.seeds)
    cost = rates.cost(arms, num_tokens, context.model)
    at_hand_s, is_guess = at_hand_cost(study, context, rates)
    allowed = "" if budget_s is None else f", at most {duration(budget_s)}"
    guess = " (rates assumed)" if cost.is_assumed or is_guess else ""
    num = len(study.rewards(context))
    models = f"{num} reward models at hand; " if num else ""
    print(
        f"{study.place}, {study.title}: {cost.num_trainings} trainings, {cost.num_done} of them "
        f"done before; {models}about {duration(cost.total_s + at_hand_s)}{guess}{allowed}",
        file=sys.stderr,
    )
    return cost.total_s + at_hand_s


def at_hand_cost(study: Study, context: Context, rates: Rates) -> tuple[float, bool]:
    """(seconds of scoring with the reward models at hand, whether some of it is a guess)."""
    if study.reward_tokens is None or not (models := study.rewards(context)):
        return 0.0, False
    num_tokens = study.reward_tokens(context)
    found = [rates.scoring_s(num_tokens, item.model.base) for item in models]
    return sum(seconds for seconds, _ in found), any(is_guess for _, is_guess in found)


def announce_all(studies: list[Study], bench: Bench) -> None:
    """Print the cost of all of them together, shared trainings once.

    A study that cannot be planned is left out: when its turn comes, it says why.
    """
    rates, known = Rates(bench), training_keys(bench)
    seconds, allowed_min = 0.0, 0.0
    seen: set[str] = set()
    for study in studies:
        context = Context(study.name, bench, bench.config.options(study.name))
        allowed_min += context.options.budget_min or math.inf
        try:
            arms = study.trainings(context)
            seconds += at_hand_cost(study, context, rates)[0]
            num_tokens = study.num_tokens(context) * len(context.seeds)
            wanted = {bench.key(t): t for arm in arms for last in arm.by_seed for t in last.chain()}
        except Exception as error:  # noqa: BLE001 - its own turn tells, and keeps the traceback
            print(f"{study.place}: cannot be planned ({error})", file=sys.stderr)
            continue
        seconds += rates.scoring_s(num_tokens, context.model)[0]
        new = wanted.keys() - seen - known
        seconds += sum(rates.training_s(wanted[key])[0] for key in new)
        seen |= wanted.keys()
    allowed_min = min(allowed_min, bench.config.budget_min or math.inf)
    allowed = "no limit" if math.isinf(allowed_min) else f"at most {duration(60 * allowed_min)}"
    print(
        f"{len(studies)} studies: {len(seen)} different trainings, {len(seen & known)} of them "
        f"done before; about {duration(seconds)} to go, {allowed}",
        file=sys.stderr,
    )
