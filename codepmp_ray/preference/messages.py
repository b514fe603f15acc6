"""Messages of a conversation: one schema for rows of data, batch scoring and HTTP requests."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from codepmp_ray.errors import InputError
from codepmp_ray.reject_reasons import RejectReason

# {"role": ..., "content": text} and, where the caller gave them, fields of SHOWN_FIELDS.
Message = dict[str, Any]

# Fields of a message, beside role and content, that chat templates may show to the model. Others
# say something about the message (an id, a time), and it is used without them.
SHOWN_FIELDS = {"tool_calls", "tools", "function_call", "name", "refusal"}
SHOWN_FIELDS |= {"reasoning_content", "reasoning", "thinking"}
MEDIA_FIELDS = {"images", "image", "audio", "video", "videos", "documents"}
# They say which call a result belongs to, and the order of the messages says it too.
_NAMES_OF_CALLS = {"tool_call_id"}
_MAX_DEPTH = 64  # of arguments of calls: renderers are recursive


class BadMessage(InputError):
    """A message that no chat template can be given."""

    def __init__(self, reason: RejectReason, problem: str) -> None:
        super().__init__(problem)
        self.reason = reason


def checked_messages(value: Sequence[Any], name: str) -> list[Message]:
    """Messages in the one form that everything else knows. Nulls hold nothing and are left out.

    `content` becomes text: parts of text are joined by line breaks, as vLLM does it for templates
    that take text. It may be null beside `tool_calls`. Fields that templates may show stay; whether
    the model's own template shows them is seen when it renders them (`require_shown`).

    Raises BadMessage.
    """
    return [_checked(message, f"{name}[{index}]") for index, message in enumerate(value)]


def _checked(message: Any, name: str) -> Message:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise BadMessage(RejectReason.BAD_CONVERSATION, f"{name} has no role")
    found: Message = {"role": text_of(message["role"], f"{name}.role")}
    if not found["role"]:
        raise BadMessage(RejectReason.BAD_CONVERSATION, f"{name}.role is empty")
    for field in sorted(MEDIA_FIELDS & message.keys()):
        if message[field]:
            raise BadMessage(RejectReason.FIELD_NOT_SHOWN, f"{name} has {field}, which is no text")
    for field in sorted((SHOWN_FIELDS | _NAMES_OF_CALLS) & message.keys()):
        if message[field]:
            found[field] = _without_nulls(message[field], f"{name}.{field}")
    content = message.get("content")
    if content is None and not found.get("tool_calls"):
        raise BadMessage(RejectReason.BAD_CONVERSATION, f"{name} has no content")
    found["content"] = "" if content is None else _joined(content, f"{name}.content")
    return found


def text_of(value: Any, name: str) -> str:
    """`value` if it is text that UTF-8 can hold."""
    if not isinstance(value, str):
        raise BadMessage(RejectReason.NOT_TEXT, f"{name} is {type(value).__name__}, not text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadMessage(
            RejectReason.NOT_TEXT, f"{name} has half of a surrogate pair at {error.start}"
        ) from error
    return value


def _joined(content: Any, name: str) -> str:
    if not isinstance(content, list):
        return text_of(content, name)
    texts = []
    for index, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        if kind not in ("text", "input_text", "output_text"):
            raise BadMessage(
                RejectReason.FIELD_NOT_SHOWN, f"{name}[{index}] is of type {kind!r}, not text"
            )
        texts.append(text_of(part.get("text"), f"{name}[{index}].text"))
    return "\n".join(texts)


def _without_nulls(value: Any, name: str, depth: int = 0) -> Any:
    """Arrow fills up structs with nulls for whatever other rows have."""
    if depth > _MAX_DEPTH:
        raise BadMessage(
            RejectReason.BAD_CONVERSATION, f"{name} is nested more than {_MAX_DEPTH} deep"
        )
    if isinstance(value, dict):
        return {
            text_of(key, name): _without_nulls(item, name, depth + 1)
            for key, item in value.items()
            if item is not None
        }
    if isinstance(value, list):
        return [_without_nulls(item, name, depth + 1) for item in value]
    return text_of(value, name) if isinstance(value, str) else value


def require_shown(messages: Sequence[Message], render: Callable[[list[Message]], str]) -> None:
    """Raise BadMessage for a field without which `render` gives the same text: it would vanish.

    The name of a tool's message is that of the call that it answers. What `render` raises passes.
    """
    whole: str | None = None
    for index, message in enumerate(messages):
        fields = message.keys() & SHOWN_FIELDS
        if message["role"] in ("tool", "function"):
            fields -= {"name"}
        for field in sorted(fields):
            less = {name: value for name, value in message.items() if name != field}
            whole = render([*messages]) if whole is None else whole
            try:
                is_shown = render([*messages[:index], less, *messages[index + 1 :]]) != whole
            except Exception:  # noqa: BLE001 - a template that cannot do without it
                is_shown = True
            if not is_shown:
                raise BadMessage(
                    RejectReason.FIELD_NOT_SHOWN,
                    f"messages[{index}].{field} would not be shown: the model's chat template "
                    "renders the same text without it",
                )


def num_chars(messages: Sequence[Message]) -> int:
    """Of everything that a template may show, beside the roles."""
    return sum(
        len(value if isinstance(value, str) else json.dumps(value))
        for message in messages
        for name, value in message.items()
        if name != "role"
    )
