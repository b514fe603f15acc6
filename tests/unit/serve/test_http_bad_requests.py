"""Requests meant to break the HTTP interface: bad values, nasty bodies, odd texts."""

from __future__ import annotations

import gzip
import json
import re
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
    ({"prompt": None, "messages": [{"role": "user", "content": 7}]}, "messages.0.content"),
    ({"prompt": None, "messages": [{"role": "user", "content": [7]}]}, "messages.0.content"),
    ({"prompt": None, "messages": [{"role": "assistant", "content": "a"}]}, ""),
    ({"truncate": "both"}, "truncate"),
    ({"requests": []}, "requests"),
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
def test_json_under_another_content_type_is_415(client: TestClient, kind: str) -> None:
    body = b'{"prompt": "p", "candidates": ["a"]}'
    error = error_of(client.post("/v1/bon", content=body, headers={"content-type": kind}), 415)
    assert "send Content-Type: application/json" in error["message"]


def test_a_compressed_body_is_415(client: TestClient) -> None:
    body = gzip.compress(b'{"prompt": "p", "candidates": ["a"]}')
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    error = error_of(client.post("/v1/bon", content=body, headers=headers), 415)
    assert "gzip is not supported" in error["message"]


INSIDES = re.compile(
    r"function-|\[_|constrained|Request\b|pydantic|BaseModel|list\[|found using|discriminator"
)


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/v1/bon", "/classify", "/pooling", "/v1/embeddings", "/score",
                                  "/rerank", "/predict", "/get_reward", "/v1/score/evaluation",
                                  "/tokenize"])  # fmt: skip
def test_messages_name_fields_of_the_caller_and_no_types_of_ours(
    client: TestClient, path: str
) -> None:
    names = ("prompt", "candidates", "input", "text", "input_ids", "text_1", "text_2", "query",
             "documents", "texts", "inputs", "response", "messages", "requests")  # fmt: skip
    values: list[Any] = [
        *(None, 5, True, "", "a", [], [5], [True], ["a", 5], [None], [["a", 5]], [[5, "a"]], {}),
        *({"role": 5}, [{"role": 5}], [{"text": 5}], [{}], [[[]]], "\ud800", ["\ud800"]),
        [{"role": "user", "content": {"a": 1}}],
    ]
    bodies: list[Any] = [[], 5, None, "text", {}]
    bodies += [{name: value} for name in names for value in values]
    bodies += [dict.fromkeys(names, value) for value in values]
    for body in bodies:
        content, headers = json.dumps(body), {"content-type": "application/json"}
        answer = client.post(path, content=content, headers=headers)
        if answer.status_code == 200:
            continue
        error = error_of(answer, 422)
        assert not INSIDES.search(error["message"] + str(error["param"])), (body, error)
        places = (error["param"] or "").split(".")
        assert all(part.isdigit() or part.isidentifier() for part in places if part), error


@pytest.mark.parametrize("text", ["", "\x00", "\u202e", "😀" * 100, "<|im_end|>", "a" * 40_000])
def test_odd_texts_are_scored(client: TestClient, text: str) -> None:
    answer = bon(client, prompt="p", candidates=[text, "plain"])
    assert answer.status_code == 200
    assert answer.json()["data"][0]["truncated"] == (len(text) > 300)
