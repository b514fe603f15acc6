"""One optimizer step over packed micro-batches: sums locally, counts globally."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.distributed as dist

from codepmp_ray.modeling.objectives import Counts, Objective, make_objective
from codepmp_ray.modeling.preference_model import PreferenceModel
from codepmp_ray.preference.items import EncodedItem
from codepmp_ray.preference.packing import PackedBatch, filler_batch, pack
from codepmp_ray.preference.plan import plan_step

if TYPE_CHECKING:
    from codepmp_ray.config.training import TrainingConfig


def objective_of(config: TrainingConfig) -> Objective:
    return make_objective(
        config.objective,
        lm_weight=config.lm_loss_weight,
        center=config.center_rewards_coefficient,
        beta=config.dpo_beta,
        is_listwise=config.ranking_loss == "listwise",
        is_per_prompt=config.pair_weight == "one_per_prompt",
    )


@dataclass(frozen=True)
class StepResult:
    """Metrics of one step over all ranks, under TRL's names where TRL has one.

    Attributes:
        losses: the objective's terms, each divided by its own count, before weights.
        rewards: those of REWARDS; empty for sft.
        policy: of dpo those of POLICY, as TRL's DPOTrainer names them; else empty. Its `rewards/`
            are the same as in `rewards`, which have the names of every other objective.
    """

    REWARDS: ClassVar[tuple[str, ...]] = (
        "accuracy",
        "margin",
        "mean_reward",
        "min_reward",
        "max_reward",
    )

    # What each is a mean over: pairs, or the tokens of chosen and of rejected.
    POLICY: ClassVar[dict[str, str]] = {
        **{f"rewards/{of}": "num_pairs" for of in ("chosen", "rejected", "accuracies", "margins")},
        **{f"logps/{side}": "num_pairs" for side in ("chosen", "rejected")},
        "logits/chosen": "chosen_token",
        "logits/rejected": "rejected_token",
    }

    loss: float
    losses: dict[str, float]
    rewards: dict[str, float]
    num_pairs: int
    num_tokens: int
    policy: dict[str, float] = field(default_factory=dict)

    def row(self) -> dict[str, float]:
        """Flat, as `metrics.jsonl` has it: `loss`, `loss_rm`, `loss_lm`, `accuracy`, ..."""
        losses = {f"loss_{name}": value for name, value in self.losses.items()}
        counts = {"num_pairs": self.num_pairs, "num_tokens": self.num_tokens}
        return {"loss": self.loss, **losses, **self.rewards, **self.policy, **counts}


class StepRunner:
    """Runs the forwards (and backwards) of a step on this rank."""

    def __init__(
        self, model: PreferenceModel, config: TrainingConfig, device: torch.device
    ) -> None:
        self.model, self.config, self.device = model, config, device
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self.objective = model.objective

    def train(self, items: list[EncodedItem]) -> StepResult:
        """Forward and backward over the items of one step; gradients are left on the parameters."""
        return self._run(items, backward=True)

    @torch.no_grad()
    def evaluate(self, items: Sequence[EncodedItem]) -> StepResult:
        """The same sums over held-out items, without gradients."""
        return self._run(items, backward=False)

    @torch.no_grad()
    def log_likelihoods(self, items: list[EncodedItem]) -> list[list[float]]:
        """Of the answers of every item, in nats, on every rank; an objective of DPO's."""
        found = [torch.zeros(len(item.answers), dtype=torch.float64) for item in items]
        for indices, batch in self._micro_batches(items):
            likelihoods = self.model(batch)["log_likelihoods"].double().cpu()
            sizes = [len(span.answers) for span in batch.spans]
            for index, own in zip(indices, likelihoods.split(sizes), strict=bool(indices)):
                found[index] = own
        dist.all_reduce(on_device := torch.cat(found).to(self.device))
        return [own.tolist() for own in on_device.split([len(own) for own in found])]

    def _run(self, items: Sequence[EncodedItem], backward: bool) -> StepResult:
        counts = self.objective.counts(items)
        tally = _Tally(self.device)
        for indices, batch in self._micro_batches(items):
            sums = self.model(batch)
            if backward:
                (self.objective.loss(sums, counts) * batch.weight).backward()
            if indices:
                tally.add(sums, batch.pairs)
        tally.all_reduce()
        num_tokens = sum(item.packed_length(self.objective.sides) for item in items)
        return tally.result(self.objective, counts, num_tokens)

    def _micro_batches(
        self, items: Sequence[EncodedItem]
    ) -> Iterator[tuple[list[int], PackedBatch]]:
        """(positions in `items`, packed batch) of this rank; fillers have no positions."""
        sides = self.objective.sides
        rows, lengths = None, [item.packed_length(sides) for item in items]
        if not self.model.is_packed:
            shapes = [item.padded_shape(sides) for item in items]
            rows, lengths = (list(part) for part in zip(*shapes, strict=True))
        limit = self.config.max_tokens_per_micro_batch
        plan = plan_step(lengths, self.world_size, limit, rows=rows)
        for indices in plan.micro_batches[self.rank]:
            own = [items[index] for index in indices]
            batch = pack(own, sides=sides) if indices else filler_batch(sides)
            yield indices, batch.to(self.device)


