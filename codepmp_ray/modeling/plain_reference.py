"""What an objective asks for, computed by plain transformers: one ordinary sequence per response.

Nothing of ours is used but the objective's arithmetic: no packing, no padding, the family's own
attention, its own logits. It is what packed and padded forwards are held against.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from codepmp_ray.modeling.losses import (
    at_least_fp32,
    centering_sum,
    dpo_loss_sum,
    reward_loss_sum,
)
from codepmp_ray.modeling.objectives import Objective
from codepmp_ray.preference.packing import EncodedPair

Sums = dict[str, torch.Tensor]


def plain_sums(
    causal_lm: Any, score: torch.Tensor | None, pairs: list[EncodedPair], objective: Objective
) -> Sums:
    """The sums of `PreferenceModel.forward` that `objective` has terms of.

    `score` is the reward head's weight, [1, H], where the objective has one.
    """
    device = next(causal_lm.parameters()).device
    rewards: list[torch.Tensor] = []
    likelihoods: list[torch.Tensor] = []
    for pair in pairs:
        for response in (pair.chosen, pair.rejected):
            hidden, logits = _forward(causal_lm, pair.prompt + response, device)
            targets = torch.tensor(response, device=device)
            log_p = at_least_fp32(logits[len(pair.prompt) - 1 : -1]).log_softmax(dim=-1)
            likelihoods.append(log_p.gather(1, targets[:, None]).sum())
            if score is not None:
                rewards.append(F.linear(at_least_fp32(hidden[-1]), at_least_fp32(score))[0])
    by_pair = torch.stack(likelihoods).view(-1, 2)
    sums: Sums = {}
    if score is not None:
        sums["rewards"] = torch.stack(rewards).view(-1, 2)
        margins = torch.tensor([pair.margin for pair in pairs], device=device)
        chosen, rejected = sums["rewards"].unbind(dim=1)
        sums["rm"] = reward_loss_sum(chosen, rejected, margins)
        sums["center"] = centering_sum(chosen, rejected)
    if objective.name == "dpo":
        references = torch.tensor([pair.reference for pair in pairs], device=device)
        sums["log_likelihoods"] = by_pair
        sums["dpo"] = dpo_loss_sum(by_pair, references, objective.beta)
    elif objective.has_lm:
        sums["lm"] = -by_pair[:, 0].sum()
    return sums


@torch.no_grad()
def looks_ahead(causal_lm: Any, pair: EncodedPair) -> bool:
    """Whether what a token computes changes with the token after it."""
    device = next(causal_lm.parameters()).device
    ids = pair.prompt + pair.chosen
    other = [*ids[:-1], ids[0]]
    one, two = (_forward(causal_lm, row, device)[0][:-1] for row in (ids, other))
    return bool((one - two).norm() > 1e-4 * one.norm())


def _forward(
    causal_lm: Any, ids: list[int], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Last hidden states [n, H] and logits [n, V] of one sequence."""
    inputs = {"input_ids": torch.tensor([ids], device=device), "use_cache": False}
    hidden = causal_lm.base_model(**inputs).last_hidden_state
    return hidden[0], causal_lm(**inputs).logits[0]
