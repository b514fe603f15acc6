"""Checkpoints that are written beside the training: of their own step, whole or not there."""

from __future__ import annotations

import gc
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.checkpoint._state_dict_stager import StateDictStager
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from codepmp_ray.errors import StorageError
from codepmp_ray.storage import LocalStore
from codepmp_ray.training import checkpoint
from codepmp_ray.training.background_save import BackgroundSaver
from codepmp_ray.training.checkpoint import Checkpointer
from codepmp_ray.training.checkpoint_folders import whole_steps
from tests.processes import PATIENCE_S


def trained(seed: int, out: int = 64) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = torch.nn.Linear(64, out, bias=out == 64)
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    step(model, optimizer)
    return model, optimizer


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model(torch.ones(2, 64)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def weights(model: torch.nn.Module) -> torch.Tensor:
    return model.weight.full_tensor().detach().clone()


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_checkpoint_is_of_its_step_whatever_the_steps_after_it_do(
    group, tmp_path: Path, asynchronous: bool
) -> None:
    checkpointer = Checkpointer(LocalStore(tmp_path), 2, asynchronous=asynchronous)
    model, optimizer = trained(0)
    checkpointer.save(model, optimizer, 1)
    saved = weights(model)
    checkpointer.wait_until_copied()
    step(model, optimizer)  # in place, while the checkpoint may still be written
    after_two = weights(model)
    checkpointer.finish()

    other, other_optimizer = trained(1)
    assert checkpointer.restore(other, other_optimizer) == 1
    assert weights(other).equal(saved)
    step(other, other_optimizer)  # the optimizer's state came along
    assert weights(other).equal(after_two)


def test_models_of_one_process_may_differ(group, tmp_path: Path) -> None:
    for number, out in enumerate((64, 64, 32, 32, 64), start=1):
        checkpointer = Checkpointer(LocalStore(tmp_path / str(number)), 2)
        model, optimizer = trained(number, out)
        checkpointer.save(model, optimizer, number)
        checkpointer.finish()
        other, other_optimizer = trained(0, out)
        assert checkpointer.restore(other, other_optimizer) == number
        assert weights(other).equal(weights(model))
        step(other, other_optimizer)
        step(model, optimizer)
        assert weights(other).equal(weights(model))


def test_the_second_checkpoint_has_what_changed_since_the_first(group, tmp_path: Path) -> None:
    """In place, as weights do; a learning rate; a tensor in another's place."""
    checkpointer = Checkpointer(LocalStore(tmp_path), 9)
    model, optimizer = trained(0)
    checkpointer.save(model, optimizer, 1)
    checkpointer.finish()
    step(model, optimizer)
    optimizer.param_groups[0]["lr"] = 0.025
    checkpointer.save(model, optimizer, 2)
    checkpointer.finish()
    state = optimizer.state[model.weight]
    state["exp_avg"] = state["exp_avg"].clone()
    step(model, optimizer)
    checkpointer.save(model, optimizer, 3)
    checkpointer.finish()
    found, moments = [], []
    for number in (1, 2, 3):
        other, other_optimizer = trained(1)
        assert checkpointer.restore(other, other_optimizer, step=number) == number
        found.append(other_optimizer.param_groups[0]["lr"])
        moments.append(other_optimizer.state[other.weight]["exp_avg"].full_tensor())
    assert found == [0.1, 0.025, 0.025]
    assert weights(other).equal(weights(model))
    assert moments[2].equal(state["exp_avg"].full_tensor()) and not moments[1].equal(moments[2])


def test_copies_that_are_made_beside_the_steps_are_of_their_step(
    group, tmp_path: Path, monkeypatch
) -> None:
    """The way of GPUs, without pinned memory."""
    may_copy, real = threading.Event(), StateDictStager.stage

    def late(*args, **kwargs):
        assert may_copy.wait(PATIENCE_S)
        return real(*args, **kwargs)

    monkeypatch.setattr(StateDictStager, "stage", late)
    saver = BackgroundSaver(dist.new_group(backend="gloo"), copies_beside=True)
    monkeypatch.setattr(checkpoint, "BackgroundSaver", lambda group: saver)
    checkpointer = Checkpointer(LocalStore(tmp_path), 2)
    model, optimizer = trained(0)
    saved = weights(model)
    checkpointer.save(model, optimizer, 1)
    threading.Timer(0.5, may_copy.set).start()
    checkpointer.wait_until_copied()
    assert may_copy.is_set()
    step(model, optimizer)
    checkpointer.finish()
    other, other_optimizer = trained(1)
    assert checkpointer.restore(other, other_optimizer) == 1
    assert weights(other).equal(saved)


def test_an_update_does_not_wait_for_a_checkpoint_that_failed(
    group, tmp_path: Path, monkeypatch
) -> None:
    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FileSystemWriter, "write_data", full)
    checkpointer = Checkpointer(LocalStore(tmp_path), 2)
    model, optimizer = trained(0)
    checkpointer.save(model, optimizer, 1)
    checkpointer.wait_until_copied()
    with pytest.raises(StorageError, match="No space left"):
        checkpointer.finish()


