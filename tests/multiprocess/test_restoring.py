"""Checkpoints that cannot be loaded: one line with a remedy, not torch's own words alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from codepmp_ray.errors import StorageError
from codepmp_ray.storage import LocalStore
from codepmp_ray.training.checkpoint import Checkpointer


def trained(num_inputs: int, *, nested: bool = False) -> tuple[torch.nn.Module, torch.optim.AdamW]:
    model: torch.nn.Module = torch.nn.Linear(num_inputs, 4)
    model = torch.nn.Sequential(model) if nested else model
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, num_inputs)).sum().backward()
    optimizer.step()
    return model, optimizer


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (lambda: trained(6), r"Size mismatch .*\[4, 8\].*\[4, 6\]"),
        (lambda: trained(8, nested=True), "Missing key .*0.weight"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(group, tmp_path: Path, other, words: str) -> None:
    checkpointer = Checkpointer(LocalStore(tmp_path), 1, asynchronous=False)
    checkpointer.save(*trained(8), 3)
    with pytest.raises(StorageError, match=f"Cannot load .*{words}(.|\n)*another model"):
        checkpointer.restore(*other())


def test_a_damaged_checkpoint_is_refused(group, tmp_path: Path) -> None:
    checkpointer = Checkpointer(LocalStore(tmp_path), 1, asynchronous=False)
    checkpointer.save(*trained(8), 3)
    (shards,) = tmp_path.rglob("*.distcp")
    shards.write_bytes(shards.read_bytes()[:10])
    with pytest.raises(StorageError, match=r"Cannot load .*step-00000003(.|\n)*damaged"):
        checkpointer.restore(*trained(8))
