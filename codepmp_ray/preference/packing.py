"""An item is one sequence: [prompt | answer | answer | ...], the prompt once.

All answers attend to the prompt and never to each other; the positions of each restart after the
prompt. Whole items are packed one after another without padding. Rewards are read by index, at the
last token of each answer; the language model's targets are the tokens of the best answers (chosen,
section 3.1), and those of all where an objective compares likelihoods.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch

from codepmp_ray.preference.items import EncodedItem, Sides

Range = tuple[int, int]  # [start, end) in the pack


@dataclass(frozen=True)
class Span:
    """Where an item lies: its prompt from `start` to the first border, an answer to each next."""

    start: int
    borders: tuple[int, ...]

    @property
    def prompt(self) -> Range:
        return self.start, self.borders[0]

    @property
    def answers(self) -> list[Range]:
        return list(pairwise(self.borders))

    @property
    def end(self) -> int:
        return self.borders[-1]


class PackedLayout:
    """Who lies where in a packed sequence of T tokens, for attention; on one device.

    Attributes:
        item: int32 [T], number of the item.
        answer: int32 [T]; 0 prompt, 1 the item's first answer, and so on.
        position: int64 [T], as the backbone gets them.
        longest: tokens of the longest prompt + answer, the largest distance between positions.
    """

    def __init__(self, spans: list[Span], position_ids: torch.Tensor) -> None:
        self.spans = spans
        self.position = position_ids[0]
        self.longest = max(
            span.borders[0] - span.start + max(end - start for start, end in span.answers)
            for span in spans
        )
        self._cache: dict[Hashable, Any] = {}

    def cached(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` returns, made once for all layers."""
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    @cached_property
    def item(self) -> torch.Tensor:
        return self._repeat([(i, span.end - span.start) for i, span in enumerate(self.spans)])

    @cached_property
    def answer(self) -> torch.Tensor:
        return self._repeat(
            [
                (number, end - start)
                for span in self.spans
                for number, (start, end) in enumerate([span.prompt, *span.answers])
            ]
        )

    def _repeat(self, parts: list[tuple[int, int]]) -> torch.Tensor:
        values, counts = torch.tensor(parts, dtype=torch.int64).T
        return to_device(values.repeat_interleave(counts).int(), self.position.device)


@dataclass
class PackedBatch:
    """Items packed into one sequence of T tokens. A answers, P pairs, C target tokens.

    Attributes:
        input_ids: int64 [1, T].
        position_ids: int64 [1, T]; restart for every item, and after the prompt for every answer.
        spans: one of each item.
        answer_index: int64 [A], the last token of each answer.
        pairs: int64 [P, 2], chosen and rejected answer.
        margins: float32 [P].
        pair_shares: float64 [P], 1 / pairs of the prompt.
        list_shares: float64 [A], 1 / different chosen answers of the prompt.
        references: float32 [A], log-likelihoods of the answers under the first model.
        lm_index: int64 [C], positions whose next token is a target.
        lm_targets: int64 [C], those tokens.
        lm_owner: int64 [C], answers that they are of.
        weight: 1.0, or 0.0 for the filler that keeps ranks in step.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    spans: list[Span]
    answer_index: torch.Tensor
    pairs: torch.Tensor
    margins: torch.Tensor
    pair_shares: torch.Tensor
    list_shares: torch.Tensor
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


def pack(items: list[EncodedItem], weight: float = 1.0, *, sides: Sides = "best") -> PackedBatch:
    """Pack whole items. Each needs a prompt and an answer, of at least one token each.

    `sides` are the answers whose tokens are targets. "best_alone" leaves the others out of the
    sequence, and with them the pairs.
    """
    ids: list[int] = []
    positions: list[int] = []
    spans: list[Span] = []
    index: list[int] = []
    pairs: list[tuple[int, int]] = []
    margins: list[float] = []
    pair_shares: list[float] = []
    list_shares: list[float] = []
    references: list[float] = []
    lm_index: list[int] = []
    lm_targets: list[int] = []
    lm_owner: list[int] = []
    for item in items:
        kept = item.best if sides == "best_alone" else range(len(item.answers))
        if not (item.prompt and kept and all(item.answers)):
            raise ValueError(f"item {item.item_id} has an empty part and cannot be packed")
        start, num_prompt, first = len(ids), len(item.prompt), len(index)
        borders = [start + num_prompt]
        ids += item.prompt
        positions += range(num_prompt)
        for number in kept:
            answer = item.answers[number]
            ids += answer
            positions += range(num_prompt, num_prompt + len(answer))
            if sides == "all" or number in item.best:
                # The prompt's last token predicts the first token of every answer.
                lm_index += [borders[0] - 1, *range(borders[-1], len(ids) - 1)]
                lm_targets += answer
                lm_owner += [len(index)] * len(answer)
            borders.append(len(ids))
            index.append(len(ids) - 1)
        spans.append(Span(start, tuple(borders)))
        list_shares += [1 / item.num_lists] * len(kept)
        references += [item.references[i] for i in kept] if item.references else [0.0] * len(kept)
        if sides != "best_alone":
            pairs += [(first + chosen, first + rejected) for chosen, rejected in item.pairs]
            margins += item.margins
            pair_shares += [1 / item.num_pairs] * len(item.pairs)
    return PackedBatch(
        input_ids=torch.tensor([ids]),
        position_ids=torch.tensor([positions]),
        spans=spans,
        answer_index=torch.tensor(index),
        pairs=torch.tensor(pairs, dtype=torch.int64).view(-1, 2),
        margins=torch.tensor(margins),
        pair_shares=torch.tensor(pair_shares, dtype=torch.float64),
        list_shares=torch.tensor(list_shares, dtype=torch.float64),
        references=torch.tensor(references),
        lm_index=torch.tensor(lm_index, dtype=torch.int64),
        lm_targets=torch.tensor(lm_targets, dtype=torch.int64),
        lm_owner=torch.tensor(lm_owner, dtype=torch.int64),
        weight=weight,
    )


def filler_batch(sides: Sides = "best") -> PackedBatch:
    """The smallest batch, with weight zero: an idle rank runs it, backward included."""
    return pack([EncodedItem.of_pair("filler", [0], [0], [0])], weight=0.0, sides=sides)
