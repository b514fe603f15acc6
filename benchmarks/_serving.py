"""What the serving benchmarks share: the model, requests of exact lengths, the running service.

Texts are random words that are one token each, so that what is sent as text has the wanted number
of tokens. Every request begins with its own system message: no request finds another one's prompt
in a cache.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks._training import MODEL
from codepmp_ray.config.evaluation import ServingConfig
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.preference.tokenization import Encoder
from codepmp_ray.storage import LocalStore

SCRAPE_TOKEN = "the-benchmark-s-own-scrape-token"
_WORD_LENGTHS = range(4, 9)


@dataclass(frozen=True)
class Question:
    """One request: as the service takes it, and as ids for those who take these."""

    body: dict[str, Any]
    prompt_ids: list[int]
    response_ids: list[list[int]]

    @property
    def rows(self) -> list[list[int]]:
        return [self.prompt_ids + ids for ids in self.response_ids]


def run_workers_like_peers() -> None:
    """Call before Ray starts, where its workers are compared with processes outside of it.

    Ray runs them at nice 15: whatever wakes up on the machine stops an engine inside, and not the
    one outside.
    """
    os.environ.update({"RAY_worker_niceness": "0"})


def export_model(folder: Path) -> Path:
    """SmolLM2-135M with a scalar head drawn from a seed, exported as every reward model is."""
    import torch

    from codepmp_ray.modeling.export import export_model
    from codepmp_ray.modeling.loading import load_preference_model, load_tokenizer
    from codepmp_ray.modeling.objectives import make_objective
    from codepmp_ray.preference.tokenization import PromptTemplate

    tokenizer = load_tokenizer(MODEL)
    template = PromptTemplate.from_tokenizer(tokenizer, "chat", append_eos=True)
    model = load_preference_model(MODEL, make_objective("rm"), seed=0)
    export_model(model, tokenizer, template, LocalStore(folder / "model"), torch.float32)
    return folder / "model"


class QuestionMaker:
    """Questions with given numbers of tokens, drawn by `seed`."""

    def __init__(self, encoder: Encoder, seed: int) -> None:
        self._encoder, self._rng = encoder, random.Random(seed)
        pieces = sorted(encoder.tokenizer.get_vocab())
        words = [piece[1:] for piece in pieces if piece.startswith("Ġ")]
        plain = [
            f" {word}"
            for word in words
            if word.isascii() and word.islower() and word.isalpha() and len(word) in _WORD_LENGTHS
        ]
        ids = encoder.ids_of(plain)
        self._words = [word for word, found in zip(plain, ids, strict=True) if len(found) == 1]

    def make(self, num_prompt_tokens: int, response_lengths: list[int]) -> Question:
        """Lengths include the template's markers and the responses' EOS."""
        around = len(self._encoder.prompt_ids(_messages("", "")))
        num_words = num_prompt_tokens - around
        messages = _messages(self._text(num_words // 2), self._text(num_words - num_words // 2))
        candidates = [self._text(length - 1) for length in response_lengths]
        prompt_ids, responses = self._encoder.encode(messages, candidates).split()
        question = Question(
            {"messages": messages, "candidates": candidates},
            prompt_ids,
            [response.ids for response in responses],
        )
        assert len(question.prompt_ids) == num_prompt_tokens
        assert [len(ids) for ids in question.response_ids] == response_lengths
        return question

    def lengths(self, count: int, least: int, most: int) -> list[int]:
        return [self._rng.randint(least, most) for _ in range(count)]

    def _text(self, num_words: int) -> str:
        return "".join(self._rng.choices(self._words, k=num_words))


def _messages(system: str, user: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def serving_recipe(**settings: Any) -> Recipe:
    from codepmp_ray.serve.auth import digest_of

    given = {"port": 0, "metrics_token_sha256": [digest_of(SCRAPE_TOKEN)], **settings}
    return Recipe(serving=ServingConfig.model_validate(given))


def cpu_seconds(with_caller: bool = True) -> float:
    """Of this process, unless it only calls, and all its descendants, the cluster's among them."""
    total, own = 0.0, psutil.Process()
    for process in [*([own] if with_caller else []), *own.children(recursive=True)]:
        try:
            times = process.cpu_times()
            total += times.user + times.system
        except psutil.Error:
            continue
    return total


@contextmanager
def open_client(url: str, api_key: str) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {api_key}"}
    with httpx.Client(base_url=url, headers=headers, timeout=3600, trust_env=False) as client:
        yield client


def scraped(client: httpx.Client, name: str) -> float:
    """The figure `name` (with its labels, as in "codepmp_tokens_total{kind="prompt"}"), or 0."""
    headers = {"Authorization": f"Bearer {SCRAPE_TOKEN}"}
    text = client.get("/metrics", headers=headers).raise_for_status().text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return float(values.get(name, 0))
