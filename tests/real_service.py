"""The service on a port of its own with the real torch scorer, without Ray's processes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from codepmp_ray.config.evaluation import ServingConfig
from codepmp_ray.errors import CodePMPError, InputError
from codepmp_ray.scoring.best_of_n import ScoringRequest
from codepmp_ray.serve.app import ServiceSettings, create_app
from codepmp_ray.serve.auth import digest_of
from codepmp_ray.serve.deployments import ScorerReplica
from codepmp_ray.serve.scoring import Outcome
from codepmp_ray.serve.weights import Weights
from codepmp_ray.weights_digest import weights_digest

KEY, SCRAPE_TOKEN = "sk-adapters", "scrape-adapters"


class InProcess:
    """A Backend over the replica that Ray Serve would start, in this process."""

    def __init__(self, model: Path, max_model_len: int) -> None:
        config = ServingConfig(engine="torch", max_model_len=max_model_len)
        self._replica = ScorerReplica(str(model), config.model_dump(mode="json"), 0.0)

    async def score(self, requests: list[ScoringRequest]) -> list[Outcome]:
        return await self._replica.score(requests)

    async def tokenize(self, request: ScoringRequest) -> list[int]:
        return _raised(await self._replica.tokenize(request))

    async def load_weights(self, weights: Weights) -> None:
        _raised(await self._replica.load_weights(weights))

    async def check_ready(self) -> int | None:
        return await self._replica.check_ready()


def _raised(found: Any) -> Any:
    """What HandleBackend does with errors that a replica returns."""
    if isinstance(found, CodePMPError):
        raise InputError(found.problem, found.remedy)
    return found


@contextmanager
def serving(model: Path, max_model_len: int = 256, **more: Any) -> Iterator[str]:
    """The address of a service that knows KEY and SCRAPE_TOKEN; `more` are settings of it."""
    settings = ServiceSettings(
        **more,
        model_name="tiny",
        api_key_sha256=(digest_of(KEY),),
        metrics_token_sha256=(digest_of(SCRAPE_TOKEN),),
        weights_digest=weights_digest(str(model)),
        max_model_len=max_model_len,
        dtype="float32",
    )
    app = create_app(settings, InProcess(model, max_model_len))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()
