"""Rewards of models, trained here or at hand, computed once and kept in the run directory.

A service is asked over HTTP: any number of prompts, some of them at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from codepmp_ray.client import CandidateScore, RewardClient, ServedModel
from codepmp_ray.client.answers import Hints
from codepmp_ray.config.studies import ScoringConfig
from codepmp_ray.errors import EngineError, InputError
from codepmp_ray.evaluation.pools import Pool
from codepmp_ray.preference.tokenization import Encoder
from codepmp_ray.resampling import Floats
from codepmp_ray.scoring.protocol import Scorer
from codepmp_ray.storage import LocalStore
from codepmp_ray.studies.pair_rows import TestPairs

LoadScorer = Callable[[Path], Scorer]
RATES_FILE = "scoring_rates.jsonl"
Prompt = str | Sequence[dict[str, str]]
_NUM_PARALLEL = 8  # prompts that are with the service at once


@dataclass(frozen=True)
class Service:
    """A service that answered, and what it said of its model then.

    Attributes:
        setting: where the user set its address, for messages.
    """

    url: str
    api_key_env: str
    setting: str
    model: ServedModel

    @property
    def place(self) -> str:
        """Its address without user and password."""
        parts = urlsplit(self.url)
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{parts.hostname}{port}"

    def rewards(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> tuple[Floats, int]:
        """([texts] raw rewards, how many texts were cut to fit the model).

        Candidates of one prompt go in one request, where their prompt is computed once. Raises
        what RewardClient raises, and EngineError when the model was another one afterwards.
        """
        groups: dict[str, list[int]] = defaultdict(list)
        for index, prompt in enumerate(prompts):
            groups[json.dumps(prompt)].append(index)
        found: list[CandidateScore | None] = [None] * len(texts)
        with _client(self.url, self.api_key_env, self.setting) as client:
            self._require_same(client.served_model())

            def score(indices: list[int]) -> list[CandidateScore]:
                prompt = prompts[indices[0]]
                asked = prompt if isinstance(prompt, str) else list(prompt)
                return client.score(asked, [texts[index] for index in indices])

            with ThreadPoolExecutor(_NUM_PARALLEL) as pool:
                scored = pool.map(score, groups.values())
                for indices, scores in zip(groups.values(), scored, strict=True):
                    for index, item in zip(indices, scores, strict=True):
                        found[index] = item
            self._require_same(client.served_model())
        items = [item for item in found if item is not None]
        rewards = np.array([item.score for item in items], dtype=float)
        return rewards, sum(item.truncated for item in items)

    def _require_same(self, now: ServedModel) -> None:
        if now != self.model:
            raise EngineError(
                f"The service at {self.place} serves another model than when the study began "
                f"({_said(self.model)} then, {_said(now)} now).",
                "Start the study again: what was scored with each model is kept apart.",
            )


def ask(url: str, api_key_env: str, setting: str) -> Service:
    """The service at `url`.

    Raises InputError for a wrong address or key and for a service that does not say which weights
    it serves, EngineError when it cannot be reached.
    """
    with _client(url, api_key_env, setting) as client:
        service = Service(url, api_key_env, setting, client.served_model())
    if service.model.weights_digest is None:
        raise InputError(
            f"The service at {service.place} does not say which weights it serves: GET /v1/models "
            "has no weights_digest.",
            "Serve the model with this version (jobs.serve, serve deploy): scores are kept by it.",
        )
    return service


def _client(url: str, api_key_env: str, setting: str) -> RewardClient:
    key = os.environ.get(api_key_env, "")
    return RewardClient(url, key, Hints(setting, api_key_env))


def _said(model: ServedModel) -> str:
    return f"{model.name}, weights {(model.weights_digest or 'not said')[:12]}"


@dataclass(frozen=True)
class Trained:
    """A finished training: its key, its label, and the folder of its exported model.

    A reward model at hand is one, too; with `service` it has no folder, and is asked over HTTP.
    """

    key: str
    label: str
    folder: Path
    base: str
    service: Service | None = None


class ScoreBook:
    """Scores with one model at a time; what was scored before is read back.

    Args:
        load: makes a scorer of a model's folder; if it has a `shutdown`, that is called after it.
        scoring: how it scores; what was scored otherwise is not read back.
    """

    def __init__(self, store: LocalStore, load: LoadScorer, scoring: ScoringConfig) -> None:
        self._store, self._load = store, load
        settings = scoring.result_fields()
        # Empty for the defaults, with which older run directories were scored.
        self._way = "" if settings == ScoringConfig().result_fields() else json.dumps(settings)
        self._current: tuple[str, Scorer, Encoder] | None = None
        self.num_truncated = 0

    def pair_rewards(self, model: Trained, test: TestPairs) -> tuple[Floats, Floats]:
        """(chosen, rejected), each [pairs]."""
        prompts = [row["messages"] or row["prompt"] for row in test.rows]
        texts = [row[side] for side in ("chosen", "rejected") for row in test.rows]
        found = self.rewards(model, [*prompts, *prompts], texts)
        return found[: len(prompts)], found[len(prompts) :]

    def pool_rewards(self, model: Trained, pool: Pool) -> Floats:
        """[problems, candidates]."""
        prompts = [p for p, texts in zip(pool.prompts, pool.texts, strict=True) for _ in texts]
        flat = self.rewards(model, list(prompts), [t for texts in pool.texts for t in texts])
        return flat.reshape(pool.size)

    def rewards(self, model: Trained, prompts: Sequence[Prompt], texts: Sequence[str]) -> Floats:
        """One raw reward per (prompt, text). Raises EngineError unless all are finite."""
        text = json.dumps([list(prompts), list(texts)], ensure_ascii=False)
        digest = hashlib.sha256((text + self._way).encode()).hexdigest()[:16]
        name = f"scores/{model.key}-{digest}.npy"
        if self._store.exists(name):
            return np.load(io.BytesIO(self._store.read_bytes(name)), allow_pickle=False)
        score = self._compute if model.service is None else self._ask
        found = score(model, prompts, texts)
        if not np.isfinite(found).all():
            raise EngineError(
                f"{(~np.isfinite(found)).sum()} of {len(found)} rewards of {model.label} are not "
                "finite.",
                "Its training diverged: lower learning_rate.",
            )
        buffer = io.BytesIO()
        np.save(buffer, found, allow_pickle=False)
        self._store.put(name, buffer.getvalue())
        return found

    def _compute(self, model: Trained, prompts: Sequence[Prompt], texts: Sequence[str]) -> Floats:
        scorer, encoder = self._open(model)
        rows = self._ids(encoder, scorer.max_model_len, prompts, texts)
        start_s = time.perf_counter()
        scores = asyncio.run(scorer.score_ids([], rows))
        self._note_rate(model, sum(map(len, rows)), time.perf_counter() - start_s)
        return np.array([np.nan if r is None else r for r in scores.rewards], dtype=float)

    def _ask(self, model: Trained, prompts: Sequence[Prompt], texts: Sequence[str]) -> Floats:
        assert model.service is not None, "only a service is asked"
        start_s = time.perf_counter()
        found, num_cut = model.service.rewards(prompts, texts)
        self.num_truncated += num_cut
        # About as many tokens as an estimate counts: four characters each.
        num_chars = sum(len(str(prompt)) for prompt in prompts) + sum(map(len, texts))
        self._note_rate(model, num_chars // 4, time.perf_counter() - start_s)
        return found

    def encoder(self, model: Trained) -> Encoder:
        return self._open(model)[1]

    def close(self) -> None:
        if self._current is not None:
            getattr(self._current[1], "shutdown", lambda: None)()
            self._current = None

    def _open(self, model: Trained) -> tuple[Scorer, Encoder]:
        if self._current is None or self._current[0] != model.key:
            self.close()
            self._current = (model.key, self._load(model.folder), Encoder.load(model.folder))
        return self._current[1], self._current[2]

    def _ids(
        self, encoder: Encoder, limit: int, prompts: Sequence[Prompt], texts: Sequence[str]
    ) -> list[list[int]]:
        """Prompt and response in one; what does not fit is cut right, and counted."""
        asked = [
            (encoder.render(prompt), [text]) for prompt, text in zip(prompts, texts, strict=True)
        ]
        rows = [ids for encoded in encoder.encode_rendered(asked) for ids in encoded.sequences]
        self.num_truncated += sum(len(ids) > limit for ids in rows)
        return [ids[:limit] for ids in rows]

    def _note_rate(self, model: Trained, num_tokens: int, elapsed_s: float) -> None:
        line = json.dumps({"model": model.base, "num_tokens": num_tokens, "s": elapsed_s})
        known = self._store.read_bytes(RATES_FILE) if self._store.exists(RATES_FILE) else b""
        self._store.put(RATES_FILE, known + line.encode() + b"\n")


def lengths_in_tokens(encoder: Any, texts: Sequence[str]) -> Floats:
    return np.array([len(ids) for ids in encoder.ids_of(list(texts))], dtype=float)
