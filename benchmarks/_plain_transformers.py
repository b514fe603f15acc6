"""The same step in plain transformers: the truth of a packed one, and TRL's without TRL."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks._training import PAIRS_PER_MICRO_BATCH, device, labelled, parts_of
from codepmp_ray.preference.items import EncodedItem

_PAD = 0


def plain_copy(config: Any, ours: Any) -> Any:
    """transformers' own model with the weights of `ours`, in fp64 on the CPU."""
    from transformers import AutoModelForCausalLM

    plain: Any = AutoModelForCausalLM.from_config(
        copy.deepcopy(config), dtype=torch.float32, attn_implementation="eager"
    )
    plain.base_model.load_state_dict(ours.backbone.state_dict())
    if ours.lm_head is not None:
        plain.lm_head.load_state_dict(ours.lm_head.state_dict())
    return plain.double().train()


class TrlSemantics:
    """The step of TRL's RewardTrainer in plain transformers, for machines without TRL."""

    def __init__(self, *, bf16: bool, shape: Any) -> None:
        from transformers import AutoModelForSequenceClassification

        with device():
            model: Any = AutoModelForSequenceClassification.from_config(
                labelled(shape), dtype=torch.float32
            )
        self.model = model.train()
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=1e-6, weight_decay=0.1, fused=True
        )
        self.bf16 = bf16

    def __call__(self, pairs: list[EncodedItem]) -> None:
        parts = list(parts_of(pairs, PAIRS_PER_MICRO_BATCH))
        for part in parts:
            sides = [p.prompt + p.answers[side] for side in (0, 1) for p in part]
            width = max(map(len, sides))
            ids = torch.tensor([row + [_PAD] * (width - len(row)) for row in sides])
            mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in sides])
            with torch.autocast(device().type, torch.bfloat16, enabled=self.bf16):
                output = self.model(
                    ids.to(device()), attention_mask=mask.to(device()), use_cache=False
                )
                chosen, rejected = output.logits.squeeze(-1).float().chunk(2)
                loss = -F.logsigmoid(chosen - rejected).mean() / len(parts)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
