"""A checkpoint folder holds what was written, on a disk and behind a server that speaks S3."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from codepmp_ray.training.background_save import checkpoint_reader, checkpoint_writer


@pytest.fixture(params=["disk", "s3"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "disk":
        return str(tmp_path / "a checkpoint")
    return f"{request.getfixturevalue('s3_bucket')}/a run/a checkpoint"


@pytest.mark.slow
def test_torch_reads_the_checkpoint_again(location: str) -> None:
    # The last one is large enough to leave in several parts.
    state = {
        "a": torch.randn(700, 701),
        "b": {"c": torch.arange(3)},
        "d": 7,
        "e": torch.randn(15_000_000),
    }
    save(state, storage_writer=checkpoint_writer(location), no_dist=True)
    found = {
        "a": torch.zeros(700, 701),
        "b": {"c": torch.zeros(3, dtype=torch.int64)},
        "d": 0,
        "e": torch.zeros(15_000_000),
    }
    load(found, storage_reader=checkpoint_reader(location), no_dist=True)
    for name in ("a", "e"):
        assert torch.equal(found[name], state[name])
    assert torch.equal(found["b"]["c"], state["b"]["c"]) and found["d"] == 7
