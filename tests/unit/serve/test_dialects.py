"""Other servers' routes give the scores of /v1/bon in the form that those servers' clients read."""

from __future__ import annotations

import ast
import base64
import importlib.util
import math
import struct
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import AliasChoices, BaseModel

from codepmp_ray.serve import dialect_schemas
from codepmp_ray.serve.app import create_app
from codepmp_ray.serve.dialect_answers import sigmoid
from codepmp_ray.serve.dialect_fields import IGNORED, UNSUPPORTED, all_names
from tests.unit.serve.http_fakes import (
    HEADERS,
    NAN_LENGTH,
    SETTINGS,
    FakeBackend,
    bon,
    error_of,
)

# The fake scorer's reward is the number of response tokens: one per character, and EOS.
EOS = "<|im_end|>"


def post(client: TestClient, path: str, **body: Any) -> Any:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def test_classify_as_vllm_and_verl(client: TestClient) -> None:
    answer = post(client, "/classify", model="tiny", input=["ab", f"abc{EOS}\n"])
    assert [row["probs"] for row in answer["data"]] == [[3.0], [4.0]]
    assert [(row["index"], row["label"], row["num_classes"]) for row in answer["data"]] == [
        (0, "LABEL_0", 1),
        (1, "LABEL_0", 1),
    ]
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] == 7
    assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 3}
    verl = post(client, "/classify", model="tiny", input="ab", use_activation=False)
    assert verl["data"][-1]["probs"][-1] == 3.0


@pytest.mark.parametrize("name", ["use_activation", "activation"])
def test_a_sigmoid_comes_on_request_only(client: TestClient, name: str) -> None:
    answer = post(client, "/classify", input="ab", **{name: True})
    assert answer["data"][0]["probs"] == [pytest.approx(1 / (1 + math.exp(-3)))]


# Every route that scores, with a body for the text "ab", and where the score is in the answer.
ASKED: dict[str, tuple[dict[str, Any], Any]] = {
    "/classify": ({"input": "ab"}, lambda found: found["data"][0]["probs"][0]),
    "/v1/classify": ({"text": "ab"}, lambda found: found["embedding"][0]),
    "/pooling": ({"input": "ab"}, lambda found: found["data"][0]["data"][0]),
    "/v1/embeddings": ({"input": "ab"}, lambda found: found["data"][0]["embedding"][0]),
    "/score": ({"text_1": "p", "text_2": "ab"}, lambda found: found["data"][0]["score"]),
    "/rerank": (
        {"query": "p", "documents": ["ab"]},
        lambda found: found["results"][0]["relevance_score"],
    ),
    "/v1/rerank": ({"query": "p", "texts": ["ab"]}, lambda found: found[0]["score"]),
    "/predict": ({"inputs": "ab"}, lambda found: found[0]["score"]),
    "/get_reward": ({"query": ["ab"]}, lambda found: found["rewards"][0]),
    "/v1/score/evaluation": ({"messages": ["ab"]}, lambda found: found["scores"][0]),
}


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize(
    ("scale", "is_raw"),
    [
        ({}, None),  # the default: TEI's routes give the sigmoid
        ({"use_activation": True}, False),
        ({"use_activation": False}, True),
        ({"activation": True}, False),
        ({"raw_scores": True}, True),
        ({"raw_scores": False}, False),
    ],
)
def test_every_route_gives_the_scale_that_was_asked_for(
    client: TestClient, path: str, scale: dict[str, bool], is_raw: bool | None
) -> None:
    body, score_in = ASKED[path]
    if is_raw is None:
        is_raw = "texts" not in body and "inputs" not in body
    found = score_in(post(client, path, **body, **scale))
    assert found == pytest.approx(3.0 if is_raw else sigmoid(3.0))
    both = {"use_activation": True, "raw_scores": True}
    error = error_of(client.post(path, json={**body, **both}), 422)
    assert "contradict" in error["message"]


@pytest.mark.parametrize(
    ("how", "expected"), [("none", 3.0), ("sigmoid", sigmoid(3.0)), ("softmax", None)]
)
def test_huggingface_hubs_parameters_are_honoured_or_refused(
    client: TestClient, how: str, expected: float | None
) -> None:
    body = {"inputs": "ab", "parameters": {"function_to_apply": how, "top_k": 1}}
    if expected is None:
        error = error_of(client.post("/predict", json=body), 422)
        assert error["param"] == "parameters.function_to_apply"
    else:
        assert post(client, "/predict", **body)[0]["score"] == pytest.approx(expected)


