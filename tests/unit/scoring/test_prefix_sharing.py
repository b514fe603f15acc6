"""What sharing should save, against rows counted by hand."""

from __future__ import annotations

import pytest

from benchmarks._cached_tokens import cached_prompt_tokens

PROMPT = list(range(100, 110))  # two blocks of 4 and a half one


@pytest.mark.parametrize(
    ("responses", "expected"),
    [
        ([[1]], 0),
        ([[1], [2], [3]], 8 + 8),
        # Alike to the end of the third block, which holds two ids of the prompt: all ten are found.
        ([[1, 2, 3], [1, 2, 4], [5, 2, 3]], 10 + 8),
        ([[1, 2], [1, 2]], 8),  # the third block is full, but its last id is always computed
        ([[], []], 8),
    ],
)
def test_whole_blocks_of_the_prompt_are_shared(responses: list[list[int]], expected: int) -> None:
    assert cached_prompt_tokens(PROMPT, responses, block_size=4) == expected


def test_a_prompt_that_ends_with_a_block_is_computed_for_its_own_score() -> None:
    assert cached_prompt_tokens(PROMPT[:8], [[1], []], block_size=4) == 4


def test_whole_texts_share_what_they_begin_with() -> None:
    texts = [[*PROMPT, 1, 2, 3], [*PROMPT, 1, 2, 4], [9, *PROMPT]]
    assert cached_prompt_tokens([], texts, block_size=4) == 12
