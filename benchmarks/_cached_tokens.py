"""What a prefix cache of whole blocks should save; the engine's own figure is held against it."""

from __future__ import annotations

from collections.abc import Iterable


def cached_prompt_tokens(
    prompt_ids: list[int], responses: Iterable[list[int]], block_size: int
) -> int:
    """Prompt tokens that need not be computed again, summed over `responses`, computed in order.

    The cache begins empty, is never too small, and keeps whole blocks of `block_size` ids (in
    tokens), each found by all ids up to its end, as in vLLM. A row's last token is always computed,
    for its hidden state is the answer. For n responses that begin differently this is

        floor(len(prompt) / block_size) * block_size * (n - 1)

    and more where responses go on alike from the prompt's last, unfilled block; what is shared
    beyond the prompt is not counted. Without a prompt (whole texts) everything shared counts.
    """
    known: set[tuple[int, ...]] = set()
    num_cached = 0
    for response in responses:
        ids = (*prompt_ids, *response)
        ends = range(block_size, len(ids) + 1, block_size)
        found = 0
        for end in ends:
            if end >= len(ids) or ids[:end] not in known:
                break
            found = end
        num_cached += min(found, len(prompt_ids)) if prompt_ids else found
        known.update(ids[:end] for end in ends)
    return num_cached