def test_an_update_does_not_wait_for_the_writing(group, tmp_path: Path, monkeypatch) -> None:
    """And what it changes meanwhile is not in the checkpoint, nor in the next one's place."""
    may_write, real = threading.Event(), FileSystemWriter.write_data

    def late(*args):
        assert may_write.wait(PATIENCE_S)
        return real(*args)

    monkeypatch.setattr(FileSystemWriter, "write_data", late)
    checkpointer = Checkpointer(LocalStore(tmp_path), 2)
    model, optimizer = trained(0)
    for number in (1, 2):  # the second writes over the first's copies
        saved = weights(model)
        checkpointer.save(model, optimizer, number)
        checkpointer.wait_until_copied()
        assert not may_write.is_set()
        step(model, optimizer)
        may_write.set()
        checkpointer.finish()
        may_write.clear()
        other, other_optimizer = trained(1)
        assert checkpointer.restore(other, other_optimizer) == number
        assert weights(other).equal(saved)
        step(other, other_optimizer)  # the optimizer's state is of that step, too
        assert weights(other).equal(weights(model))


def test_an_update_does_not_wait_for_old_checkpoints_to_go(
    group, tmp_path: Path, monkeypatch
) -> None:
    may_go, was_gone = threading.Event(), []

    def wait(store) -> None:
        was_gone.append(may_go.wait(PATIENCE_S))

    monkeypatch.setattr(checkpoint, "delete_unmarked", wait)
    checkpointer = Checkpointer(LocalStore(tmp_path), 1)
    checkpointer.save(*trained(0), 1)
    checkpointer.wait_until_copied()
    assert not was_gone
    may_go.set()
    checkpointer.finish()
    assert was_gone == [True]


@pytest.fixture
def train_until_stopped(
    group, tmp_path: Path, tiny_model_dir: Path, preference_rows: list[dict]
) -> Callable[..., Path]:
    """Train with a checkpoint a step until step 2, in a folder of the given name."""
    from codepmp_ray.config.training import TrainingConfig
    from codepmp_ray.training.loop import train
    from codepmp_ray.training.stopping import request_stop
    from codepmp_ray.training.task import InputShard, TrainingTask

    settings = {"batch_size": 4, "max_length": 256, "max_tokens_per_micro_batch": 512}
    settings |= {"bf16": False, "learning_rate": 1e-2, "save_steps": 1, "eval_fraction": 0.0}
    config = TrainingConfig.model_validate(settings | {"warmup_ratio": 0.0})
    inputs = (InputShard("run", "digest", lambda: list(preference_rows)),)

    def run(name: str, look: Callable[[], object] = lambda: None) -> Path:
        store = LocalStore(tmp_path / name)
        task = TrainingTask("pretraining", config, str(tiny_model_dir), inputs, str(store.path("")))

        def report(row: dict) -> None:
            look()
            if row["step"] == 2:
                request_stop(store)

        train(task, report)
        return tmp_path / name

    return run


