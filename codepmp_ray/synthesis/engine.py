"""What synthesis and sampling need of a generation engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from codepmp_ray.config.engines import SamplingConfig
from codepmp_ray.errors import CodePMPError


@dataclass(frozen=True)
class Completion:
    """One answer. `finish_reason` is "stop" or "length"; `num_tokens` counts generated tokens.

    `is_thought` says that the model only thought: what it began to think has no end.
    """

    text: str
    finish_reason: str
    num_tokens: int
    is_thought: bool = False


class ContextOverflow(CodePMPError):
    """A prompt leaves less room in the context than the answer may need."""


class EngineDied(Exception):
    """The engine is gone, and with it every request that it held. Says nothing about any row."""


class TextEngine(Protocol):
    """One model that answers chats."""

    async def generate(self, user_message: str, sampling: SamplingConfig) -> Completion:
        """Answer one user message.

        Raises ContextOverflow when prompt and `sampling.max_tokens` exceed the context, and
        EngineError when the engine refuses this request but lives on, EngineDied when it does not.
        """
        ...
