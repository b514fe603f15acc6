"""A pair is one sequence: [prompt | chosen | rejected], the prompt once.

Chosen and rejected both attend to the prompt and never to each other; the positions of rejected
restart after the prompt. Whole pairs are packed one after another without padding. Rewards are
read by index, at the last token of each response; the language model's targets are the chosen
tokens only (section 3.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class EncodedPair:
    """Token ids of one pair. `chosen` and `rejected` exclude the prompt and include EOS if any."""

    pair_id: str
    prompt: list[int]
    chosen: list[int]
    rejected: list[int]
    margin: float = 0.0

    @property
    def num_tokens(self) -> int:
        return len(self.prompt) + len(self.chosen) + len(self.rejected)


@dataclass(frozen=True)
class Span:
    """Where a pair lies: prompt [start, chosen), chosen [.., rejected), rejected [.., end)."""

    start: int
    chosen: int
    rejected: int
    end: int


@dataclass
class PackedBatch:
    """Pairs packed into one sequence of T tokens. P = number of pairs, C = chosen target tokens.

    Attributes:
        input_ids: int64 [1, T].
        position_ids: int64 [1, T]; restart for every pair and again for its rejected side.
        spans: P entries.
        chosen_index / rejected_index: int64 [P], the last token of each response.
        margins: float32 [P].
        lm_index: int64 [C], positions whose next token is a chosen token.
        lm_targets: int64 [C], those chosen tokens.
        weight: 1.0, or 0.0 for the filler that keeps ranks in step.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    spans: list[Span]
    chosen_index: torch.Tensor
    rejected_index: torch.Tensor
    margins: torch.Tensor
    lm_index: torch.Tensor
    lm_targets: torch.Tensor
    weight: float = 1.0

    def to(self, device: torch.device) -> PackedBatch:
        moved = {
            name: value.to(device, non_blocking=True)
            for name, value in vars(self).items()
            if isinstance(value, torch.Tensor)
        }
        return PackedBatch(**moved, spans=self.spans, weight=self.weight)


def pack(pairs: list[EncodedPair], weight: float = 1.0) -> PackedBatch:
    """Pack whole pairs. Every pair needs at least one token in each of its three parts."""
    ids: list[int] = []
    positions: list[int] = []
    spans: list[Span] = []
    lm_index: list[int] = []
    lm_targets: list[int] = []
    for pair in pairs:
        if not (pair.prompt and pair.chosen and pair.rejected):
            raise ValueError(f"pair {pair.pair_id} has an empty part and cannot be packed")
        start = len(ids)
        num_prompt, num_chosen = len(pair.prompt), len(pair.chosen)
        chosen, rejected = start + num_prompt, start + num_prompt + num_chosen
        ids += pair.prompt + pair.chosen + pair.rejected
        positions += range(num_prompt + num_chosen)
        positions += range(num_prompt, num_prompt + len(pair.rejected))
        spans.append(Span(start, chosen, rejected, len(ids)))
        # The token at chosen - 1, the prompt's last, predicts the first chosen token.
        lm_index += range(chosen - 1, rejected - 1)
        lm_targets += pair.chosen
    return PackedBatch(
        input_ids=torch.tensor([ids]),
        position_ids=torch.tensor([positions]),
        spans=spans,
        chosen_index=torch.tensor([span.rejected - 1 for span in spans]),
        rejected_index=torch.tensor([span.end - 1 for span in spans]),
        margins=torch.tensor([pair.margin for pair in pairs]),
        lm_index=torch.tensor(lm_index),
        lm_targets=torch.tensor(lm_targets),
        weight=weight,
    )


def filler_batch() -> PackedBatch:
    """The smallest batch, with weight zero: an idle rank runs it, backward included."""
    return pack([EncodedPair("filler", [0], [0], [0])], weight=0.0)
