"""One schema of messages for rows of data, batch scoring and HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest

from codepmp_ray.config.data import DataSourceConfig
from codepmp_ray.config.evaluation import BatchScoringConfig
from codepmp_ray.errors import InputError
from codepmp_ray.io.shards import Piece
from codepmp_ray.preference.messages import BadMessage, checked_messages
from codepmp_ray.preference.sources.rows import Unusable
from codepmp_ray.preference.sources.trl import build_row
from codepmp_ray.scoring.batch_rows import parse_row
from codepmp_ray.serve.schemas import BonRequest

CALL = [{"id": "7", "type": "function", "function": {"name": "f", "arguments": {"x": None}}}]
SHOWN = [{"id": "7", "type": "function", "function": {"name": "f", "arguments": {}}}]
USER = {"role": "user", "content": "And?"}
GOOD = [
    ({"role": "user", "content": "Hi"}, {"role": "user", "content": "Hi"}),
    ({"role": "ipython", "content": ""}, {"role": "ipython", "content": ""}),
    (
        {"role": "user", "content": [{"type": "text", "text": t} for t in ("a", "b")]},
        {"role": "user", "content": "a\nb"},
    ),
    ({"role": "user", "content": []}, {"role": "user", "content": ""}),
    (
        {"role": "user", "content": "Hi", "name": "Ann", "refusal": None, "tool_calls": None},
        {"role": "user", "content": "Hi", "name": "Ann"},
    ),
    (
        {"role": "assistant", "content": None, "tool_calls": CALL},
        {"role": "assistant", "content": "", "tool_calls": SHOWN},
    ),
    (
        {"role": "tool", "content": "2", "tool_call_id": "7"},
        {"role": "tool", "content": "2", "tool_call_id": "7"},
    ),
    (
        {"role": "assistant", "content": "2", "reasoning_content": "1 + 1"},
        {"role": "assistant", "content": "2", "reasoning_content": "1 + 1"},
    ),
]
BAD: list[tuple[Any, str, str]] = [
    ({"content": "Hi"}, "bad_conversation", "role"),
    ({"role": 7, "content": "Hi"}, "bad_conversation", "role"),
    ({"role": "", "content": "Hi"}, "bad_conversation", "role"),
    ({"role": "user"}, "bad_conversation", "content"),
    ({"role": "user", "content": None}, "bad_conversation", "content"),
    ({"role": "user", "content": 7}, "not_text", "content"),
    ({"role": "user", "content": "half \ud83d"}, "not_text", "surrogate"),
    ({"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, "field_not_shown",
     "image_url"),
    ({"role": "user", "content": ["Hi"]}, "field_not_shown", "content"),
    ({"role": "user", "content": [{"type": "text", "text": None}]}, "not_text", "text"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "expected"), GOOD)
def test_a_message_is_the_same_wherever_it_comes_from(
    given: dict[str, Any], expected: dict[str, Any]
) -> None:
    talk, wanted = [given, USER], [expected, USER]
    assert checked_messages(talk, "m") == wanted
    answers = {name: [{"role": "assistant", "content": name}] for name in ("chosen", "rejected")}
    (pair,) = build_row({"prompt": talk, **answers}, DataSourceConfig(path="x"))
    assert pair["messages"] == wanted
    asked = {"messages": talk, "candidates": ["a"]}
    piece = Piece("/data/x.jsonl", "x.jsonl", 1, 1, 0, 1)
    row = parse_row(asked, piece, 0, BatchScoringConfig(path="x"))
    assert row["is_messages"] and json.loads(row["prompt"]) == wanted
    assert BonRequest.model_validate(asked).prompt_or_messages() == wanted


@pytest.mark.parametrize(("given", "reason", "word"), BAD)
def test_what_is_no_message_is_refused_everywhere(given: Any, reason: str, word: str) -> None:
    talk = [given, USER]
    with pytest.raises(BadMessage, match=word) as found:
        checked_messages(talk, "m")
    assert str(found.value.reason) == reason
    answers = {name: [{"role": "assistant", "content": name}] for name in ("chosen", "rejected")}
    with pytest.raises(Unusable, match=word) as refused:
        build_row({"prompt": talk, **answers}, DataSourceConfig(path="x"))
    assert str(refused.value.reason) == reason
    with pytest.raises((ValueError, InputError)):
        BonRequest.model_validate({"messages": talk, "candidates": ["a"]}).prompt_or_messages()
