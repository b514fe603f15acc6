"""Fixtures for several test folders, and the order of the files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny_models import save_tiny_base_model


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that two workers end at about the same time."""
    items.sort(key=lambda item: "e2e" not in item.path.parts)


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
