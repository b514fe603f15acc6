"""What every scorer offers. Server, batch job and evaluation know scorers by this protocol only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Scores:
    """Raw rewards of one prompt's responses, in their order, without any activation.

    Attributes:
        rewards: one float32 value per response.
        num_cached_prompt_tokens: prompt tokens that were not computed again, summed over responses.
    """

    rewards: list[float]
    num_cached_prompt_tokens: int = 0


class Scorer(Protocol):
    """Scores token ids made by `preference.tokenization.Encoder`."""

    max_model_len: int

    async def score_ids(self, prompt_ids: list[int], responses: list[list[int]]) -> Scores:
        """Rewards of `responses` (ids without the prompt) to one prompt.

        Raises EngineError when the engine fails.
        """
        ...
