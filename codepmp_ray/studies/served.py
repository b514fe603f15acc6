"""Rewards of our scoring service, over HTTP, for studies: any number of prompts, some at once."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np

from codepmp_ray.client import CandidateScore, RewardClient, ServedModel
from codepmp_ray.client.answers import Hints
from codepmp_ray.errors import EngineError, InputError
from codepmp_ray.resampling import Floats

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