def test_training_waits_for_the_copy_before_each_update(
    train_until_stopped: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint of step 1 is the same however late it is written."""
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    def first_checkpoint(name: str) -> dict[str, torch.Tensor]:
        (folder,) = train_until_stopped(name).glob("checkpoints/step-00000001.*[!json]")
        dcp_to_torch_save(str(folder), str(tmp_path / f"{name}.pt"))
        return torch.load(tmp_path / f"{name}.pt", weights_only=True)["model"]

    expected = first_checkpoint("prompt")
    real = FileSystemWriter.write_data

    def late(*args):
        time.sleep(1.0)
        return real(*args)

    monkeypatch.setattr(FileSystemWriter, "write_data", late)
    found = first_checkpoint("late")
    assert all(found[name].equal(expected[name]) for name in expected)


def test_steps_have_no_pauses_for_what_existed_before_them(
    train_until_stopped: Callable[..., Path],
) -> None:
    num_spared: list[int] = []
    train_until_stopped("a run", lambda: num_spared.append(gc.get_freeze_count()))
    assert num_spared and min(num_spared) > 1000  # modules, parameters
    assert gc.get_freeze_count() == 0


def test_a_checkpoint_that_is_still_written_does_not_exist(
    group, tmp_path: Path, monkeypatch
) -> None:
    may_finish, real = threading.Event(), FileSystemWriter.finish

    def slow(*args, **named):
        assert may_finish.wait(PATIENCE_S)
        return real(*args, **named)

    monkeypatch.setattr(FileSystemWriter, "finish", slow)
    checkpointer = Checkpointer(LocalStore(tmp_path), 2)
    model, optimizer = trained(0)
    checkpointer.save(model, optimizer, 1)
    checkpointer.poll(torch.device("cpu"))
    assert whole_steps(checkpointer.store) == []
    may_finish.set()
    checkpointer.finish()
    assert Checkpointer(LocalStore(tmp_path), 2).restore(model, optimizer) == 1


def test_only_the_newest_stay_and_nothing_of_lost_attempts(group, tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    lost = tmp_path / "checkpoints" / "step-00000001.dead"
    lost.mkdir(parents=True)
    (lost / "__0_0.distcp").write_bytes(b"half")
    checkpointer = Checkpointer(store, 2)
    model, optimizer = trained(0)
    for number in range(1, 5):
        checkpointer.save(model, optimizer, number)
    checkpointer.finish()
    names = store.list("checkpoints")
    assert [json.loads(store.read_bytes(f"checkpoints/{n}"))["step"] for n in names
            if n.endswith(".json")] == [3, 4]  # fmt: skip
    assert len(names) == 4


def test_what_cannot_be_written_is_an_error_with_a_remedy(
    group, tmp_path: Path, monkeypatch
) -> None:
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FileSystemWriter, "write_data", full)
    for asynchronous in (True, False):
        checkpointer = Checkpointer(LocalStore(tmp_path), 2, asynchronous=asynchronous)
        model, optimizer = trained(0)
        with pytest.raises(StorageError, match=r"No space left on device.*Make room"):
            checkpointer.save(model, optimizer, 1)
            checkpointer.finish()
        assert checkpointer.restore(model, optimizer) == 0


@pytest.mark.parametrize("asynchronous", [True, False])
def test_an_attempt_that_was_given_up_changes_nothing(
    group, tmp_path: Path, asynchronous: bool
) -> None:
    store = LocalStore(tmp_path)
    lost = Checkpointer(store, 1, asynchronous=asynchronous)
    model, optimizer = trained(0)
    lost.save(model, optimizer, 1)
    lost.finish()
    now = Checkpointer(store, 1, asynchronous=asynchronous)
    assert now.restore(model, optimizer) == 1
    with pytest.raises(StorageError, match="A later attempt trains in"):
        lost.save(model, optimizer, 2)
        lost.finish()
    with pytest.raises(StorageError, match="A later attempt trains in"):
        lost.remove_all()
    assert whole_steps(store) == [1] and now.restore(model, optimizer) == 1
    now.save(model, optimizer, 3)
    now.finish()
    assert whole_steps(store) == [3] and len(store.list("checkpoints")) == 2
    now.remove_all()
    assert not (tmp_path / "checkpoints").exists()


def test_of_two_commands_the_later_one_goes_on(group, tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    first = Checkpointer(store, 1, command="1")
    later = Checkpointer(store, 1, command="2")
    with pytest.raises(StorageError, match=r"A later attempt trains in.*delete .*\.attempt"):
        Checkpointer(store, 1, command="1")  # restarted by Ray Train
    model, optimizer = trained(0)
    later.save(model, optimizer, 1)
    later.finish()
    with pytest.raises(StorageError, match="A later attempt"):
        first.require_no_other()
    assert Checkpointer(store, 1, command="2").restore(model, optimizer) == 1