class _Tally:
    """Sums and extremes over this rank's micro-batches, then over all ranks.

    In fp64, so that the order of adding hardly matters, and on the device: asking a GPU for a
    number makes it idle until the next micro-batch has arrived. It is asked when all are launched.
    """

    NAMES = ("rm", "center", "lm", "dpo", "correct", "margin", "reward")
    SIDES = ("rewards", "log_likelihoods", "logits")  # of answers, added up by the sides of pairs

    def __init__(self, device: torch.device) -> None:
        size = len(self.NAMES) + 2 * len(self.SIDES)
        self._sums = torch.zeros(size, dtype=torch.float64, device=device)
        # The lowest reward and the lowest negated one: one reduction finds both extremes.
        self._low = torch.full((2,), float("inf"), dtype=torch.float64, device=device)

    def add(self, sums: dict[str, torch.Tensor], pairs: torch.Tensor) -> None:
        """`pairs` are those of the batch, int64 [P, 2]."""
        found = {name: sums[name].detach().double() for name in self.NAMES if name in sums}
        if "rewards" in sums:
            rewards = sums["rewards"].detach().double()
            of_pairs = rewards[pairs]
            gaps = of_pairs[:, 0] - of_pairs[:, 1]
            found["correct"], found["margin"] = (gaps > 0).double().sum(), gaps.sum()
            found["reward"] = of_pairs.mean(dim=1).sum()
            self._low = torch.minimum(self._low, torch.stack([rewards.min(), -rewards.max()]))
        zero = self._sums.new_zeros(())
        by_side = [
            sums[name].detach().double()[pairs].sum(dim=0) if name in sums else zero.expand(2)
            for name in self.SIDES
        ]
        named = torch.stack([found.get(name, zero) for name in self.NAMES])
        self._sums += torch.cat([named, *by_side])

    def all_reduce(self) -> None:
        dist.all_reduce(self._sums)
        dist.all_reduce(self._low, op=dist.ReduceOp.MIN)

    def result(self, objective: Objective, counts: Counts, num_tokens: int) -> StepResult:
        found = self._sums.tolist()
        sums: dict[str, float] = dict(zip(self.NAMES, found, strict=False))
        by_side = found[len(self.NAMES) :]
        losses = {term.name: sums[term.name] / (counts[term.per] or 1) for term in objective.terms}
        num_pairs, low = int(counts["num_pairs"]), self._low.tolist()
        means = [sums[name] / num_pairs for name in ("correct", "margin", "reward")]
        rewards = dict(zip(StepResult.REWARDS, [*means, low[0], -low[1]], strict=True))
        # In the order of POLICY.
        policy = [*by_side[:2], sums["correct"], sums["margin"], *by_side[2:]]
        per = StepResult.POLICY.items()
        named = {name: v / counts[of] for (name, of), v in zip(per, policy, strict=True)}
        return StepResult(
            loss=sum(term.weight * losses[term.name] for term in objective.terms),
            losses=losses,
            rewards={} if objective.name == "sft" else rewards,
            num_pairs=num_pairs,
            num_tokens=num_tokens,
            policy=named if objective.name == "dpo" else {},
        )
