"""The real client packages of other servers against the service, each with its version.

A client fails that raises or that returns something else than the rewards of the fake scorer.
Packages that are not installed here are listed, and count as failing only with `--all`. Trainers,
which cannot be installed beside this project, are the requests that their clients send and what
they read of the answers, in our words.

    python -m benchmarks.serve_clients [--all]

Needs, as far as they are to be tried: cohere litellm openai huggingface_hub langchain-cohere
langchain-community llama-index-postprocessor-cohere-rerank llama-index-postprocessor-jinaai-rerank
llama-index-postprocessor-tei-rerank infinity_client
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from importlib import metadata
from typing import Any

import httpx

from benchmarks._fake_scoring import expected_reward
from benchmarks._fake_service import KEY, fake_service
from benchmarks._results import one_result, options, write_results

MODEL = "fake"
QUERY = "Add one to x."
DOCUMENTS = ["x + 1", "x - 1", "print('hello')"]
# What a document's reward is made of: the fake's candidate, without its prompt.
REWARDS = [expected_reward(text) for text in DOCUMENTS]
Case = Callable[[str], Iterable[float]]
CASES: dict[str, tuple[str, Case, list[float]]] = {}


def sigmoids(values: list[float]) -> list[float]:
    return [1 / (1 + math.exp(-value)) for value in values]


def case(package: str, name: str, expected: list[float] | None = None) -> Callable[[Case], Case]:
    def add(function: Case) -> Case:
        CASES[f"{package}: {name}"] = (package, function, expected or REWARDS)
        return function

    return add


def by_index(rows: Iterable[Any], score: str = "relevance_score") -> list[float]:
    """Scores in the order of the documents, of objects or dictionaries."""
    found = {}
    for row in rows:
        get = row.get if isinstance(row, dict) else lambda key, row=row: getattr(row, key)
        found[get("index")] = get(score)
    return [found[index] for index in sorted(found)]


@case("cohere", "ClientV2.rerank")
def _(url: str) -> list[float]:
    import cohere

    client = cohere.ClientV2(api_key=KEY, base_url=url)
    asked: dict[str, Any] = {"model": MODEL, "query": QUERY, "documents": DOCUMENTS}
    return by_index(client.rerank(**asked, max_tokens_per_doc=4096).results)


@case("cohere", "Client.rerank")
def _(url: str) -> list[float]:
    import cohere

    documents = [{"text": text, "id": str(number)} for number, text in enumerate(DOCUMENTS)]
    client = cohere.Client(api_key=KEY, base_url=f"{url}/")
    asked: dict[str, Any] = {"model": MODEL, "query": QUERY, "rank_fields": ["text"]}
    found = client.rerank(**asked, documents=documents, return_documents=True).results
    assert found[0].document is not None
    return by_index(found)


def _litellm(provider: str, **more: Any) -> Case:
    def ask(url: str) -> list[float]:
        import litellm

        asked: dict[str, Any] = {"query": QUERY, "documents": DOCUMENTS, "api_key": KEY, **more}
        found = litellm.rerank(model=f"{provider}/{MODEL}", api_base=url, **asked)
        return by_index(found.results or [])

    return ask


for _provider in ("cohere", "jina_ai", "hosted_vllm"):
    case("litellm", _provider)(_litellm(_provider))
# With documents it wants them as bare strings, where all other clients of the route want objects.
case("litellm", "infinity, scores alone")(_litellm("infinity", return_documents=False))
case("litellm", "hosted_vllm, cut")(_litellm("hosted_vllm", truncate_prompt_tokens=512))
case("litellm", "huggingface (TEI)", sigmoids(REWARDS))(_litellm("huggingface"))


@case("openai", "models, embeddings", [expected_reward("hi")])
def _(url: str) -> list[float]:
    import openai

    client = openai.OpenAI(api_key=KEY, base_url=f"{url}/v1")
    assert client.models.list().data[0].id == client.models.retrieve(MODEL).id == MODEL
    return client.embeddings.create(model=MODEL, input="hi").data[0].embedding


@case("huggingface_hub", "text_classification", sigmoids([expected_reward("hi")]))
def _(url: str) -> list[float]:
    from huggingface_hub import InferenceClient

    found: Any = InferenceClient(base_url=f"{url}/predict", token=KEY).text_classification("hi")
    return [(found[0] if isinstance(found, list) else found)["score"]]


@case("langchain-cohere", "CohereRerank")
def _(url: str) -> list[float]:
    from langchain_cohere import CohereRerank

    reranker: Any = CohereRerank(model=MODEL, cohere_api_key=KEY, base_url=url, top_n=3)
    return by_index(reranker.rerank(DOCUMENTS, QUERY))


@case("langchain-community", "JinaRerank")
def _(url: str) -> list[float]:
    from langchain_community.document_compressors import jina_rerank

    jina_rerank.JINA_API_URL = f"{url}/v1/rerank"
    reranker: Any = jina_rerank.JinaRerank(model=MODEL, jina_api_key=KEY, top_n=3)
    return by_index(reranker.rerank(DOCUMENTS, QUERY))


@case("infinity_client", "InfinityRerank", sigmoids(REWARDS))
def _(url: str) -> list[float]:
    from infinity_client import Client
    from langchain_community.document_compressors.infinity_rerank import InfinityRerank

    client = Client(base_url=url, headers={"Authorization": f"Bearer {KEY}"})
    reranker: Any = InfinityRerank(client=client, model=MODEL)
    return by_index(reranker.rerank(DOCUMENTS, QUERY, model=MODEL))


def _llama_index(url: str, module: str, kind: str, **options: Any) -> list[float]:
    import importlib

    from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

    found = importlib.import_module(f"llama_index.postprocessor.{module}")
    reranker = getattr(found, kind)(top_n=3, **options)
    nodes = [NodeWithScore(node=TextNode(text=text), score=0.0) for text in DOCUMENTS]
    scores = {
        node.node.get_content(): node.score
        for node in reranker.postprocess_nodes(nodes, QueryBundle(QUERY))
    }
    return [scores[text] for text in DOCUMENTS]


@case("llama-index-postprocessor-cohere-rerank", "CohereRerank")
def _(url: str) -> list[float]:
    options = {"api_key": KEY, "model": MODEL, "base_url": url}
    return _llama_index(url, "cohere_rerank", "CohereRerank", **options)


@case("llama-index-postprocessor-jinaai-rerank", "JinaRerank")
def _(url: str) -> list[float]:
    options = {"api_key": KEY, "model": MODEL, "base_url": f"{url}/v1"}
    return _llama_index(url, "jinaai_rerank", "JinaRerank", **options)


@case("llama-index-postprocessor-tei-rerank", "TextEmbeddingInference", sigmoids(REWARDS))
def _(url: str) -> list[float]:
    options = {"base_url": url, "auth_token": f"Bearer {KEY}"}
    return _llama_index(url, "tei_rerank", "TextEmbeddingInference", **options)


def _post(url: str, path: str, body: dict[str, Any]) -> Any:
    address = url.replace("://", f"://any:{KEY}@")
    return httpx.post(f"{address}{path}", json=body, timeout=30).raise_for_status().json()


@case("OpenRLHF", "remote_rm_fn")
def _(url: str) -> list[float]:
    body = {"query": DOCUMENTS, "prompts": [QUERY] * 3, "labels": [None] * 3}
    return _post(url, "/get_reward", body)["rewards"]


@case("verl", "vllm")
def _(url: str) -> list[float]:
    bodies = [{"model": MODEL, "input": text, "use_activation": False} for text in DOCUMENTS]
    return [_post(url, "/classify", body)["data"][-1]["probs"][-1] for body in bodies]


@case("verl", "sglang")
def _(url: str) -> list[float]:
    bodies = [{"model": MODEL, "input": text} for text in DOCUMENTS]
    return [_post(url, "/v1/embeddings", body)["data"][-1]["embedding"][-1] for body in bodies]


@case("SGLang", "classify")
def _(url: str) -> list[float]:
    found = _post(url, "/classify", {"model": MODEL, "text": DOCUMENTS})
    return [item["embedding"][0] for item in found]


@case("slime", "remote_rm", [expected_reward(QUERY + text) for text in DOCUMENTS])
def _(url: str) -> list[float]:
    bodies = [{"prompt": QUERY, "response": text, "label": "x"} for text in DOCUMENTS]
    return [_post(url, "/get_reward", body) for body in bodies]


@case("LLaMA-Factory", "score evaluation")
def _(url: str) -> list[float]:
    body = {"model": MODEL, "messages": DOCUMENTS}
    return _post(url, "/v1/score/evaluation", body)["scores"]


TRAINERS = {"OpenRLHF", "verl", "SGLang", "slime", "LLaMA-Factory"}


def version_of(package: str) -> str | None:
    """Of an installed package; trainers are here in our words."""
    if package in TRAINERS:
        return "its requests"
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def run_case(url: str, function: Case, expected: list[float]) -> str:
    """ "" if it returns what it should, else what went wrong."""
    try:
        found = list(function(url))
    except Exception as error:  # noqa: BLE001 - whatever a client raises
        return f"{type(error).__name__}: {str(error)[:300]}"
    is_right = len(found) == len(expected) and all(
        abs(a - b) < 1e-6 for a, b in zip(found, expected, strict=True)
    )
    return "" if is_right else f"{found} instead of {expected}"


def main() -> None:
    arguments = options(__doc__, all=(False, "a package that is missing fails")).parse_args()
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    failures, versions, missing = {}, {}, []
    with fake_service() as service:
        for name, (package, function, expected) in CASES.items():
            version = version_of(package)
            if version is None:
                missing.append(package)
                continue
            versions[package] = version
            if wrong := run_case(service.url, function, expected):
                failures[name] = wrong
            print(f"{name} ({version}): {wrong or 'ok'}", flush=True)
    missing = sorted(set(missing))
    print("not installed:", ", ".join(missing) or "none")
    num_failing = len(failures) + (len(missing) if arguments.all else 0)
    result = one_result(
        "clients_failing",
        num_failing,
        f"of {len(CASES)} cases",
        0,
        versions=versions,
        failures=failures,
        not_installed=missing,
    )
    write_results("serve_clients", [result])


if __name__ == "__main__":
    main()
