"""What every scorer offers. Server, batch job and evaluation know scorers by this protocol only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from codepmp_ray.errors import EngineError


@dataclass(frozen=True)
class Scores:
    """Raw rewards of one prompt's responses, in their order, without any activation.

    Attributes:
        rewards: one float32 value per response, None where the deadline came first.
        num_cached_prompt_tokens: prompt tokens that were not computed again, summed over responses.
    """

    rewards: list[float | None]
    num_cached_prompt_tokens: int = 0


def check_vocabulary(prompt_ids: list[int], responses: list[list[int]], vocab_size: int) -> None:
    """Raises EngineError for an id without an embedding.

    Computing it would end a vLLM engine or a process on a GPU, and every request in flight.
    """
    largest = max(max(ids, default=0) for ids in (prompt_ids, *responses))
    if largest >= vocab_size:
        raise EngineError(
            f"Token id {largest} is outside the model's vocabulary of {vocab_size}.",
            "The tokenizer in the model's folder belongs to another model.",
        )


class Scorer(Protocol):
    """Scores token ids made by `preference.tokenization.Encoder`."""

    max_model_len: int

    async def score_ids(
        self,
        prompt_ids: list[int],
        responses: list[list[int]],
        timeout_s: float | None = None,
    ) -> Scores:
        """Rewards of `responses` (ids without the prompt) to one prompt, as many as are there in
        `timeout_s`.

        Raises EngineError when the engine fails.
        """
        ...

    def stage_weights(self, folder: str) -> Any:
        """What `take_weights` needs of an export of the same shape; called in a thread, beside
        requests. Raises ModelError.
        """
        ...

    async def take_weights(self, staged: Any) -> None:
        """Score by these weights from now on. No request may be under way."""
        ...
