"""What an objective asks for, computed by plain transformers: one ordinary sequence per answer.

Nothing of ours is used but the objective's arithmetic: no packing, no padding, the family's own
attention, its own logits. It is what packed and padded forwards are held against.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F

from codepmp_ray.modeling.losses import at_least_fp32
from codepmp_ray.modeling.objectives import Objective
from codepmp_ray.preference.items import EncodedItem

Sums = dict[str, torch.Tensor]


def plain_sums(
    causal_lm: Any, score: torch.Tensor | None, items: list[EncodedItem], objective: Objective
) -> Sums:
    """The sums of `PreferenceModel.forward` that `objective` has terms of.

    `score` is the reward head's weight, [1, H], where the objective has one.
    """
    device = next(causal_lm.parameters()).device
    found: dict[str, list[torch.Tensor]] = defaultdict(list)
    for item in items:
        rewards: list[torch.Tensor] = []
        likelihoods: list[torch.Tensor] = []
        for answer in item.answers:
            hidden, logits = _forward(causal_lm, item.prompt + answer, device)
            targets = torch.tensor(answer, device=device)
            log_p = at_least_fp32(logits[len(item.prompt) - 1 : -1]).log_softmax(dim=-1)
            likelihoods.append(log_p.gather(1, targets[:, None]).sum())
            if score is not None:
                rewards.append(F.linear(at_least_fp32(hidden[-1]), at_least_fp32(score))[0])
        if score is not None:
            found["rewards"] += rewards
            found["rm"] += _rankings(rewards, item, objective)
            weight = 1 / item.num_pairs if objective.is_per_prompt else 1.0
            found["center"] += [weight * (rewards[c] + rewards[r]) ** 2 for c, r in item.pairs]
        if objective.name == "dpo":
            ratios = [
                objective.beta * (one - known)
                for one, known in zip(likelihoods, item.references, strict=True)
            ]
            found["log_likelihoods"] += likelihoods
            found["dpo"] += _rankings(
                ratios, replace(item, margins=[0.0] * len(item.pairs)), objective
            )
        elif objective.has_lm:
            found["lm"] += [-likelihoods[best] for best in item.best]
    by_answer = ("rewards", "log_likelihoods")
    return {n: torch.stack(v) if n in by_answer else torch.stack(v).sum() for n, v in found.items()}


def _rankings(
    rewards: list[torch.Tensor], item: EncodedItem, objective: Objective
) -> list[torch.Tensor]:
    """Weighted losses of one item's pairs, or of its chosen answers where that is listwise."""
    gaps: dict[Any, list[torch.Tensor]] = defaultdict(list)
    for number, ((chosen, rejected), margin) in enumerate(
        zip(item.pairs, item.margins, strict=True)
    ):
        # As fp32, in which batches have them.
        gap = rewards[rejected] + torch.tensor(margin, device=rewards[0].device) - rewards[chosen]
        gaps[chosen if objective.is_listwise else number].append(gap)
    num = item.num_lists if objective.is_listwise else item.num_pairs
    weight = 1 / num if objective.is_per_prompt else 1.0
    return [
        weight * torch.stack([torch.zeros_like(own[0]), *own]).logsumexp(dim=0)
        for own in gaps.values()
    ]


@torch.no_grad()
def looks_ahead(causal_lm: Any, item: EncodedItem) -> bool:
    """Whether what a token computes changes with the token after it."""
    device = next(causal_lm.parameters()).device
    ids = item.prompt + item.answers[0]
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
