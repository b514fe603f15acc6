"""Pairs of one prompt become one item, and a split one keeps each of them."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codepmp_ray.preference.items import EncodedItem, join_pairs, num_lists_cut, split_item

PROMPT = [1, 2, 3, 4]


def texts(item: EncodedItem) -> list[tuple[list[int], list[int], float]]:
    """Each pair as whole sequences, as it would be without items."""
    return [
        (item.prompt + item.answers[chosen], item.prompt + item.answers[rejected], margin)
        for (chosen, rejected), margin in zip(item.pairs, item.margins, strict=True)
    ]


def best_texts(item: EncodedItem) -> list[list[int]]:
    return [item.prompt + item.answers[place] for place in item.best]


@st.composite
def pairs_of_a_prompt(draw: st.DrawFn) -> list[EncodedItem]:
    """Any pairs among up to six answers; some answers take the prompt's last token for theirs."""
    lengths = draw(st.lists(st.integers(1, 9), min_size=2, max_size=6))
    answers = [[10 + number] * length for number, length in enumerate(lengths)]
    places = st.tuples(st.integers(0, len(answers) - 1), st.integers(0, len(answers) - 1))
    chosen = draw(st.lists(places.filter(lambda p: p[0] != p[1]), min_size=1, max_size=12))
    items = []
    for number, (one, other) in enumerate(chosen):
        cut = draw(st.integers(0, 2))
        tail = PROMPT[len(PROMPT) - cut :]
        sides = [[*tail, *answers[place]] for place in (one, other)]
        prompt = PROMPT[: len(PROMPT) - cut]
        items.append(EncodedItem.of_pair(str(number), prompt, *sides, margin=0.5 * number))
    return items


@given(pairs_of_a_prompt())
@settings(deadline=None)
def test_an_item_has_the_pairs_that_it_was_joined_of_and_each_answer_once(items) -> None:
    item = join_pairs(items)
    assert texts(item) == [pair for one in items for pair in texts(one)]
    assert len({tuple(ids) for ids in item.answers}) == len(item.answers)
    chosen = {tuple(one) for one, _, _ in texts(item)}
    rejected = {tuple(other) for _, other, _ in texts(item)}
    assert {tuple(ids) for ids in best_texts(item)} == chosen - rejected
    assert (item.num_pairs, item.num_lists) == (len(items), len(chosen))


@given(pairs_of_a_prompt(), st.integers(14, 40))
@settings(deadline=None)
def test_parts_fit_and_have_each_pair_and_each_best_answer_once(items, max_tokens: int) -> None:
    item = join_pairs(items)
    parts = split_item(item, max_tokens)
    longest = max(
        len(item.prompt) + sum(len(item.answers[place]) for place in pair) for pair in item.pairs
    )
    assert all(part.num_tokens <= max(max_tokens, longest) for part in parts)
    found = [pair for part in parts for pair in texts(part)]
    assert Counter(map(repr, found)) == Counter(map(repr, texts(item)))
    assert sorted(ids for part in parts for ids in best_texts(part)) == sorted(best_texts(item))
    for part in parts:
        assert {place for pair in part.pairs for place in pair} == set(range(len(part.answers)))
        assert (part.num_pairs, part.num_lists) == (item.num_pairs, item.num_lists)
    of_lists = Counter(
        repr(one) for part in parts for one in {tuple(ids) for ids, _, _ in texts(part)}
    )
    assert num_lists_cut(parts) == sum(of_lists.values()) - len(of_lists)
    if item.num_tokens <= max_tokens:
        assert parts == [item]


def test_the_pairs_of_a_chosen_answer_stay_together_where_they_fit() -> None:
    """Four right and four wrong answers of 10 tokens: wrong ones and one right one take 54."""
    right, wrong = ([[n] * 10 for n in numbers] for numbers in (range(10, 14), range(20, 24)))
    item = join_pairs(
        [EncodedItem.of_pair("x", PROMPT, one, other) for one in right for other in wrong]
    )
    parts = split_item(item, 64)
    assert [len(part.pairs) for part in parts] == [8, 8] and num_lists_cut(parts) == 0
    assert num_lists_cut(split_item(item, 53)) > 0


def test_references_and_margins_go_with_their_answers_and_pairs() -> None:
    item = EncodedItem(
        "x", PROMPT, [[5] * 9, [6] * 9, [7] * 9], [(0, 1), (0, 2)], [0.1, 0.2], [0], 2, 1,
        [-1.0, -2.0, -3.0],
    )  # fmt: skip
    one, two = split_item(item, 22)
    assert (one.answers, one.margins, one.references) == ([[5] * 9, [6] * 9], [0.1], [-1.0, -2.0])
    assert (two.answers, two.margins, two.references) == ([[5] * 9, [7] * 9], [0.2], [-1.0, -3.0])
    assert (one.best, two.best) == ([0], [])


def test_items_of_other_prompts_are_not_joined() -> None:
    pairs = [EncodedItem.of_pair("x", prompt, [5], [6]) for prompt in (PROMPT, [9, 9, 9, 9])]
    with pytest.raises(ValueError, match="different prompts"):
        join_pairs(pairs)
