"""The one place where text becomes token ids. Training, scoring, serving and evaluation call it.

The prompt is tokenised by itself, so that all responses to it share the same ids; then the response
by itself, then EOS. The prompt's surroundings (chat markers, system message) are frozen in a
`PromptTemplate` that is saved beside the weights: a template that changes with the date or the
library would move every score.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from codepmp_ray.errors import InputError, ModelError
from codepmp_ray.preference.frozen_template import frozen, require_no_open_thought

TEMPLATE_FILE = "codepmp_template.json"
_SENTINEL = "\u2063codepmp-prompt\u2063"
Message = dict[str, str]


@dataclass(frozen=True)
class PromptTemplate:
    """Text around a prompt. A list of messages goes through `chat_template` instead."""

    kind: Literal["chat", "plain"]
    prefix: str
    suffix: str
    append_eos: bool
    chat_template: str | None
    chat_template_kwargs: dict[str, Any] = field(
        default_factory=dict
    )  # as `chat_template` has them

    @classmethod
    def from_tokenizer(
        cls,
        tokenizer: Any,
        kind: str,
        append_eos: bool,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> PromptTemplate:
        """Freeze what the tokenizer's chat template puts around a user's message, as of now.

        Raises ModelError for kind="chat" and a tokenizer without a usable chat template, and for
        kind="plain" with arguments for one.
        """
        if kind == "plain":
            if chat_template_kwargs:
                raise ModelError(
                    f"chat_template_kwargs has {', '.join(chat_template_kwargs)}, and template="
                    "plain has no chat template.",
                    "Remove them, or set template=chat in the training section.",
                )
            return cls("plain", "", "\n", append_eos, None)
        if not tokenizer.chat_template:
            raise ModelError(
                f"The tokenizer of {tokenizer.name_or_path} has no chat template.",
                "Set template=plain in the training section.",
            )
        chat_template = frozen(tokenizer.chat_template, chat_template_kwargs or {}, datetime.now())
        text = _render(tokenizer, [{"role": "user", "content": _SENTINEL}], chat_template)
        prefix, found, suffix = text.partition(_SENTINEL)
        if not found or _SENTINEL in suffix:
            raise ModelError(
                "The chat template does not show the user's message exactly once.",
                "Set template=plain in the training section.",
            )
        require_no_open_thought(suffix)
        kwargs = dict(chat_template_kwargs or {})
        return cls("chat", prefix, suffix, append_eos, chat_template, kwargs)

    @classmethod
    def load(cls, folder: str | Path) -> PromptTemplate:
        """Read the template saved beside a model's weights. Raises ModelError if there is none."""
        file = Path(folder) / TEMPLATE_FILE
        try:
            return cls.from_json(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError) as error:
            raise ModelError(
                f"{file} is missing or damaged ({error}).",
                "Score with a model exported by this project, whose prompt format is recorded.",
            ) from error

    @classmethod
    def from_json(cls, text: str) -> PromptTemplate:
        """What `to_json` wrote. Raises ValueError or TypeError for anything else."""
        return cls(**json.loads(text))

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)

    def save(self, folder: str | Path) -> None:
        (Path(folder) / TEMPLATE_FILE).write_text(self.to_json(), encoding="utf-8")


@dataclass(frozen=True)
class EncodedResponse:
    """Ids of one response, EOS included where the template appends it."""

    ids: list[int]
    truncated: bool


class Encoder:
    """Turns prompts and responses into ids with one tokenizer and one frozen template.

    Args:
        vocab_size: rows of the model's embedding, where the caller wants to know of ids beyond it.
    """

    def __init__(
        self, tokenizer: Any, template: PromptTemplate, vocab_size: int | None = None
    ) -> None:
        if template.append_eos and tokenizer.eos_token_id is None:
            raise ModelError(
                f"The tokenizer of {tokenizer.name_or_path} has no EOS token.",
                "Set append_eos=false in the training section.",
            )
        self.tokenizer = tokenizer
        self.template = template
        self.vocab_size = vocab_size

    @classmethod
    def load(cls, folder: str | Path) -> Encoder:
        """Encoder of an exported model's folder."""
        from transformers import AutoTokenizer

        return cls(AutoTokenizer.from_pretrained(folder), PromptTemplate.load(folder))

    def prompt_ids(self, prompt: str | Sequence[Message]) -> list[int]:
        """Ids of a prompt string (wrapped as one user message) or of a list of messages.

        Raises InputError for messages with a plain template or messages that it cannot render.
        """
        return self._ids(self.render_prompt(prompt))

    def render_prompt(self, prompt: str | Sequence[Message]) -> str:
        if isinstance(prompt, str):
            return f"{self.template.prefix}{prompt}{self.template.suffix}"
        if self.template.chat_template is None:
            raise InputError(
                "This model was trained with plain prompts and takes no messages.",
                "Send prompt instead of messages.",
            )
        try:
            return _render(self.tokenizer, list(prompt), self.template.chat_template)
        except Exception as error:
            raise InputError(f"The chat template cannot render the messages: {error}.") from error

    def response(self, text: str, max_tokens: int | None = None) -> EncodedResponse:
        """Ids of a response. Beyond `max_tokens` it is cut right and loses its EOS, visibly."""
        return self.end_response(self._ids(text), max_tokens)

    def whole_text(self, text: str) -> EncodedResponse:
        """Ids of a text that holds prompt, response and all markers; EOS is added where it lacks.

        Line breaks after an EOS in the text stay out: templates end so, and the reward is read at
        the EOS.
        """
        eos = self.tokenizer.eos_token
        if self.template.append_eos and (bare := text.rstrip("\n")).endswith(eos):
            return EncodedResponse(self._ids(bare), truncated=False)
        return self.response(text)

    def end_response(self, ids: list[int], max_tokens: int | None = None) -> EncodedResponse:
        """`response` of a text whose ids are known, without EOS."""
        if self.template.append_eos:
            ids = [*ids, self.tokenizer.eos_token_id]
        if max_tokens is not None and len(ids) > max_tokens:
            return EncodedResponse(ids[: max(max_tokens, 0)], truncated=True)
        return EncodedResponse(ids, truncated=False)

    def ids_of(self, texts: list[str]) -> list[list[int]]:
        """Ids of rendered prompts or responses, each for itself; on all cores if it can."""
        return self.tokenizer(texts, add_special_tokens=False)["input_ids"]

    def unknown_token(self, *parts: Sequence[int]) -> str | None:
        """Names the first token of `parts` that the model has no embedding for, if there is one."""
        if self.vocab_size is None:
            return None
        for ids in parts:
            if max(ids, default=0) >= self.vocab_size:
                number = next(i for i in ids if i >= self.vocab_size)
                token = self.tokenizer.convert_ids_to_tokens(number)
                return f"{token!r} has id {number}, the model {self.vocab_size} embeddings"
        return None

    def _ids(self, text: str) -> list[int]:
        return self.ids_of([text])[0]


def _render(tokenizer: Any, messages: list[Message], chat_template: str) -> str:
    return tokenizer.apply_chat_template(
        messages, chat_template=chat_template, add_generation_prompt=True, tokenize=False
    )
