"""Fixtures for several test folders, and the order of the files."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.s3_server import S3Server
from tests.tiny_models import save_tiny_base_model

# Before anything imports torch or ray, and for all processes of the tests.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers of pytest share the cores
for _name, _value in {
    # Ray gives up on a machine that is busy starting several clusters.
    "RAY_raylet_start_wait_time_s": "240",
    "RAY_gcs_rpc_server_connect_timeout_s": "60",
    "RAY_gcs_server_request_timeout_seconds": "240",
    # A model that cannot be loaded is refused once, not three times.
    "RAY_SERVE_MAX_PER_REPLICA_RETRY_COUNT": "1",
}.items():
    os.environ.setdefault(_name, _value)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that two workers end at about the same time."""
    items.sort(key=lambda item: min(map(_place, item.path.parts)))


def _place(part: str) -> int:
    folders = ("e2e", "cluster", "multiprocess")
    return folders.index(part) if part in folders else len(folders)


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_base_model(tmp_path_factory.mktemp("models") / "tiny llama")


@pytest.fixture(scope="session")
def preference_rows() -> list[dict]:
    """24 TRL-format rows of different lengths from 24 sources."""
    return [
        {
            "pair_id": f"pair-{index}",
            "source_id": f"source-{index}",
            "prompt": f"Add {index} to the input." + " Please." * (index % 5),
            "chosen": f"def f(x):\n    return x + {index}" + "\n" * (index % 3),
            "rejected": "def f(x):\n    pass" + "  # no" * (index % 7),
        }
        for index in range(24)
    ]


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """One S3 server for the whole session, in this process's environment too."""
    server = S3Server()
    with pytest.MonkeyPatch.context() as environment:
        for name, value in server.environment.items():
            environment.setenv(name, value)
        yield server
    server.stop()


@pytest.fixture
def s3_bucket(s3_server: S3Server) -> str:
    """URI of a new bucket."""
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    httpx.put(f"{s3_server.url}/{name}").raise_for_status()
    return f"s3://{name}"
