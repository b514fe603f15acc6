"""A pair is one sequence: [prompt | chosen | rejected], the prompt once.

Chosen and rejected both attend to the prompt and never to each other; the positions of rejected
restart after the prompt. Whole pairs are packed one after another without padding. Rewards are
read by index, at the last token of each response; the language model's targets are the chosen
tokens (section 3.1), and those of rejected too where an objective compares likelihoods.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch

Sides = Literal["chosen", "both", "chosen_alone"]


@dataclass(frozen=True)
class EncodedPair:
    """Token ids of one pair. `chosen` and `rejected` exclude the prompt and include EOS if any.

    `reference` are the log-likelihoods of the two responses, in nats, under the model that training
    began with; only DPO needs them. `truncated` tells that a response was cut to fit.
    """

    pair_id: str
    prompt: list[int]
    chosen: list[int]
    rejected: list[int]
    margin: float = 0.0
    reference: tuple[float, float] = (0.0, 0.0)
    truncated: bool = False

    @property
    def num_tokens(self) -> int:
        """Tokens of the packed pair."""
        return self.packed_length("chosen")

    def packed_length(self, sides: Sides) -> int:
        """Tokens that `pack` makes of the pair."""
        both = len(self.prompt) + len(self.chosen)
        return both if sides == "chosen_alone" else both + len(self.rejected)

    def padded_length(self, sides: Sides) -> int:
        """Tokens of the pair as ordinary sequences, one for each response that is computed."""
        if sides == "chosen_alone":
            return len(self.prompt) + len(self.chosen)
        return 2 * (len(self.prompt) + max(len(self.chosen), len(self.rejected)))


@dataclass(frozen=True)
class Span:
    """Where a pair lies: prompt [start, chosen), chosen [.., rejected), rejected [.., end)."""

    start: int
    chosen: int
    rejected: int
    end: int


class PackedLayout:
    """Who lies where in a packed sequence of T tokens, for attention; on one device.

    Attributes:
        pair: int32 [T], number of the pair.
        side: int32 [T]; 0 prompt, 1 chosen, 2 rejected.
        position: int64 [T], as the backbone gets them.
        longest: tokens of the longest prompt + response, the largest distance between positions.
    """

    def __init__(self, spans: list[Span], position_ids: torch.Tensor) -> None:
        self.spans = spans
        self.position = position_ids[0]
        self.longest = max(
            max(span.rejected - span.start, span.chosen - span.start + span.end - span.rejected)
            for span in spans
        )
        self._cache: dict[Hashable, Any] = {}

    def cached(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` returns, made once for all layers."""
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    @cached_property
    def pair(self) -> torch.Tensor:
        return self._repeat([(i, span.end - span.start) for i, span in enumerate(self.spans)])

    @cached_property
    def side(self) -> torch.Tensor:
        return self._repeat(
            [
                part
                for span in self.spans
                for part in (
                    (0, span.chosen - span.start),
                    (1, span.rejected - span.chosen),
                    (2, span.end - span.rejected),
                )
            ]
        )

    def _repeat(self, parts: list[tuple[int, int]]) -> torch.Tensor:
        values, counts = torch.tensor(parts, dtype=torch.int64).T
        return to_device(values.repeat_interleave(counts).int(), self.position.device)


@dataclass
class PackedBatch:
    """Pairs packed into one sequence of T tokens. P = number of pairs, C = target tokens.

    Attributes:
        input_ids: int64 [1, T].
        position_ids: int64 [1, T]; restart for every pair and again for its rejected side.
        spans: P entries.
        chosen_index / rejected_index: int64 [P], the last token of each response.
        margins: float32 [P].
        references: float32 [P, 2], log-likelihoods of chosen and rejected under the first model.
        lm_index: int64 [C], positions whose next token is a target.
        lm_targets: int64 [C], those tokens: of chosen, and of rejected where they were asked for.
        lm_owner: int64 [C], 2 x number of the pair, + 1 for targets of rejected.
        weight: 1.0, or 0.0 for the filler that keeps ranks in step.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    spans: list[Span]
    chosen_index: torch.Tensor
    rejected_index: torch.Tensor
    margins: torch.Tensor
    references: torch.Tensor
    lm_index: torch.Tensor
    lm_targets: torch.Tensor
    lm_owner: torch.Tensor
    weight: float = 1.0

    def to(self, device: torch.device) -> PackedBatch:
        moved = {
            name: to_device(value, device)
            for name, value in vars(self).items()
            if isinstance(value, torch.Tensor)
        }
        return PackedBatch(**moved, spans=self.spans, weight=self.weight)


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A copy on `device` that waits for nothing: from pageable memory a GPU's stream would."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def pack(pairs: list[EncodedPair], weight: float = 1.0, *, sides: Sides = "chosen") -> PackedBatch:
    """Pack whole pairs. Every pair needs at least one token in each of its three parts.

    `sides` are those whose tokens are targets. "chosen_alone" leaves rejected out of the sequence;
    its `rejected_index` then points at chosen's last token, for want of another.
    """
    ids: list[int] = []
    positions: list[int] = []
    spans: list[Span] = []
    lm_index: list[int] = []
    lm_targets: list[int] = []
    lm_owner: list[int] = []
    for number, pair in enumerate(pairs):
        if not (pair.prompt and pair.chosen and pair.rejected):
            raise ValueError(f"pair {pair.pair_id} has an empty part and cannot be packed")
        start = len(ids)
        num_prompt, num_chosen = len(pair.prompt), len(pair.chosen)
        chosen, rejected = start + num_prompt, start + num_prompt + num_chosen
        ids += pair.prompt + pair.chosen
        positions += range(num_prompt + num_chosen)
        if sides != "chosen_alone":
            ids += pair.rejected
            positions += range(num_prompt, num_prompt + len(pair.rejected))
        spans.append(Span(start, chosen, rejected, len(ids)))
        # The token at chosen - 1, the prompt's last, predicts the first token of either response.
        lm_index += range(chosen - 1, rejected - 1)
        lm_targets += pair.chosen
        lm_owner += [2 * number] * num_chosen
        if sides == "both":
            lm_index += [chosen - 1, *range(rejected, len(ids) - 1)]
            lm_targets += pair.rejected
            lm_owner += [2 * number + 1] * len(pair.rejected)
    return PackedBatch(
        input_ids=torch.tensor([ids]),
        position_ids=torch.tensor([positions]),
        spans=spans,
        chosen_index=torch.tensor([span.rejected - 1 for span in spans]),
        rejected_index=torch.tensor([span.end - 1 for span in spans]),
        margins=torch.tensor([pair.margin for pair in pairs]),
        references=torch.tensor([pair.reference for pair in pairs]),
        lm_index=torch.tensor(lm_index),
        lm_targets=torch.tensor(lm_targets),
        lm_owner=torch.tensor(lm_owner),
        weight=weight,
    )


def filler_batch(sides: Sides = "chosen") -> PackedBatch:
    """The smallest batch, with weight zero: an idle rank runs it, backward included."""
    return pack([EncodedPair("filler", [0], [0], [0])], weight=0.0, sides=sides)
