"""Fixtures for several test folders, and the order of the files."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

# Two workers of pytest share the cores: with a thread for each core in both, threads wait for each
# other. Before anything imports torch.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.s3_server import S3Server
from tests.tiny_models import save_tiny_base_model


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
