"""Every group of processes waits as long as it was told to, and not the half hour of torch."""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
from datetime import timedelta
from pathlib import Path

import pytest

from tests.processes import PATIENCE_S

_ENDED, _NOT_ENDED = 3, 4


def _wait_alone(rank: int, port: int, folder: Path, which: str) -> None:
    """Rank 0 waits in a group for rank 1, which never comes."""
    import torch
    import torch.distributed as dist

    from codepmp_ray.config.training import TrainingConfig
    from codepmp_ray.storage import LocalStore
    from codepmp_ray.training.checkpoint import Checkpointer
    from codepmp_ray.training.fsdp import make_mesh

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    long = timedelta(seconds=4 * PATIENCE_S)  # of the default group
    dist.init_process_group("gloo", rank=rank, world_size=2, timeout=long)
    if which == "checkpoints":
        saver = Checkpointer(LocalStore(folder), 1, timeout_s=1)._saver
        assert saver is not None
        group = saver._group
    else:
        config = TrainingConfig(data_parallel_replicate_degree=2, process_group_timeout_s=1)
        group = make_mesh(config, torch.device("cpu")).get_group("dp_replicate")
    if rank == 1:
        time.sleep(4 * PATIENCE_S)
    try:
        dist.barrier(group=group)
    except RuntimeError:
        os._exit(_ENDED)
    os._exit(_NOT_ENDED)


@pytest.mark.parametrize("which", ["checkpoints", "replicas"])
def test_a_group_of_ours_ends_its_wait(which: str, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    workers = [
        context.Process(target=_wait_alone, args=(rank, port, tmp_path, which)) for rank in (0, 1)
    ]
    for worker in workers:
        worker.start()
    workers[0].join(PATIENCE_S)
    found = workers[0].exitcode
    for worker in workers:
        worker.kill()
        worker.join()
    assert found == _ENDED


def test_ray_train_makes_the_default_group_with_it(tmp_path: Path, monkeypatch) -> None:
    from ray.train import ScalingConfig

    from codepmp_ray.cluster import training
    from codepmp_ray.config.training import TrainingConfig
    from codepmp_ray.training.task import TrainingTask

    told = {}
    monkeypatch.setattr(training, "TorchTrainer", lambda main, **settings: told.update(settings))
    config = TrainingConfig(process_group_timeout_s=77)
    task = TrainingTask("pretraining", config, "m", (), str(tmp_path))
    training._trainer(task, ScalingConfig(), use_gpu=False)
    assert told["torch_config"].timeout_s == 77
