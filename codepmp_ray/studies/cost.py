"""What a study will take, from what was timed before in the same run directory.

What is left to do, and about how long it takes, is said before it starts.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from typing import Any

from codepmp_ray.analysis.text import duration
from codepmp_ray.config.branches import plan_branches
from codepmp_ray.studies.bench import Bench
from codepmp_ray.studies.scores import RATES_FILE
from codepmp_ray.studies.study import Context, Study
from codepmp_ray.studies.trainings import Arm, Training

RECORD = "training.json"  # beside a training's stage, when it is done


@dataclass(frozen=True)
class Cost:
    """Attributes:
    num_trainings: different ones; `num_done` of them are finished.
    training_s / scoring_s: estimates of what is left.
    is_assumed: some of it has never been timed here.
    """

    num_trainings: int
    num_done: int
    training_s: float
    scoring_s: float
    is_assumed: bool

    @property
    def total_s(self) -> float:
        return self.training_s + self.scoring_s


class Rates:
    """Speeds seen so far: seconds per pair of a training, seconds per token of scoring."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._records = training_records(bench)
        self._scored = _lines(bench)

    def training_s(self, training: Training) -> tuple[float, bool]:
        """(seconds, whether that is a guess): by its like, else by others of the same model."""
        of_model = [r for r in self._records.values() if r["base"] == training.base]
        alike = [r for r in of_model if r["objective"] == training.config.objective]
        known = alike or of_model
        num_pairs = own_pairs(self._bench, training)
        num_pairs *= training.config.num_train_epochs
        pairs, busy_s = sum(r["num_own_pairs"] for r in known), sum(r["busy_s"] for r in known)
        if not pairs:
            config = self._bench.config
            rate = config.pairs_per_s * config.models[training.base].speed
            return num_pairs / rate + config.overhead_s, True
        overhead_s = sum(r["duration_s"] for r in known) - busy_s
        return num_pairs * busy_s / pairs + overhead_s / len(known), not alike

    def scoring_s(self, num_tokens: int, model: str) -> tuple[float, bool]:
        known = [row for row in self._scored if row["model"] == model]
        total = sum(row["num_tokens"] for row in known)
        if not total:
            config = self._bench.config
            speed = config.models[model].speed if model in config.models else 1.0
            return num_tokens / (config.scoring.tokens_per_s * speed), True
        return num_tokens * sum(row["s"] for row in known) / total, False

    def cost(self, arms: list[Arm], num_tokens: int, model: str) -> Cost:
        """Of all arms and seeds; `num_tokens` are scored in all."""
        wanted = self._bench.steps(arms)
        done = [key for key in wanted if key in self._records]
        found = [self.training_s(t) for key, t in wanted.items() if key not in self._records]
        scoring_s, guessed = self.scoring_s(num_tokens, model)
        return Cost(
            len(wanted),
            len(done),
            sum(seconds for seconds, _ in found),
            scoring_s,
            guessed or any(is_guess for _, is_guess in found),
        )


def own_pairs(bench: Bench, training: Training) -> int:
    """Pairs that the training computes itself; a branch leaves the trunk's to the trunk."""
    _, num_pairs, _ = bench.data(training)
    config = training.config
    if config.trunk_steps is None or training.family is None or config.max_steps is None:
        return num_pairs
    leaving = {
        branch.total_steps: branch.leaves_at
        for branch in plan_branches(config, training.family, config.trunk_steps)
    }
    return (config.max_steps - leaving.get(config.max_steps, 0)) * config.batch_size


def training_records(bench: Bench) -> dict[str, dict[str, Any]]:
    """What was noted of every finished training, by key."""
    return {
        key: json.loads(bench.store.read_bytes(f"trainings/{key}/{RECORD}"))
        for key in sorted(training_keys(bench))
    }


def training_keys(bench: Bench) -> set[str]:
    """Keys of the trainings that are finished."""
    store = bench.store
    return {key for key in store.list("trainings") if store.exists(f"trainings/{key}/{RECORD}")}


def _lines(bench: Bench) -> list[dict[str, Any]]:
    if not bench.store.exists(RATES_FILE):
        return []
    return [json.loads(line) for line in bench.store.read_bytes(RATES_FILE).splitlines()]


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
            wanted = bench.steps(arms)
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