@pytest.mark.parametrize("path", ASKED)
def test_no_field_of_another_request_is_left_out_in_silence(client: TestClient, path: str) -> None:
    """A field that another kind of request has, or this one under another name, is refused unless
    it is null; those of this one are of other types.
    """
    body = ASKED[path][0]
    assert len(all_names()) > 40
    anything = {"prompts"} if path == "/get_reward" else set()  # OpenRLHF's, beside whole texts
    for name in sorted(all_names() - body.keys() - IGNORED - anything):
        assert client.post(path, json={**body, name: None}).status_code == 200, name
        answer = client.post(path, json={**body, name: ["x"]})
        error = error_of(answer, 422)
        # A name that tells another kind of request makes ours the one that is left over.
        named = {error["param"].split(".")[0], *error["message"].split()}
        assert named & {name, *body}, (name, error)


def test_classify_of_a_conversation_scores_its_last_message(client: TestClient) -> None:
    messages = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "abc"}]
    answer = post(client, "/classify", messages=messages)
    assert answer["data"][0]["probs"] == [4.0]
    expected = bon(client, candidates=["abc"]).json()["usage"]
    total = expected["prompt_tokens"] + expected["candidate_tokens"]
    assert answer["usage"]["prompt_tokens"] == total
    error = error_of(client.post("/classify", json={"messages": messages[:1]}), 422)
    assert "messages" in error["message"]


def test_classify_as_sglang(client: TestClient) -> None:
    assert post(client, "/classify", text="ab")["embedding"] == [3.0]
    many = post(client, "/classify", text=["ab", "abcd"])
    assert [item["embedding"] for item in many] == [[3.0], [5.0]]
    assert [item["meta_info"]["prompt_tokens"] for item in many] == [3, 5]


def test_pooling(client: TestClient) -> None:
    answer = post(client, "/pooling", model="tiny", input=["ab", "a"])
    assert [(row["object"], row["data"]) for row in answer["data"]] == [
        ("pooling", [3.0]),
        ("pooling", [2.0]),
    ]


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
@pytest.mark.parametrize(
    ("first", "second"),
    [("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2")],
)
def test_score_of_one_to_many(client: TestClient, path: str, first: str, second: str) -> None:
    answer = post(client, path, model="tiny", **{first: "p", second: ["a", "bbb", "a"]})
    assert [(row["index"], row["object"], row["score"]) for row in answer["data"]] == [
        (0, "score", 2.0),
        (1, "score", 4.0),
        (2, "score", 2.0),
    ]


def test_score_of_pairs_computes_each_prompt_once(client: TestClient, backend: FakeBackend) -> None:
    asked: list[tuple[Any, list[str]]] = []
    real = backend.best_of_n

    async def watched(request: Any) -> Any:
        asked.append((request.prompt, list(request.candidates)))
        return await real(request)

    backend.best_of_n = watched  # type: ignore[method-assign]
    try:
        answer = post(client, "/score", text_1=["p", "q", "p"], text_2=["a", "bb", "ccc"])
    finally:
        del backend.best_of_n
    assert [row["score"] for row in answer["data"]] == [2.0, 3.0, 4.0]
    assert asked == [("p", ["a", "ccc"]), ("q", ["bb"])]
    wrong = client.post("/score", json={"text_1": ["p", "q"], "text_2": ["a", "b", "c"]})
    assert "2 texts and text_2 3" in error_of(wrong, 422)["message"]


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_rerank_is_sorted_and_cut(client: TestClient, path: str) -> None:
    documents: list[Any] = ["a", {"text": "ccc"}, "bb"]
    asked = {"model": "tiny", "query": "p", "documents": documents}
    answer = post(client, path, **asked, top_n=2, return_documents=True)
    assert answer["results"] == [
        {"index": 1, "relevance_score": 4.0, "document": {"text": "ccc"}},
        {"index": 2, "relevance_score": 3.0, "document": {"text": "bb"}},
    ]
    for bare in ({}, {"return_documents": None}, {"return_documents": False}):
        found = post(client, path, **asked, **bare)["results"]
        assert [item["index"] for item in found] == [1, 2, 0]
        assert all("document" not in item for item in found)
    assert len(post(client, path, **asked, top_k=1)["results"]) == 1  # as Voyage calls it
    scores = [item["relevance_score"] for item in post(client, path, **asked)["results"]]
    shown = post(client, path, **asked, raw_scores=False)["results"]  # as infinity's clients send
    assert [item["relevance_score"] for item in shown] == pytest.approx(list(map(sigmoid, scores)))


