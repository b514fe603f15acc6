"""The life of a model of many files at full reality: load, steps, save, another number of ranks,
steps, export in many files, transformers. The 72B's own life runs on pretended ranks."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
from pathlib import Path

import pytest

from codepmp_ray.preference.items import EncodedItem

MAX_FILE_BYTES = 40_000
PRELOADED = ["torch", "transformers", "codepmp_ray.training.loop"]
PAIRS = [
    EncodedItem.of_pair(str(i), [5, 6, 7 + i], [8, 9] * (i + 1), [10] * (5 - i)) for i in range(4)
]


def _steps(rank: int, world_size: int, port: int, source: str, folder: str, last: int) -> None:
    """To step `last` from the checkpoint in `folder`, or from `source`; save and export."""
    import torch
    import torch.distributed as dist

    from codepmp_ray.config.training import TrainingConfig
    from codepmp_ray.modeling.collectives import leave_process_group
    from codepmp_ray.modeling.export import export_model
    from codepmp_ray.modeling.loading import empty_model, load_tokenizer, materialise, read_weights
    from codepmp_ray.preference.tokenization import PromptTemplate
    from codepmp_ray.storage import LocalStore
    from codepmp_ray.training.checkpoint import Checkpointer
    from codepmp_ray.training.fsdp import make_mesh, shard
    from codepmp_ray.training.optimizer import make_optimizer
    from codepmp_ray.training.step import StepRunner, objective_of

    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=world_size)
    cpu = torch.device("cpu")
    config = TrainingConfig(bf16=False, learning_rate=1e-3, num_workers=world_size)
    model = empty_model(source, objective_of(config))
    shard(model, config, make_mesh(config, cpu))
    materialise(model, cpu)
    read_weights(model, source, seed=0)
    optimizer = make_optimizer(model, config)
    checkpointer = Checkpointer(LocalStore(folder), 1, asynchronous=False)
    done = checkpointer.restore(model, optimizer)
    runner = StepRunner(model, config, cpu)
    while done < last:
        runner.train(PAIRS)
        optimizer.step()
        optimizer.zero_grad()
        done += 1
    checkpointer.save(model, optimizer, done)
    tokenizer = load_tokenizer(source)
    template = PromptTemplate.from_tokenizer(tokenizer, "chat", True)
    target = LocalStore(Path(folder) / f"model-{last}")
    export_model(model, tokenizer, template, target, torch.float32, MAX_FILE_BYTES)
    leave_process_group()


def run(world_size: int, source: Path, folder: Path, last: int) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # The fork server has loaded the libraries, so that not every rank does: seconds each.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    ranks = [
        context.Process(
            target=_steps,
            args=(rank, world_size, port, str(source), str(folder), last),
            daemon=True,
        )
        for rank in range(world_size)
    ]
    try:
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join()
            assert rank.exitcode == 0
    finally:
        for rank in ranks:
            rank.kill()


@pytest.fixture(scope="module")
def many_files(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Path:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("many files")
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    model.save_pretrained(folder, max_shard_size="40KB")
    AutoTokenizer.from_pretrained(tiny_model_dir).save_pretrained(folder)
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    return folder


def test_a_model_of_many_files_lives_on_two_then_on_three_ranks(
    many_files: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForSequenceClassification

    run(2, many_files, tmp_path / "many", 2)
    run(3, many_files, tmp_path / "many", 4)
    run(1, tiny_model_dir, tmp_path / "one", 4)

    found = {}
    for name in ("many", "one"):
        folder = tmp_path / name / "model-4"
        files = sorted(folder.glob("model-*-of-*.safetensors"))
        index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
        tensors = {key: tensor for file in files for key, tensor in load_file(file).items()}
        assert len(files) > 2 and set(index) == set(tensors)
        for file in files:
            assert set(load_file(file)) == {key for key, at in index.items() if at == file.name}
        found[name] = tensors
        plain = AutoModelForSequenceClassification.from_pretrained(folder)
        assert all(plain.state_dict()[key].equal(tensor) for key, tensor in tensors.items())
    assert found["many"].keys() == found["one"].keys()
    for key, tensor in found["one"].items():
        assert torch.allclose(found["many"][key], tensor, atol=1e-4), key
    before = load_file(tmp_path / "many" / "model-2" / next(iter(set(index.values()))))
    assert any(not tensor.equal(found["many"][key]) for key, tensor in before.items())
