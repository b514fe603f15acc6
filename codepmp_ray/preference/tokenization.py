"""The one place where text becomes token ids. Training, scoring, serving and evaluation call it.

Prompt and answer are tokenised as one text, as every other program does it, then EOS is added: the
ids of an answer depend on nothing but its prompt. What all answers to a prompt begin with is kept
once (`Encoded.split`).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from codepmp_ray.errors import InputError, ModelError
from codepmp_ray.preference.control_tokens import ControlTokens
from codepmp_ray.preference.messages import BadMessage, Message, require_shown
from codepmp_ray.preference.prompt_template import TEMPLATE_FILE, PromptTemplate, render

__all__ = ["TEMPLATE_FILE", "Encoded", "EncodedResponse", "Encoder", "Message", "PromptTemplate"]

Prompt = str | Sequence[Message]


@dataclass(frozen=True)
class EncodedResponse:
    """Ids of one response, EOS included where the template appends it."""

    ids: list[int]
    truncated: bool


@dataclass(frozen=True)
class Encoded:
    """A prompt and answers to it.

    Attributes:
        prompt: ids of the prompt alone.
        sequences: ids of prompt and answer, for each answer, EOS included.
    """

    prompt: list[int]
    sequences: list[list[int]]

    def split(self, max_length: int | None = None) -> tuple[list[int], list[EncodedResponse]]:
        """(ids that prompt and all sequences begin with, the rest of each sequence).

        The first part is the prompt, or lacks its last tokens where an answer's white space forms
        a token with the prompt's. A sequence beyond `max_length` tokens is cut right and loses its
        EOS, visibly.
        """
        cut = [ids[:max_length] for ids in self.sequences]
        num = common_length([self.prompt, *cut])
        responses = [
            EncodedResponse(short[num:], truncated=len(short) < len(ids))
            for short, ids in zip(cut, self.sequences, strict=True)
        ]
        return self.prompt[:num], responses


def common_length(sequences: Sequence[list[int]]) -> int:
    """Ids that all sequences begin with."""
    first, num = sequences[0], min(map(len, sequences))
    for ids in sequences[1:]:
        if ids[:num] != first[:num]:
            num = next(i for i in range(num) if ids[i] != first[i])
    return num


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
    def load(cls, folder: str | Path, template: Literal["recorded", "own"] = "recorded") -> Encoder:
        """Encoder of an exported model's folder; with template="own" of any model's.

        Raises ModelError for a folder without a tokenizer, or without the recorded template.
        """
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(folder)
        except (OSError, ValueError) as error:
            raise ModelError(f"The tokenizer in {folder} cannot be loaded: {error}.") from error
        if template == "own":
            return cls(tokenizer, PromptTemplate.of_model(tokenizer))
        return cls(tokenizer, PromptTemplate.load(folder))

    def copy(self) -> Encoder:
        """One for another thread: a tokenizer changes a setting of itself to take control tokens
        as text.
        """
        return Encoder(copy.deepcopy(self.tokenizer), self.template, self.vocab_size)

    @cached_property
    def _control(self) -> ControlTokens:
        return ControlTokens(self.tokenizer)

    def encode(self, prompt: Prompt, responses: Sequence[str]) -> Encoded:
        """A prompt (a string is one user message) and answers to it.

        An answer that ends with EOS gets no second one. Control tokens inside a text are text.
        Raises InputError for messages with a plain template or messages that it cannot render.
        """
        return self.encode_rendered([(self.render(prompt), responses)])[0]

    def encode_rendered(self, requests: Sequence[tuple[str, Sequence[str]]]) -> list[Encoded]:
        """`encode` of prompts that were rendered; all texts are tokenised in one call."""
        eos = [self.tokenizer.eos_token_id] if self.template.append_eos else []
        parts = []
        for prompt, responses in requests:
            head, tail = self._split_head(prompt)
            closing = self.template.closing
            marked = [self._control.mark(self._without_eos(text)) + closing for text in responses]
            parts.append((head, [tail, *(tail + text for text in marked)]))
        texts = list(dict.fromkeys(text for head, tails in parts for text in (head, *tails)))
        ids = dict(zip(texts, self._control.ids(texts), strict=True))
        return [
            Encoded(ids[head] + ids[tails[0]], [ids[head] + ids[tail] + eos for tail in tails[1:]])
            for head, tails in parts
        ]

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """Ids of a prompt alone; of an answer to it use `encode`."""
        return self.encode(prompt, []).prompt

    def render(self, prompt: Prompt) -> str:
        """The prompt's text for `encode_rendered`: control tokens of its author are marked in it.

        Raises InputError.
        """
        template = self.template
        if template.chat_template is None:
            if not isinstance(prompt, str):
                raise InputError(
                    "This model was trained with plain prompts and takes no messages.",
                    "Send prompt instead of messages.",
                )
            return f"{template.prefix}{self._control.mark(prompt)}{template.suffix}"
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        marked = self._control.mark_all(list(messages))
        in_template = partial(render, self.tokenizer, chat_template=template.chat_template)
        try:
            require_shown(marked, in_template)
            return in_template(marked)
        except BadMessage:
            raise
        except Exception as error:
            raise InputError(f"The chat template cannot render the messages: {error}.") from error

    def render_prompt(self, prompt: Prompt) -> str:
        """`render` for people."""
        return self._control.unmark(self.render(prompt))

    def whole_text(self, text: str) -> EncodedResponse:
        """Ids of a text that holds prompt, response and all markers; EOS is added where it lacks.

        Line breaks after an EOS in the text stay out: templates end so, and the reward is read at
        the EOS.
        """
        if self.template.chat_template is None and not text.startswith(self.template.prefix):
            text = self.template.prefix + text
        head, tail = self._split_head(self._without_eos(text))
        ids = [i for part in self.ids_of([head, tail]) for i in part]
        eos = [self.tokenizer.eos_token_id] if self.template.append_eos else []
        return EncodedResponse(ids + eos, truncated=False)

    def ids_of(self, texts: list[str]) -> list[list[int]]:
        """Ids of texts as they are, each for itself; control tokens in them are tokens."""
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

    def _split_head(self, prompt: str) -> tuple[str, str]:
        """(what is tokenised for itself, the rest): all answers share the first part."""
        if self.template.chat_template is None:  # as the tokenizer itself puts its prefix there
            prefix = self.template.prefix
            return prefix, prompt[len(prefix) :]
        return self._control.split_head(prompt)

    def _without_eos(self, text: str) -> str:
        eos = self.tokenizer.eos_token
        if self.template.append_eos and (bare := text.rstrip("\n")).endswith(eos):
            return bare.removesuffix(eos)
        return text