def test_get_reward_as_openrlhf(client: TestClient) -> None:
    body = {"query": ["p ab", f"p abc{EOS}"], "prompts": ["p ", "p "], "labels": [None, None]}
    assert post(client, "/get_reward", **body) == {
        "rewards": [5.0, 6.0],
        "scores": [5.0, 6.0],
        "extra_logs": {},
    }


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/classify", {}),
        ("/classify", {"input": []}),
        ("/classify", {"input": "a", "messages": [{"role": "user", "content": "p"}] * 2}),
        ("/classify", {"input": [[1, 2], []]}),
        ("/classify", {"input": [[1, 2], [1, 300]]}),
        ("/classify", {"input": [1, -2]}),
        ("/classify", {"input": [1, "a"]}),
        ("/classify", {"input": "a", "truncate_prompt_tokens": 0}),
        ("/classify", {"input": "a", "truncate_prompt_tokens": -2}),
        ("/classify", {"input": "a", "use_activation": True, "activation": True}),
        ("/classify", {"text": "a", "input_ids": [1]}),
        ("/classify", {"input_ids": "a"}),
        ("/classify", {"text": []}),
        ("/classify", {"text": "\ud800"}),
        ("/score", {"text_1": "p"}),
        ("/score", {"text_1": "p", "text_2": ["a"], "max_tokens_per_query": 5}),
        ("/rerank", {"query": "", "documents": ["a"]}),
        ("/rerank", {"query": "p", "documents": []}),
        ("/rerank", {"query": "p", "documents": ["a"], "top_n": -1}),
        ("/get_reward", {"query": None}),
        ("/get_reward", {"query": ["a"] * 16_385}),
        ("/get_reward", {"response": "a"}),
        ("/predict", {"inputs": ["a", "b", "c"]}),
        ("/v1/score/evaluation", {"messages": [{"role": "user", "content": "a"}]}),
        ("/tokenize", {"prompt": "a", "messages": [{"role": "user", "content": "p"}]}),
        (
            "/tokenize",
            {"messages": [{"role": "user", "content": "p"}], "add_generation_prompt": False},
        ),
        ("/classify", {"input": "a" * 600}),
        ("/rerank", {"query": "p", "documents": ["a" * 600]}),
    ],
)
def test_what_cannot_be_scored_is_422(client: TestClient, path: str, body: Any) -> None:
    import json

    headers = {"content-type": "application/json"}
    error_of(client.post(path, content=json.dumps(body), headers=headers), 422)


@pytest.mark.parametrize("path", ASKED)
def test_another_model_is_404_and_no_key_401(client: TestClient, path: str) -> None:
    body = ASKED[path][0]
    assert error_of(client.post(path, json=body | {"model": "other"}), 404)["param"] == "model"
    error_of(client.post(path, json=body, headers={"Authorization": "Bearer no"}), 401)


def test_many_texts_are_a_limit_of_best_of_n_only(client: TestClient) -> None:
    """OpenRLHF sends a whole rollout; it is scored in parts."""
    texts = ["a" * (i % 40) for i in range(700)]
    answer = post(client, "/get_reward", query=texts)
    assert answer["rewards"] == [len(text) + 1.0 for text in texts]
    ranked = post(client, "/rerank", query="p", documents=texts)["results"]
    expected = sorted(range(700), key=lambda i: (-len(texts[i]), i))
    assert [item["index"] for item in ranked] == expected
    pairs = post(client, "/score", text_1=[f"p{i % 3}" for i in range(700)], text_2=texts)
    assert [row["score"] for row in pairs["data"]] == [len(text) + 1.0 for text in texts]
    wrong = client.post("/get_reward", json={"query": [*texts, "x" * 600]})
    error = error_of(wrong, 422)
    assert "Text 700 has 601 tokens" in error["message"] and error["param"] == "query"


def test_token_ids_are_scored_as_they_are(client: TestClient) -> None:
    ids = [[5, 6, 7], [5, 6]]
    assert probs(post(client, "/classify", input=ids)) == [3.0, 2.0]
    assert probs(post(client, "/classify", input=ids[0])) == [3.0]
    assert [row["data"] for row in post(client, "/pooling", input=ids)["data"]] == [[3.0], [2.0]]
    assert [row["embedding"] for row in post(client, "/classify", input_ids=ids)] == [[3.0], [2.0]]
    assert post(client, "/classify", input_ids=ids[0])["embedding"] == [3.0]
    for texts in ("ab", ["ab", "abc"]):
        listed = [texts] if isinstance(texts, str) else texts
        made = [post(client, "/tokenize", prompt=text)["tokens"] for text in listed]
        by_ids = post(client, "/classify", input=made)
        assert probs(by_ids) == probs(post(client, "/classify", input=texts))


def probs(answer: Any) -> list[float]:
    return [row["probs"][0] for row in answer["data"]]


