"""A chat template without what changes from day to day or from call to call.

Dates and `chat_template_kwargs` become part of its text, so that training, scoring, the export and
every other program that renders it give the same text for ever.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from codepmp_ray.errors import ModelError

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
