"""Backbone + scalar reward head (+ LM head for L_LM), with the losses inside forward.

The losses are computed inside because under FSDP the root module's parameters, among them a tied
LM head, are whole only there; ranks with unequal numbers of LM chunks would otherwise wait for each
other forever.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from codepmp_ray.modeling.attention import NAME as PACKED_ATTENTION
from codepmp_ray.modeling.attention import require_supported
from codepmp_ray.modeling.losses import (
    at_least_fp32,
    centering_sum,
    lm_loss_sum,
    reward_loss_sum,
)
from codepmp_ray.preference.packing import PackedBatch


class RewardHead(nn.Module):
    """h -> s, without bias: the `score` of a *ForSequenceClassification with one label."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, hidden_size))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[P, H] -> [P]; at least in fp32, because rewards differ in digits that bf16 has not."""
        return F.linear(at_least_fp32(hidden), at_least_fp32(self.weight)).squeeze(-1)


class PreferenceModel(nn.Module):
    """Computes loss sums of packed pairs.

    Args:
        backbone: a transformers decoder without head (`AutoModel`).
        lm_head: an untied LM head; None uses the input embeddings (tied).
    """

    def __init__(self, backbone: Any, lm_head: nn.Module | None) -> None:
        super().__init__()
        require_supported(backbone.config)
        backbone.set_attn_implementation(PACKED_ATTENTION)
        self.backbone = backbone
        self.score = RewardHead(backbone.config.hidden_size)
        self.lm_head = lm_head

    def forward(self, batch: PackedBatch, with_lm: bool) -> dict[str, torch.Tensor]:
        """Loss sums and rewards of one packed batch.

        Returns:
            rm_sum, center_sum, lm_sum: scalars, sums over pairs and chosen tokens.
            chosen_rewards, rejected_rewards: [P].
        """
        hidden = self.backbone(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            use_cache=False,
            packed_spans=batch.spans,
        ).last_hidden_state[0]
        chosen = self.score(hidden[batch.chosen_index])
        rejected = self.score(hidden[batch.rejected_index])
        sums = {
            "rm_sum": reward_loss_sum(chosen, rejected, batch.margins),
            "center_sum": centering_sum(chosen, rejected),
            "chosen_rewards": chosen,
            "rejected_rewards": rejected,
        }
        if with_lm:
            sums["lm_sum"] = lm_loss_sum(
                hidden[batch.lm_index], self._lm_weight(), batch.lm_targets
            )
        else:
            sums["lm_sum"] = at_least_fp32(hidden.new_zeros(()))
        return sums

    def _lm_weight(self) -> torch.Tensor:
        if self.lm_head is not None:
            return self.lm_head.weight  # type: ignore[return-value]
        return self.backbone.get_input_embeddings().weight
