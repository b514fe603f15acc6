"""A state that was saved before is saved again without torch's planning, and loads alike."""

from __future__ import annotations

import pickle
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from codepmp_ray.errors import StorageError
from codepmp_ray.modeling.collectives import leave_process_group
from codepmp_ray.storage import LocalStore
from codepmp_ray.training import background_save, direct_files, repeated_checkpoint
from codepmp_ray.training.checkpoint import Checkpointer
from codepmp_ray.training.checkpoint_folders import folder_of

WIDTH = 512  # its weights are large enough to be lent to the disk, its biases are not


def trained(seed: int, num_ranks: int = 1) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH), torch.nn.Linear(WIDTH, WIDTH))
    fully_shard(model, mesh=init_device_mesh("cpu", (num_ranks,)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    step(model, optimizer)
    return model, optimizer


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model(torch.ones(2, WIDTH)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def weights(model: torch.nn.Module) -> list[torch.Tensor]:
    return [p.full_tensor().detach().clone() for p in model.parameters()]


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(a.equal(b) for a, b in zip(one, other, strict=True))


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Checkpoints that torch planned."""
    found: list[str] = []
    real = background_save.save

    def save(*args: Any, **options: Any) -> Any:
        found.append("planned")
        return real(*args, **options)

    monkeypatch.setattr(background_save, "save", save)
    return found


def test_checkpoints_after_the_first_are_not_planned_and_load_alike(
    group, tmp_path: Path, planned: list[str]
) -> None:
    checkpointer = Checkpointer(LocalStore(tmp_path), 9)
    model, optimizer = trained(0)
    expected: dict[int, tuple[list[torch.Tensor], float]] = {}
    for number in range(1, 5):
        optimizer.param_groups[0]["lr"] = rate = 0.1 / number
        expected[number] = (weights(model), rate)
        checkpointer.save(model, optimizer, number)
        checkpointer.wait_until_copied()
        step(model, optimizer)
    checkpointer.finish()
    assert planned == ["planned"]
    for number, (saved, rate) in expected.items():
        other, other_optimizer = trained(9)
        assert checkpointer.restore(other, other_optimizer, step=number) == number
        assert equal(weights(other), saved)
        assert other_optimizer.param_groups[0]["lr"] == rate
    step(other, other_optimizer)  # the optimizer's state came along
    assert equal(weights(other), weights(model))


def test_metadata_names_no_other_checkpoint(group, tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    checkpointer = Checkpointer(store, 9)
    model, optimizer = trained(0)
    for number in (1, 2):
        checkpointer.save(model, optimizer, number)
        checkpointer.finish()
    first, second = (
        Path(store.locate(folder_of(store, number))) / ".metadata" for number in (1, 2)
    )
    assert first.read_bytes() == second.read_bytes()
    meta = pickle.loads(first.read_bytes()).storage_meta
    assert (meta.checkpoint_id, meta.save_id) == (None, None)


@pytest.mark.parametrize("change", ["length", "tensor"])
def test_a_state_that_no_longer_fits_is_planned_again(
    group, tmp_path: Path, planned: list[str], change: str
) -> None:
    checkpointer = Checkpointer(LocalStore(tmp_path), 9)
    model, optimizer = trained(0)
    checkpointer.save(model, optimizer, 1)
    checkpointer.finish()
    if change == "length":
        optimizer.param_groups[0]["note"] = "new"
        checkpointer.save(model, optimizer, 2)
        checkpointer.finish()
        optimizer.param_groups[0]["note"] = "much longer than it was, " * 100
    else:
        state = next(iter(optimizer.state.values()))
        state["exp_avg"] = state["exp_avg"].clone()
    num_before = len(planned)
    saved = weights(model)
    checkpointer.save(model, optimizer, 3)
    checkpointer.finish()
    assert len(planned) == num_before + 1
    other, other_optimizer = trained(9)
    assert checkpointer.restore(other, other_optimizer) == 3
    assert equal(weights(other), saved)


def test_a_full_disk_leaves_the_checkpoint_before_and_the_next_one_is_whole(
    group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpointer = Checkpointer(LocalStore(tmp_path), 9)
    model, optimizer = trained(0)
    checkpointer.save(model, optimizer, 1)
    checkpointer.finish()
    first = weights(model)
    step(model, optimizer)

    def full(descriptor: int, parts: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(direct_files, "write_parts", full)
        checkpointer.save(model, optimizer, 2)
        checkpointer.wait_until_copied()
        with pytest.raises(StorageError, match="No space left"):
            checkpointer.finish()
    other, other_optimizer = trained(9)
    assert checkpointer.restore(other, other_optimizer) == 1 and equal(weights(other), first)
    checkpointer.save(model, optimizer, 3)
    checkpointer.finish()
    assert checkpointer.restore(other, other_optimizer) == 3
    assert equal(weights(other), weights(model))


def test_tensors_that_are_no_flat_memory_are_planned_each_time(
    group, tmp_path: Path, planned: list[str]
) -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(8, 8)
    model.register_buffer("turned", torch.arange(12.0).view(3, 4).T)
    optimizer = torch.optim.AdamW(model.parameters())
    checkpointer = Checkpointer(LocalStore(tmp_path), 9)
    for number in (1, 2):
        checkpointer.save(model, optimizer, number)
        checkpointer.finish()
    assert len(planned) == 2


def _on_two_ranks(rank: int, folder: Path, port: int) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.set_num_threads(1)
    checkpointer = Checkpointer(LocalStore(folder), 9)
    model, optimizer = trained(0, 2)
    takes = repeated_checkpoint.RepeatedCheckpoint.takes
    for number in range(1, 5):
        if rank == 1 and number == 3:  # one rank alone cannot write again
            repeated_checkpoint.RepeatedCheckpoint.takes = lambda self, state: False
        saved = weights(model)
        checkpointer.save(model, optimizer, number)
        repeated_checkpoint.RepeatedCheckpoint.takes = takes
        checkpointer.wait_until_copied()
        step(model, optimizer)
        checkpointer.finish()
        other, other_optimizer = trained(9, 2)
        assert checkpointer.restore(other, other_optimizer) == number
        assert equal(weights(other), saved)
        step(other, other_optimizer)
        assert equal(weights(other), weights(model))
    leave_process_group()


def test_ranks_agree_on_how_they_write(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_on_two_ranks, (tmp_path, port), nprocs=2)
