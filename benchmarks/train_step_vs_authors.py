"""Our PMP step against one with the semantics of the authors' release, in turn.

Theirs: chosen and rejected as two padded rows, all of them in one forward, logits of the whole
vocabulary in fp32 over the chosen rows, mean reward loss plus mean cross-entropy over chosen's
answer tokens. Written here from that description, on plain transformers; both sides end with
clipping and AdamW, use all cores and the same precision.

    python -m benchmarks.train_step_vs_authors [--rounds 3] [--pairs 16]
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from benchmarks._results import options
from benchmarks._training import (
    MODEL,
    SMOLLM2_135M,
    Lengths,
    OurStep,
    alternate,
    device,
    make_pairs,
    measure_models,
    optimizer_steps,
    packed_tokens,
    padded_tokens,
    parts_of,
    rate_result,
    ratio_result,
    require_memory_for_pairs,
    shape_of,
    training_bytes,
)
from codepmp_ray.preference.items import EncodedItem

AUTHORS_MICRO_BATCH = 4  # pairs, as in their scripts
_PAD = 0


class AuthorsStep:
    """One optimizer step, computed as the authors' scripts compute it."""

    def __init__(self, *, bf16: bool, shape: Any = None) -> None:
        from transformers import AutoModelForCausalLM

        from codepmp_ray.modeling.sources import resolve_model

        kind = AutoModelForCausalLM
        if shape is None:
            model = kind.from_pretrained(resolve_model(MODEL), dtype=torch.float32)
        else:
            with device():
                model = kind.from_config(shape, dtype=torch.float32)
        self.model: Any = model.to(device())
        self.model.train()
        self.head = torch.nn.Linear(self.model.config.hidden_size, 1, bias=False).to(device())
        self.parameters = [*self.model.parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-6, weight_decay=0.1, fused=True)
        self.bf16 = bf16

    def __call__(self, pairs: list[EncodedItem]) -> None:
        parts = list(parts_of(pairs, AUTHORS_MICRO_BATCH))
        for part in parts:
            with torch.autocast(device().type, torch.bfloat16, enabled=self.bf16):
                loss = self._loss(part) / len(parts)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _loss(self, pairs: list[EncodedItem]) -> torch.Tensor:
        rows = [p.prompt + side for p in pairs for side in p.answers]  # interleaved
        width = max(map(len, rows))
        ids = torch.tensor([[_PAD] * (width - len(row)) + row for row in rows]).to(device())
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows]).to(
            device()
        )
        hidden = self.model.base_model(ids, attention_mask=mask, use_cache=False).last_hidden_state
        rewards = self.head(hidden[:, -1]).squeeze(-1).float()
        loss = -F.logsigmoid(rewards[0::2] - rewards[1::2]).mean()
        logits = self.model.lm_head(hidden[0::2, :-1]).float()
        labels = ids[0::2, 1:].clone()
        for row, pair in enumerate(pairs):
            labels[row, : width - 1 - len(pair.answers[0])] = -100
        return loss + F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)


def measure(model: str, bf16: bool, rounds: int, num_pairs: int) -> list[dict[str, Any]]:
    pairs = make_pairs(num_pairs)
    shape = shape_of(model)
    theirs, ours = AuthorsStep(bf16=bf16, shape=shape), OurStep("pmp", bf16=bf16, shape=shape)

    def run(step: AuthorsStep | OurStep) -> None:
        for batch in optimizer_steps(pairs):
            step(batch)

    times = alternate({"authors": lambda: run(theirs), "ours": lambda: run(ours)}, rounds)
    context = {"model": model, "precision": "bf16" if bf16 else "fp32", "pairs": num_pairs}
    goal = "at least 2.5"
    return [
        ratio_result("our_pmp_over_authors_pmp", times["authors"], times["ours"], goal, **context),
        *[rate_result(f"{name}_pairs_per_s", num_pairs, times[name], **context) for name in times],
    ]


def memory_needed(lengths: Lengths) -> float:
    """Two models in one process, while the hungrier one does its step in fp32."""
    num_tokens = padded_tokens(lengths, AUTHORS_MICRO_BATCH)
    theirs = training_bytes(SMOLLM2_135M, num_tokens, num_models=2, num_logit_rows=num_tokens // 2)
    return max(theirs, training_bytes(SMOLLM2_135M, packed_tokens(lengths), num_models=2))


def main() -> None:
    arguments = options(__doc__, rounds=3, pairs=16).parse_args()
    require_memory_for_pairs(arguments.pairs, memory_needed)
    measure_models("train_step_vs_authors", measure, arguments.rounds, arguments.pairs)


if __name__ == "__main__":
    main()