def test_tokenize_as_vllm(client: TestClient, backend: FakeBackend) -> None:
    answer = post(client, "/tokenize", model="tiny", prompt="ab", add_special_tokens=False)
    ids = backend.encoder.whole_text("ab").ids
    assert answer == {"count": len(ids), "max_model_len": None, "tokens": ids}
    talk = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "abc"}]
    whole = backend.encoder.encode(talk[:1], ["abc"]).sequences[0]
    assert post(client, "/tokenize", messages=talk)["tokens"] == whole


def test_embeddings_as_sglang_and_openai(client: TestClient) -> None:
    answer = post(client, "/v1/embeddings", model="tiny", input="ab")
    assert answer["object"] == "list" and answer["data"] == [
        {"index": 0, "object": "embedding", "embedding": [3.0]}
    ]
    packed = post(client, "/v1/embeddings", input=["ab", "a"], encoding_format="base64")["data"]
    found = [struct.unpack("<f", base64.b64decode(row["embedding"]))[0] for row in packed]
    assert found == [3.0, 2.0]
    pooled = post(client, "/pooling", input="ab", encoding_format="base64")["data"][0]["data"]
    assert pooled == packed[0]["embedding"]


def test_teis_routes(client: TestClient) -> None:
    asked = {"query": "p", "texts": ["a", "ccc"], "truncation_direction": "Right"}
    assert post(client, "/rerank", **asked, raw_scores=True, truncate=False) == [
        {"index": 1, "score": 4.0},
        {"index": 0, "score": 2.0},
    ]
    shown = post(client, "/rerank", **asked, return_text=True)
    assert shown == [
        {"index": 1, "score": pytest.approx(sigmoid(4.0)), "text": "ccc"},
        {"index": 0, "score": pytest.approx(sigmoid(2.0)), "text": "a"},
    ]
    label = {"label": "LABEL_0"}
    assert post(client, "/predict", inputs="ab", raw_scores=True) == [{"score": 3.0, **label}]
    assert post(client, "/predict", inputs=["p", "ab"], raw_scores=True) == [
        {"score": 3.0, **label}
    ]
    batch = [["ab"], ["p", "abcd"]]
    assert post(client, "/predict", inputs=batch) == [
        [{"score": pytest.approx(sigmoid(score)), **label}] for score in (3.0, 5.0)
    ]
    info = client.get("/info").json()
    assert info["model_id"] == "tiny" and "reranker" in info["model_type"]


def test_slime_gets_a_number(client: TestClient) -> None:
    body = {"prompt": "p ", "response": "ab", "label": "42"}
    assert post(client, "/get_reward", **body) == 5.0
    talk = [{"role": "user", "content": "p"}]
    assert post(client, "/get_reward", **{**body, "prompt": talk}) == 3.0


def test_llama_factorys_reward_models(client: TestClient) -> None:
    answer = post(client, "/v1/score/evaluation", model="tiny", messages=["ab", "abc" * 9])
    assert answer["scores"] == [3.0, 28.0] and answer["object"] == "score.evaluation"
    cut = post(client, "/v1/score/evaluation", messages=["ab", "abc" * 9], max_length=10)
    assert cut["scores"] == [3.0, 10.0]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/classify", {"input": ["ab", "x" * 600]}),
        ("/classify", {"text": ["ab", "x" * 600]}),
        ("/pooling", {"input": ["ab", "x" * 600]}),
        ("/v1/embeddings", {"input": ["ab", "x" * 600]}),
        ("/score", {"text_1": "p", "text_2": ["ab", "x" * 600]}),
        ("/rerank", {"query": "p", "documents": ["ab", "x" * 600]}),
        ("/rerank", {"query": "p", "texts": ["ab", "x" * 600]}),
        ("/predict", {"inputs": [["ab"], ["x" * 600]]}),
        ("/get_reward", {"query": ["ab", "x" * 600]}),
        ("/v1/score/evaluation", {"messages": ["ab", "x" * 600]}),
    ],
)
def test_texts_are_cut_on_request_or_by_setting_and_it_says_so(
    client: TestClient, backend: FakeBackend, path: str, body: dict[str, Any]
) -> None:
    assert "Text 1 has" in error_of(client.post(path, json=body), 422)["message"]
    for fields in (
        {"truncate_prompt_tokens": -1},
        {"truncate_prompt_tokens": 100, "truncation_side": "left"},
        {"truncate": True, "truncation_direction": "Left"},
    ):
        answer = client.post(path, json=body | fields)
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-codepmp-truncated"] == "1"
    assert "x-codepmp-truncated" not in client.post(path, json=shorter(body)).headers
    for side in ("right", "left"):
        settings = SETTINGS.model_copy(update={"truncate": side})
        cutting = TestClient(create_app(settings, backend), headers=HEADERS)
        assert cutting.post(path, json=body).headers["x-codepmp-truncated"] == "1"
        error_of(cutting.post(path, json=body | {"truncate": False}), 422)


