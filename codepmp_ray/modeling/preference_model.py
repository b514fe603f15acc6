"""Backbone + scalar reward head and LM head, with the losses inside forward.

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
from codepmp_ray.modeling.backbones import output_size
from codepmp_ray.modeling.dropout import without_dropout
from codepmp_ray.modeling.lm_loss import lm_loss_sum, token_log_likelihoods
from codepmp_ray.modeling.logit_rule import LogitRule
from codepmp_ray.modeling.losses import (
    at_least_fp32,
    centering_sum,
    dpo_loss_sum,
    listwise_loss_sum,
    reward_loss_sum,
)
from codepmp_ray.modeling.objectives import Objective
from codepmp_ray.modeling.plain_rows import hidden_of_rows
from codepmp_ray.preference.packing import PackedBatch, PackedLayout

Sums = dict[str, torch.Tensor]


class RewardHead(nn.Module):
    """h -> s, without bias: the `score` of a *ForSequenceClassification with one label."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        # Zeros until somebody begins or reads it: memory as it was found may hold a NaN.
        self.weight = nn.Parameter(torch.zeros(1, hidden_size))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[A, H] -> [A]; at least in fp32, because rewards differ in digits that bf16 has not."""
        rewards = F.linear(at_least_fp32(hidden), at_least_fp32(self.weight))
        return rewards.squeeze(-1).clone()  # FSDP hooks onto outputs, and warns of views


class PreferenceModel(nn.Module):
    """Computes loss sums of packed items for one objective.

    Args:
        backbone: a transformers decoder without head (`AutoModel`).
        lm_head: an untied LM head; None uses the input embeddings (tied), or none is needed.
        is_packed: compute items as they are packed; if not, row by row (`plain_rows`).
        logits: what the family does to its logits; None for the soft cap of its configuration.
    """

    def __init__(
        self,
        backbone: Any,
        lm_head: nn.Linear | None,
        objective: Objective,
        *,
        is_packed: bool = True,
        logits: LogitRule | None = None,
    ) -> None:
        super().__init__()
        if is_packed:
            backbone.set_attn_implementation(PACKED_ATTENTION)
        self.config = backbone.config  # with its dropout, which the export keeps
        without_dropout(backbone)
        self.backbone = backbone
        self.objective = objective
        self.is_packed = is_packed
        self.score = RewardHead(output_size(backbone.config)) if objective.has_rewards else None
        self.lm_head = lm_head if objective.has_lm else None
        if logits is None:
            logits = LogitRule(soft_cap=getattr(backbone.config, "final_logit_softcapping", None))
        self._logits = logits
        self.origins: object = None  # where its weights lie (stored_parameters), of an empty model

    def forward(self, batch: PackedBatch) -> Sums:
        """Loss sums of one packed batch under the names of `Objective.terms`, and rewards.

        `rm`, `center`, `dpo` are sums over pairs (listwise `rm` over chosen answers), `lm` over
        target tokens; `rewards` is [A], of the answers: those of the head or, for DPO, the implicit
        ones. DPO adds `log_likelihoods` [A], in nats, and `logits` [A]: means over the vocabulary,
        summed over an answer's tokens.
        """
        if self.is_packed:
            hidden = self.backbone(
                input_ids=batch.input_ids,
                position_ids=batch.position_ids,
                use_cache=False,
                packed_layout=PackedLayout(batch.spans, batch.position_ids),
            ).last_hidden_state[0]
        else:
            hidden = hidden_of_rows(self.backbone, batch)
        sums: Sums = {}
        if self.score is not None:
            self._add_rewards(sums, hidden, batch)
        if self.objective.has_lm:
            self._add_likelihoods(sums, hidden, batch)
        return sums

    def _add_rewards(self, sums: Sums, hidden: torch.Tensor, batch: PackedBatch) -> None:
        assert self.score is not None
        rewards = self.score(hidden[batch.answer_index])
        weights = self.objective.pair_weights(batch)
        if self.objective.is_listwise:
            of_lists = self.objective.list_weights(batch)
            sums["rm"] = listwise_loss_sum(rewards, batch.pairs, batch.margins, of_lists)
        else:
            sums["rm"] = reward_loss_sum(rewards, batch.pairs, batch.margins, weights)
        sums["center"] = centering_sum(rewards, batch.pairs, weights)
        sums["rewards"] = rewards

    def _add_likelihoods(self, sums: Sums, hidden: torch.Tensor, batch: PackedBatch) -> None:
        # The prompt's last token predicts several answers. An embedding's gradient adds up repeated
        # rows in one order; that of an index does so in the order of its threads.
        rows = F.embedding(batch.lm_index, hidden)
        inputs = (*self._head_inputs(rows), batch.lm_targets)
        soft_cap = self._logits.soft_cap
        if self.objective.sides != "all":
            sums["lm"] = lm_loss_sum(*inputs, soft_cap=soft_cap)
            return
        tokens, mean_logits = token_log_likelihoods(*inputs, soft_cap=soft_cap)
        likelihoods, beta = _by_answer(tokens, batch), self.objective.beta
        sums["log_likelihoods"] = likelihoods
        sums["logits"] = _by_answer(mean_logits, batch)
        weights = self.objective.pair_weights(batch)
        sums["dpo"] = dpo_loss_sum(likelihoods, batch.references, batch.pairs, weights, beta)
        sums["rewards"] = beta * (likelihoods - batch.references)

    def _head_inputs(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Hidden states and matrix whose product has the family's factor and bias, if any."""
        head = self.lm_head
        weight = self.backbone.get_input_embeddings().weight if head is None else head.weight
        if head is not None and head.bias is not None:
            # One more column: few families have a bias, and they alone pay with a copy.
            hidden = torch.cat([hidden, hidden.new_ones(hidden.shape[0], 1)], dim=1)
            weight = torch.cat([weight, head.bias.unsqueeze(1)], dim=1)
        if self._logits.scale != 1.0:
            hidden = hidden * self._logits.scale
        return hidden, weight


def _by_answer(values: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
    """[C] values of target tokens -> [A], summed over each answer."""
    return values.new_zeros(batch.answer_index.shape).index_add(0, batch.lm_owner, values)
