"""What a study will take, from what was timed before in the same run directory."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from codepmp_ray.config.branches import plan_branches
from codepmp_ray.studies.bench import Bench
from codepmp_ray.studies.scores import RATES_FILE
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
        wanted: dict[str, Training] = {}
        for arm in arms:
            for last in arm.by_seed:
                wanted |= {self._bench.key(training): training for training in last.chain()}
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
