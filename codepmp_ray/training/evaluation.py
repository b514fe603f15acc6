"""Evaluation on held-out pairs: when, and over which chunks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.preference.items import EncodedItem
from codepmp_ray.training.step import StepResult, StepRunner

# Planning a step takes longer than its items; every rank plans the same chunks.
_ITEMS_AT_ONCE = 1024


def is_due(config: TrainingConfig, step: int, total_steps: int) -> bool:
    """Whether held-out pairs are evaluated after `step` finished steps."""
    if step in (0, total_steps):
        return True
    return config.eval_steps is not None and step % config.eval_steps == 0


def evaluate(
    runner: StepRunner, items: Sequence[EncodedItem], prefix: str = "eval_"
) -> dict[str, Any]:
    """Metrics over `items`, their names after `prefix`.

    Collective: every rank runs the same number of forwards.
    """
    start_s = time.perf_counter()
    chunks = [
        items[start : start + _ITEMS_AT_ONCE] for start in range(0, len(items), _ITEMS_AT_ONCE)
    ]
    row = _merged(runner, [(chunk, runner.evaluate(chunk)) for chunk in chunks])
    row["s"] = time.perf_counter() - start_s
    return {f"{prefix}{name}": value for name, value in row.items()}


def _merged(
    runner: StepRunner, parts: list[tuple[Sequence[EncodedItem], StepResult]]
) -> dict[str, Any]:
    """As if all chunks had been one: each value is a mean over pairs, lists or tokens."""
    by_chunk = [runner.objective.counts(chunk) for chunk, _ in parts]
    counts = {per: [float(found[per]) for found in by_chunk] for per in by_chunk[0]}
    results = [result for _, result in parts]
    terms = runner.objective.terms
    losses = {
        term.name: _mean([result.losses[term.name] for result in results], counts[term.per])
        for term in terms
    }
    rewards = {
        name: _mean([result.rewards[name] for result in results], counts["num_pairs"])
        for name in results[0].rewards
    }
    if rewards:
        rewards["min_reward"] = min(result.rewards["min_reward"] for result in results)
        rewards["max_reward"] = max(result.rewards["max_reward"] for result in results)
    policy = {
        name: _mean([result.policy[name] for result in results], counts[per])
        for name, per in StepResult.POLICY.items()
        if name in results[0].policy
    }
    return StepResult(
        loss=sum(term.weight * losses[term.name] for term in terms),
        losses=losses,
        rewards=rewards,
        num_pairs=sum(result.num_pairs for result in results),
        num_tokens=sum(result.num_tokens for result in results),
        policy=policy,
    ).row()


def _mean(values: list[float], weights: list[float]) -> float:
    return sum(v * w for v, w in zip(values, weights, strict=True)) / (sum(weights) or 1)
