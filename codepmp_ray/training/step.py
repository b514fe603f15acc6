"""One optimizer step over packed micro-batches: sums locally, counts globally."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist

from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.modeling.preference_model import PreferenceModel
from codepmp_ray.preference.packing import EncodedPair, filler_batch, pack
from codepmp_ray.preference.plan import StepPlan, plan_step


@dataclass(frozen=True)
class StepResult:
    """Metrics of one step over all ranks, under TRL's names where TRL has one."""

    loss: float
    loss_rm: float
    loss_lm: float
    accuracy: float
    margin: float
    mean_reward: float
    min_reward: float
    max_reward: float
    num_pairs: int
    num_tokens: int


class StepRunner:
    """Runs the forwards (and backwards) of a step on this rank."""

    def __init__(
        self, model: PreferenceModel, config: TrainingConfig, device: torch.device
    ) -> None:
        self.model, self.config, self.device = model, config, device
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self.with_lm = config.objective in ("pmp", "lm")

    def train(self, pairs: list[EncodedPair]) -> StepResult:
        """Forward and backward over the pairs of one step; gradients are left on the parameters."""
        return self._run(pairs, backward=True)

    @torch.no_grad()
    def evaluate(self, pairs: list[EncodedPair]) -> StepResult:
        """The same sums over held-out pairs, without gradients."""
        return self._run(pairs, backward=False)

    def _run(self, pairs: list[EncodedPair], backward: bool) -> StepResult:
        plan: StepPlan = plan_step(
            [pair.num_tokens for pair in pairs],
            self.world_size,
            self.config.max_tokens_per_micro_batch,
        )
        num_pairs = len(pairs)
        num_targets = sum(len(pair.chosen) for pair in pairs)
        # sums: rm, centering, lm, correct, margin, reward; fp64 so that order hardly matters
        sums = torch.zeros(6, dtype=torch.float64)
        extremes = torch.tensor([float("inf"), float("inf")], dtype=torch.float64)
        mine = plan.micro_batches[self.rank]
        for indices in mine:
            batch = pack([pairs[index] for index in indices]) if indices else filler_batch()
            batch = batch.to(self.device)
            out = self.model(batch, self.with_lm)
            if backward:
                loss = self._loss(out, num_pairs, num_targets) * batch.weight
                loss.backward()
            if indices:
                self._add(out, sums, extremes)
        dist.all_reduce(on_device := sums.to(self.device))
        dist.all_reduce(low := extremes.to(self.device), op=dist.ReduceOp.MIN)
        return self._result(on_device.tolist(), low.tolist(), pairs, num_targets)

    def _loss(self, out: dict[str, torch.Tensor], num_pairs: int, num_targets: int) -> torch.Tensor:
        config = self.config
        loss = config.lm_loss_weight * out["lm_sum"] / num_targets
        if config.objective == "lm":
            # The head must take part, or its shards would have no gradient on some ranks.
            return loss + 0.0 * out["rm_sum"]
        loss = loss + out["rm_sum"] / num_pairs
        if config.center_rewards_coefficient:
            loss = loss + config.center_rewards_coefficient * out["center_sum"] / num_pairs
        return loss

    @staticmethod
    def _add(out: dict[str, torch.Tensor], sums: torch.Tensor, extremes: torch.Tensor) -> None:
        chosen = out["chosen_rewards"].detach().double().cpu()
        rejected = out["rejected_rewards"].detach().double().cpu()
        sums += torch.stack(
            [
                out["rm_sum"].detach().double().cpu(),
                out["center_sum"].detach().double().cpu(),
                out["lm_sum"].detach().double().cpu(),
                (chosen > rejected).double().sum(),
                (chosen - rejected).sum(),
                (chosen + rejected).sum() / 2,
            ]
        )
        both = torch.cat([chosen, rejected])
        extremes[0] = torch.minimum(extremes[0], both.min())
        extremes[1] = torch.minimum(extremes[1], -both.max())

    def _result(
        self, sums: list[float], low: list[float], pairs: list[EncodedPair], num_targets: int
    ) -> StepResult:
        rm, centering, lm, correct, margin, reward = sums
        num_pairs, config = len(pairs), self.config
        loss_rm, loss_lm = rm / num_pairs, lm / num_targets
        loss = config.lm_loss_weight * loss_lm if self.with_lm else 0.0
        if config.objective != "lm":
            loss += loss_rm + config.center_rewards_coefficient * centering / num_pairs
        return StepResult(
            loss=loss,
            loss_rm=loss_rm,
            loss_lm=loss_lm,
            accuracy=correct / num_pairs,
            margin=margin / num_pairs,
            mean_reward=reward / num_pairs,
            min_reward=low[0],
            max_reward=-low[1],
            num_pairs=num_pairs,
            num_tokens=sum(pair.num_tokens for pair in pairs),
        )
