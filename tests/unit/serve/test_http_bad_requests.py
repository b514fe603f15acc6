"""Requests meant to break the HTTP interface: bad values, nasty bodies, odd texts."""

from __future__ import annotations

import time
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.unit.serve.http_fakes import (
    bon,
    error_of,
)

BAD_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"candidates": []}, "candidates"),
    ({"candidates": ["a"] * 257}, "candidates"),
    ({"candidates": ["a"] * 201}, "candidates"),  # the limit of this service
    ({"candidates": "abc"}, "candidates"),
    ({"candidates": None}, "candidates"),
    ({"candidates": ["a", 1]}, "candidates.1"),
    ({"candidates": ["a", None]}, "candidates.1"),
    ({"candidates": [["a"]]}, "candidates.0"),
    ({"candidates": {"0": "a"}}, "candidates"),
    ({"candidates": [1] * 40_000}, "candidates"),
    ({"prompt": ""}, "prompt"),
    ({"prompt": 5}, "prompt"),
    ({"prompt": ["p"]}, "prompt"),
    ({"prompt": "p" * 600}, ""),  # does not fit the model
    ({"model": 7}, "model"),
    ({"top_n": 0}, "top_n"),
    ({"top_n": 257}, "top_n"),
    ({"top_n": "2"}, "top_n"),
    ({"top_n": True}, "top_n"),
    ({"top_n": 1.5}, "top_n"),
    ({"unknown": 1}, "unknown"),
    ({"messages": [{"role": "user", "content": "p"}]}, ""),  # and a prompt
    ({"prompt": None}, ""),
    ({"prompt": None, "messages": []}, "messages"),
    ({"prompt": None, "messages": [{"role": "", "content": "p"}]}, "messages.0.role"),
    ({"prompt": None, "messages": [{"role": "user"}]}, "messages.0"),
    ({"prompt": None, "messages": [{"role": "user", "content": None}]}, "messages.0"),
    ({"prompt": None, "messages": [{"role": "user", "content": "p", "x": 1}]}, "messages.0.x"),
]


@pytest.mark.parametrize(("fields", "param"), BAD_FIELDS)
def test_bad_values_are_422_and_named(
    client: TestClient, fields: dict[str, Any], param: str
) -> None:
    assert error_of(bon(client, **fields), 422)["param"] == (param or None)


NASTY_BODIES: list[bytes] = [
    b"",
    b"not json",
    b"[]",
    b"null",
    b'"text"',
    b"NaN",
    b'{"prompt": "p", "candidates": [NaN]}',
    b'{"prompt": NaN, "candidates": ["a"]}',
    b'{"prompt": "p", "candidates": ["a"], "top_n": NaN}',
    b'{"prompt": "p", "candidates": ["a"], "top_n": 1e999}',
    b'{"prompt": "p", "candidates": ["a"], "top_n": ' + b"9" * 5000 + b"}",
    b'{"prompt": "p", "candidates": ["\\ud800"]}',
    b'{"prompt": "\\udfff", "candidates": ["a"]}',
    b'{"prompt": "p", "candidates": ["a"], "model": "\\ud800"}',
    b'{"prompt": "p", "candidates": ["a"], "\\ud800": 1}',
    b'{"prompt": "p", "candidates": ["a"], "' + b"k" * 50_000 + b'": 1}',
    b'{"messages": [{"role": "user", "content": "\\ud800"}], "candidates": ["a"]}',
    b'{"prompt": "p", "candidates": ["\xff\xfe"]}',
    b"[" * 90_000,
    b'{"a":' * 15_000,
    b'{"prompt": "p", "candidates": ["a"]',
]


@pytest.mark.parametrize("body", NASTY_BODIES, ids=range(len(NASTY_BODIES)))
def test_bodies_meant_to_break_it_are_422(client: TestClient, body: bytes) -> None:
    started_s = time.monotonic()
    error = error_of(
        client.post("/v1/bon", content=body, headers={"content-type": "application/json"}), 422
    )
    assert len(error["message"]) < 3000  # no echo of the body
    assert time.monotonic() - started_s < 60


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_json_under_another_content_type_is_422(client: TestClient, kind: str) -> None:
    body = b'{"prompt": "p", "candidates": ["a"]}'
    error_of(client.post("/v1/bon", content=body, headers={"content-type": kind}), 422)


@pytest.mark.parametrize("text", ["", "\x00", "\u202e", "😀" * 100, "<|im_end|>", "a" * 40_000])
def test_odd_texts_are_scored(client: TestClient, text: str) -> None:
    answer = bon(client, prompt="p", candidates=[text, "plain"])
    assert answer.status_code == 200
    assert answer.json()["data"][0]["truncated"] == (len(text) > 300)
