"""Bodies that could be read in two ways are refused on every route: nothing else is scored."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from codepmp_ray.serve.dialect_fields import all_names
from tests.unit.serve.http_fakes import error_of
from tests.unit.serve.test_dialects import ASKED

JSON = "application/json"
BODIES: dict[str, dict[str, Any]] = {path: body for path, (body, _) in ASKED.items()} | {
    "/v1/bon": {"prompt": "p", "candidates": ["a"]},
    "/tokenize": {"prompt": "a"},
}


def send(client: TestClient, path: str, body: str | bytes, content_type: str = JSON) -> Any:
    return client.post(path, content=body, headers={"content-type": content_type})


@pytest.mark.parametrize("path", BODIES)
def test_a_field_that_is_there_twice_is_refused_by_name(client: TestClient, path: str) -> None:
    body = BODIES[path]
    for name in body:
        text = json.dumps(body)
        assert send(client, path, text).status_code == 200
        for value in (body[name], None, "other"):
            twice = f"{text[:-1]}, {json.dumps(name)}: {json.dumps(value)}}}"
            error = error_of(send(client, path, twice), 422)
            assert error["message"] == f"{name} is there twice: send each field once."


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/bon", '{"messages": [{"role": "user", "role": "x"}], "candidates": ["a"]}'),
        ("/v1/bon", '{"requests": [{"prompt": "p", "prompt": "q", "candidates": ["a"]}]}'),
        ("/rerank", '{"query": "p", "documents": [{"text": "a", "text": "b"}]}'),
        ("/predict", '{"inputs": "a", "parameters": {"top_k": 1, "top_k": 2}}'),
        ("/get_reward", '{"query": "a", "unknown": {"x": 1, "x": 2}}'),
    ],
)  # fmt: skip
def test_nor_twice_in_a_part_of_the_body(client: TestClient, path: str, body: str) -> None:
    assert "is there twice" in error_of(send(client, path, body), 422)["message"]


@pytest.mark.parametrize("path", BODIES)
def test_a_field_in_the_query_string_is_refused_by_name(client: TestClient, path: str) -> None:
    for name in sorted(all_names()):
        answer = client.post(f"{path}?{name}=1", json=BODIES[path])
        assert error_of(answer, 422)["param"] == name
    # What gateways add (Azure's api-version) is none of ours.
    assert client.post(f"{path}?api-version=2024", json=BODIES[path]).status_code == 200


@pytest.mark.parametrize(
    ("charset", "codec", "status"),
    [
        ("", "utf-8", 200),
        ("; charset=utf-8", "utf-8", 200),
        ('; charset="UTF8"', "utf-8", 200),
        ("", "utf-8-sig", 200),
        ("; charset=utf-16", "utf-16", 200),
        ("; charset=iso-8859-1", "latin-1", 415),
        ("; charset=windows-1252", "cp1252", 415),
        ("; charset=shift_jis", "shift_jis", 415),
        ("; charset=x-nobody-knows", "utf-8", 415),
        ("", "latin-1", 422),
        ("; charset=utf-8", "latin-1", 422),
    ],
)
def test_text_of_another_charset_is_never_read_as_utf_8(
    client: TestClient, charset: str, codec: str, status: int
) -> None:
    # In Latin-1 the letters of the first two are, read as UTF-8, one other letter.
    text = {"cp1252": "Ã¤", "latin-1": "Ã¤ é", "shift_jis": "表"}.get(codec, "ä 表 é")
    body = '{"prompt": "p", "candidates": ["%s"]}'
    answer = send(client, "/v1/bon", (body % text).encode(codec), JSON + charset)
    assert answer.status_code == status, answer.text
    if status == 200:
        assert answer.json()["data"][0]["num_tokens"] == len(text.encode()) + 1
    else:
        error_of(answer, status)
    # ASCII is the same text, whatever it is called (Java's clients call it ISO-8859-1).
    assert send(client, "/v1/bon", (body % "a").encode("ascii"), JSON + charset).status_code == 200
