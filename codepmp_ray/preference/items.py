"""A prompt with its answers as token ids: what rows become, and what is packed.

A pair is an item of two answers. Pairs of one prompt are joined to one item, in which prompt and
answers are computed once, however many pairs they are in. An item above a limit of tokens is split
into items that hold the same pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

# Answers that are computed, and whose tokens are targets of the language model: of all answers
# those that nothing is preferred to, all, or nothing but those that nothing is preferred to.
Sides = Literal["best", "all", "best_alone"]


@dataclass(frozen=True)
class EncodedItem:
    """A prompt with its different answers, and which of them are preferred to which.

    Attributes:
        item_id: that of its first pair.
        prompt: token ids.
        answers: token ids of each, without the prompt, with EOS if any.
        pairs: (chosen, rejected), both places in `answers`.
        margins: one for each pair.
        best: places of the answers that are preferred to others and nothing to them. Of the items
            that one was split into only the first with such an answer names it.
        num_pairs: of the prompt, over all items that one was split into.
        num_lists: different chosen answers of the prompt, over the same items.
        references: log-likelihoods of the answers, in nats, under the model that training began
            with; only DPO needs them.
        truncated: an answer was cut to fit.
    """

    item_id: str
    prompt: list[int]
    answers: list[list[int]]
    pairs: list[tuple[int, int]]
    margins: list[float]
    best: list[int]
    num_pairs: int
    num_lists: int
    references: list[float] = field(default_factory=list)
    truncated: bool = False

    @classmethod
    def of_pair(
        cls,
        item_id: str,
        prompt: list[int],
        chosen: list[int],
        rejected: list[int],
        margin: float = 0.0,
        references: Sequence[float] = (),
        truncated: bool = False,
    ) -> EncodedItem:
        """The item of one pair."""
        answers, own = [chosen, rejected], list(references)
        return cls(item_id, prompt, answers, [(0, 1)], [margin], [0], 1, 1, own, truncated)

    @property
    def num_tokens(self) -> int:
        """Tokens of the packed item."""
        return self.packed_length("best")

    def computed(self, sides: Sides) -> list[list[int]]:
        """The answers that are computed."""
        return [self.answers[i] for i in self.best] if sides == "best_alone" else self.answers

    def targets(self, sides: Sides) -> list[list[int]]:
        """The answers whose tokens are targets."""
        return self.answers if sides == "all" else [self.answers[i] for i in self.best]

    def packed_length(self, sides: Sides) -> int:
        """Tokens that `pack` makes of the item."""
        return len(self.prompt) + sum(map(len, self.computed(sides)))

    def padded_shape(self, sides: Sides) -> tuple[int, int]:
        """(rows, tokens of the longest) of the item as ordinary sequences, one for each answer."""
        answers = self.computed(sides)
        return len(answers), len(self.prompt) + max(map(len, answers))


def join_pairs(items: Sequence[EncodedItem]) -> EncodedItem:
    """One item of several whose prompts are one text; answers of equal ids are one answer.

    Their prompts may differ by last tokens, where white space of an answer forms a token with the
    prompt's: the shortest one is what all answers begin with.
    """
    if len(items) == 1:
        return items[0]
    num = min(len(item.prompt) for item in items)
    prompt = items[0].prompt[:num]
    if any(item.prompt[:num] != prompt for item in items):
        raise ValueError(f"items from {items[0].item_id} on have different prompts")
    places: dict[tuple[int, ...], int] = {}
    pairs: list[tuple[int, int]] = []
    for item in items:
        rest = item.prompt[num:]
        own = [places.setdefault((*rest, *ids), len(places)) for ids in item.answers]
        pairs += [(own[chosen], own[rejected]) for chosen, rejected in item.pairs]
    chosen = {one for one, _ in pairs}
    return EncodedItem(
        items[0].item_id,
        prompt,
        [list(ids) for ids in places],
        pairs,
        [margin for item in items for margin in item.margins],
        sorted(chosen - {other for _, other in pairs}),
        len(pairs),
        len(chosen),
        truncated=any(item.truncated for item in items),
    )


def split_item(item: EncodedItem, max_tokens: int) -> list[EncodedItem]:
    """Items of at most `max_tokens` packed tokens that hold each pair of `item` once.

    The pairs of one chosen answer stay together where they fit. A pair that is longer than
    `max_tokens` by itself is an item by itself.
    """
    if item.num_tokens <= max_tokens:
        return [item]
    by_chosen: dict[int, list[int]] = {}
    for number, (chosen, _) in enumerate(item.pairs):
        by_chosen.setdefault(chosen, []).append(number)
    parts: list[tuple[list[int], set[int]]] = []  # pairs, and their answers

    def place(numbers: list[int]) -> bool:
        wanted = {answer for number in numbers for answer in item.pairs[number]}
        for pairs, answers in parts:
            if _length(item, answers | wanted) <= max_tokens:
                pairs += numbers
                answers |= wanted
                return True
        if len(numbers) > 1 and _length(item, wanted) > max_tokens:
            return False
        parts.append((list(numbers), wanted))
        return True

    for numbers in by_chosen.values():
        if not place(numbers):
            for number in numbers:
                place([number])
    best, found = set(item.best), []
    for pairs, answers in parts:
        found.append(_part(item, sorted(pairs), sorted(answers), best & answers))
        best -= answers
    return found


def num_lists_cut(parts: Sequence[EncodedItem]) -> int:
    """Chosen answers whose pairs lie in several of the items that one was split into."""
    return sum(len({chosen for chosen, _ in part.pairs}) for part in parts) - parts[0].num_lists


def _length(item: EncodedItem, answers: set[int]) -> int:
    return len(item.prompt) + sum(len(item.answers[answer]) for answer in answers)


def _part(item: EncodedItem, pairs: list[int], answers: list[int], best: set[int]) -> EncodedItem:
    place = {answer: number for number, answer in enumerate(answers)}
    return EncodedItem(
        item.item_id,
        item.prompt,
        [item.answers[answer] for answer in answers],
        [(place[item.pairs[pair][0]], place[item.pairs[pair][1]]) for pair in pairs],
        [item.margins[pair] for pair in pairs],
        sorted(place[answer] for answer in best),
        item.num_pairs,
        item.num_lists,
        [item.references[answer] for answer in answers] if item.references else [],
        item.truncated,
    )