def shorter(body: Any) -> Any:
    if isinstance(body, dict):
        return {name: shorter(value) for name, value in body.items()}
    return [shorter(item) for item in body] if isinstance(body, list) else body[:50]


def test_documents_are_cut_to_what_cohere_calls_max_tokens_per_doc(client: TestClient) -> None:
    body = {"query": "p", "documents": ["a" * 40, "ab"], "max_tokens_per_doc": 10}
    answer = client.post("/v2/rerank", json=body)
    scores = {row["index"]: row["relevance_score"] for row in answer.json()["results"]}
    assert scores == {0: 10.0, 1: 3.0} and answer.headers["x-codepmp-truncated"] == "1"
    whole = post(client, "/rerank", **body | {"max_tokens_per_doc": 4096})
    assert whole["results"][0]["relevance_score"] == 41.0


def test_no_finite_reward_is_a_null_for_its_text(client: TestClient) -> None:
    texts = ["ab", "x" * (NAN_LENGTH - 1), "a"]
    assert probs(post(client, "/classify", input=texts)) == [3.0, None, 2.0]
    assert post(client, "/get_reward", query=texts)["rewards"] == [3.0, None, 2.0]
    scored = post(client, "/score", text_1=["p", "q", "r"], text_2=texts)["data"]
    assert [row["score"] for row in scored] == [3.0, None, 2.0]
    ranked = post(client, "/rerank", query="p", documents=texts)["results"]
    assert [row["index"] for row in ranked] == [0, 2, 1]
    error_of(client.post("/classify", json={"input": texts[1]}), 500)


PROTOCOLS = ("base", "classify", "pooling", "scoring", "embed")


def fields_of_vllm() -> set[str]:
    """Of all its request models for pooling, read from their source: importing them takes long."""
    (folder,) = importlib.util.find_spec("vllm").submodule_search_locations  # type: ignore
    root = Path(folder) / "entrypoints"
    files = [root / "pooling" / name / "protocol.py" for name in PROTOCOLS]
    found: set[str] = set()
    for file in [*files, root / "serve" / "tokenize" / "protocol.py"]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and node.name.endswith(("Request", "Mixin")):
                found |= {
                    item.target.id
                    for item in node.body
                    if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
                }
    return found


# Of Cohere's and OpenAI's embeddings, of a plugin's, and what only shapes vLLM's answer.
NOT_OURS = {"data", "embedding_types", "images", "input_type", "inputs", "max_tokens",
            "output_dimension", "return_token_strs", "texts", "tokens", "truncate"}  # fmt: skip


def test_every_field_of_vllms_requests_is_honoured_refused_or_known_to_say_nothing() -> None:
    ours: set[str] = set()
    for model in vars(dialect_schemas).values():
        if isinstance(model, type) and issubclass(model, BaseModel):
            for name, info in model.model_fields.items():
                alias = info.validation_alias
                ours |= {name, *(alias.choices if isinstance(alias, AliasChoices) else ())}
    theirs = fields_of_vllm()
    assert {"instruction", "chat_template", "truncate_prompt_tokens", "input"} <= theirs
    assert theirs - ours - UNSUPPORTED.keys() - IGNORED - NOT_OURS == set()


@pytest.mark.parametrize("name", sorted(UNSUPPORTED))
def test_a_field_that_would_change_scores_is_refused_by_name(client: TestClient, name: str) -> None:
    bodies = [
        ("/classify", {"input": "ab"}),
        ("/classify", {"text": "ab"}),
        ("/score", {"text_1": "p", "text_2": "a"}),
        ("/rerank", {"query": "p", "documents": ["a"]}),
        ("/rerank", {"query": "p", "texts": ["a"]}),
        ("/get_reward", {"query": ["a"]}),
        ("/tokenize", {"prompt": "a"}),
    ]
    known = {"add_generation_prompt": "/tokenize", "max_tokens_per_doc": "/score /rerank"}
    for path, body in bodies:
        if path in known.get(name, ""):
            continue
        for value in ("something", True, 7, ["x"], {"x": 1}):
            error = error_of(client.post(path, json=body | {name: value}), 422)
            assert error["param"] == name and name in error["message"]
            assert error["code"] == "unsupported_field"
        for value in (None, *UNSUPPORTED[name]):
            post(client, path, **body, **{name: value})
