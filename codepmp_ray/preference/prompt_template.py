"""What is put around a prompt, frozen and saved beside the weights.

A template that changed with the date or the library would move every score.

Dates and `chat_template_kwargs` of a chat template become part of its text (`frozen`), so that
training, scoring, the export and every other program that renders it give the same text for ever.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from codepmp_ray.errors import ModelError
from codepmp_ray.preference.messages import Message

TEMPLATE_FILE = "codepmp_template.json"
_SENTINEL = "\u2063codepmp-prompt\u2063"


@dataclass(frozen=True)
class PromptTemplate:
    """What stands around a prompt.

    Attributes:
        prefix, suffix: text before and after a prompt; of `kind` "chat" what `chat_template` puts
            around one user message. The prefix of `kind` "plain" is what the tokenizer itself puts
            before a text (BOS, where it has one).
        append_eos: an answer ends with EOS.
        chat_template: Jinja, without date and arguments (`frozen_template`). None for "plain".
        chat_template_kwargs: what was written into `chat_template`.
        closing: text that follows an answer, of a model of others: its reward is read at its end.
    """

    kind: Literal["chat", "plain"]
    prefix: str
    suffix: str
    append_eos: bool
    chat_template: str | None
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    closing: str = ""

    @classmethod
    def of_model(cls, tokenizer: Any) -> PromptTemplate:
        """What a reward model of others was most likely trained with: its own chat template.

        The reward is read where the rendered conversation ends, as transformers does. Without a
        chat template a line break ends a prompt, and EOS (where there is one) an answer. Raises
        ModelError for a template that shows no answer.
        """
        if not tokenizer.chat_template:
            return cls.from_tokenizer(tokenizer, "plain", tokenizer.eos_token_id is not None)
        made = cls.from_tokenizer(tokenizer, "chat", append_eos=False)
        talk = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _SENTINEL}]
        whole = tokenizer.apply_chat_template(talk, tokenize=False)
        _, found, closing = whole.partition(_SENTINEL)
        if not found:
            raise ModelError(
                f"The chat template of {tokenizer.name_or_path} does not show an answer.",
                "Give the model a chat template that does, or a codepmp_template.json.",
            )
        return replace(made, closing=closing)

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
            return cls("plain", _beginning(tokenizer), "\n", append_eos, None)
        if not tokenizer.chat_template:
            raise ModelError(
                f"The tokenizer of {tokenizer.name_or_path} has no chat template.",
                "Set template=plain in the training section.",
            )
        chat_template = frozen(tokenizer.chat_template, chat_template_kwargs or {}, datetime.now())
        chat_template = _with_whole_header(tokenizer, chat_template)
        text = render(tokenizer, [{"role": "user", "content": _SENTINEL}], chat_template)
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
        fields = {name: value for name, value in asdict(self).items() if name != "closing" or value}
        return json.dumps(fields, indent=2, ensure_ascii=False)

    def save(self, folder: str | Path) -> None:
        (Path(folder) / TEMPLATE_FILE).write_text(self.to_json(), encoding="utf-8")


def render(tokenizer: Any, messages: Sequence[Message], chat_template: str) -> str:
    """The messages and the beginning of an answer to them."""
    return tokenizer.apply_chat_template(
        list(messages), chat_template=chat_template, add_generation_prompt=True, tokenize=False
    )


def _with_whole_header(tokenizer: Any, chat_template: str) -> str:
    """`chat_template` whose generation prompt is all that it puts before an answer.

    gpt-oss's ends within the header, because the model itself goes on with a channel, and Mistral's
    ends before a space. An empty thought is left out: the answer may bring its own.
    """
    talk = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _SENTINEL}]
    begun = render(tokenizer, talk[:1], chat_template)
    try:
        whole = tokenizer.apply_chat_template(talk, chat_template=chat_template, tokenize=False)
    except Exception:  # noqa: BLE001 - whatever a template raises: it shows no such conversation
        return chat_template
    before, found, _ = whole.partition(_SENTINEL)
    rest = before.removeprefix(begun)
    if not found or not before.startswith(begun) or not rest or "think" in rest:
        return chat_template
    return (
        f"{chat_template}{{% if add_generation_prompt %}}{{{{ {json.dumps(rest)} }}}}{{% endif %}}"
    )


def _beginning(tokenizer: Any) -> str:
    """What the tokenizer puts before every text: nothing, or control tokens such as BOS."""
    whole = tokenizer("x")["input_ids"]
    bare = tokenizer("x", add_special_tokens=False)["input_ids"]
    places = [n for n in range(len(whole)) if whole[n : n + len(bare)] == bare]
    ids = whole[: places[0]] if places else whole
    text = "".join(tokenizer.convert_ids_to_tokens(ids))
    if not places or (ids and tokenizer(text, add_special_tokens=False)["input_ids"] != ids):
        raise ModelError(
            f"The tokenizer of {tokenizer.name_or_path} makes {whole} of 'x', whose beginning "
            f"cannot be written as text ({text!r}).",
            "Set template=chat in the training section.",
        )
    return text


_DATE = re.compile(r"strftime_now\(\s*(?P<quote>['\"])(?P<format>.*?)(?P=quote)\s*\)")
_IS_KNOWN = re.compile(r"strftime_now\s+is\s+(?P<negated>not\s+)?defined")
_NAME = re.compile(r"[A-Za-z_]\w*")


def frozen(chat_template: str, kwargs: Mapping[str, Any], now: datetime) -> str:
    """`chat_template` with the date of `now` and the values of `kwargs` written into it.

    Raises ModelError when a date cannot be written in, and for a name that the template does not
    mention, which would have no effect.
    """
    text = _DATE.sub(lambda found: json.dumps(now.strftime(found["format"])), chat_template)
    text = _IS_KNOWN.sub(lambda found: "false" if found["negated"] else "true", text)
    if "strftime_now" in text:
        raise ModelError(
            "The chat template computes a date in a form that cannot be frozen "
            "(strftime_now without a format in quotes), and would give other rewards tomorrow.",
            "Write the date into the tokenizer's chat template, or set template=plain.",
        )
    for name in kwargs:
        if not (_NAME.fullmatch(name) and re.search(rf"\b{name}\b", chat_template)):
            raise ModelError(
                f"chat_template_kwargs.{name}: the model's chat template does not mention {name}.",
                "Remove it, or write the name as the template does.",
            )
    settings = [f"{{%- set {name} = {_literal(value)} -%}}" for name, value in kwargs.items()]
    return "".join(settings) + text


def require_no_open_thought(suffix: str) -> None:
    """Raise ModelError when an answer after `suffix` would be read as the model's thought."""
    if suffix.count("<think>") > suffix.count("</think>"):
        raise ModelError(
            f"The chat template ends a prompt with {suffix[-40:]!r}: answers would lie inside an "
            "open <think>.",
            "Set chat_template_kwargs={enable_thinking: false} if the template knows it, close the "
            "thought in the tokenizer's chat template, or set template=plain.",
        )


def _literal(value: Any) -> str:
    """Jinja's spelling of a value of JSON."""
    text = json.dumps(value, ensure_ascii=False)
    return "none" if value is None else text
