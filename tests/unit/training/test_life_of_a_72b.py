"""A 72B without a cluster: its load, its steps and its export, on ranks that are pretended.

Weights lie in files of the real layout and size that hold nothing (sparse). Steps run on tensors
without contents, and the collectives that each rank would call are compared, because ranks that
call different ones wait for each other forever. The same life at full reality, with a small model,
is in tests/multiprocess.
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.checkpoint._dedup_save_plans import dedup_save_plans
from torch.distributed.checkpoint._nested_dict import flatten_state_dict
from torch.distributed.checkpoint.default_planner import (
    create_default_global_save_plan,
    create_default_local_load_plan,
    create_default_local_save_plan,
)
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.debug import _clear_sharding_prop_cache
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, Qwen2Config

from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.modeling import export
from codepmp_ray.modeling.building import model_from_config
from codepmp_ray.modeling.export import file_of_tensor
from codepmp_ray.modeling.loading import empty_model, materialise, read_weights
from codepmp_ray.modeling.objectives import make_objective
from codepmp_ray.preference.items import EncodedItem
from codepmp_ray.storage import LocalStore
from codepmp_ray.training.fsdp import make_mesh, shard
from codepmp_ray.training.optimizer import make_optimizer
from codepmp_ray.training.step import StepRunner, objective_of

pytestmark = pytest.mark.slow

QWEN2_72B = {
    "vocab_size": 152064,
    "hidden_size": 8192,
    "intermediate_size": 29568,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "tie_word_embeddings": False,
}
FILE_BYTES = 4_000_000_000
RM = make_objective("rm")


@contextmanager
def pretended_rank(rank: int, world_size: int) -> Iterator[None]:
    dist.init_process_group("fake", rank=rank, world_size=world_size, store=FakeStore())
    # What it remembers of a mesh includes the rank's place there, and meshes of one form are equal.
    _clear_sharding_prop_cache()
    try:
        yield
    finally:
        dist.destroy_process_group()


def write_sparse_weights(folder: Path) -> int:
    """safetensors files with every tensor of the model and no bytes on disk; their number."""
    config = Qwen2Config(**QWEN2_72B, architectures=["Qwen2ForCausalLM"])
    config.save_pretrained(folder)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    state = dict(model.named_parameters())
    numbers = file_of_tensor(
        {name: tensor.numel() * 2 for name, tensor in state.items()}, FILE_BYTES
    )
    for number in range(1, max(numbers.values()) + 1):
        header, offset = {}, 0
        for name in (name for name in state if numbers[name] == number):
            size = state[name].numel() * 2
            offsets = [offset, offset + size]
            header[name] = {
                "dtype": "BF16",
                "shape": list(state[name].shape),
                "data_offsets": offsets,
            }
            offset += size
        text = json.dumps(header).encode()
        with open(folder / f"model-{number:05d}.safetensors", "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + offset)
    return max(numbers.values())


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qwen2 72b")
    assert write_sparse_weights(folder) > 30
    return folder


@pytest.mark.parametrize("rank", [0, pytest.param(1023, marks=pytest.mark.rehearsal)])
def test_a_rank_loads_its_share_and_nothing_more(weights: Path, rank: int) -> None:
    config = TrainingConfig(num_workers=1024, objective="rm")
    with pretended_rank(rank, 1024):
        model = empty_model(str(weights), RM)
        num_parameters = sum(parameter.numel() for parameter in model.parameters())
        assert num_parameters == pytest.approx(71.5e9, rel=0.01)  # without the LM head
        shard(model, config, make_mesh(config, torch.device("cpu")))
        for parameter in model.parameters():
            assert parameter.is_meta
        materialise(model, torch.device("cpu"))
        model.backbone.norm.weight.detach().to_local().fill_(7)
        read_weights(model, str(weights), seed=0)
        for name, parameter in model.named_parameters():
            rows, per_rank = parameter.shape[0], -(-parameter.shape[0] // 1024)
            mine = max(0, min(per_rank, rows - rank * per_rank))
            assert parameter.to_local().shape == (mine, *parameter.shape[1:]), name
        norm = model.backbone.norm.weight.to_local()
        assert norm.numel() == 8 and not norm.any()  # as the file has it


class Collectives(TorchDispatchMode):
    """The names and sizes of the collectives that are called, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, int]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        if function.namespace in ("c10d", "_c10d_functional"):
            tensors = [x for x in torch.utils._pytree.tree_leaves(args) if torch.is_tensor(x)]
            self.calls.append((str(function), sum(tensor.numel() for tensor in tensors)))
        return function(*args, **(kwargs or {}))


def collectives_of_a_step(
    rank: int, world_size: int, num_layers: int, num_pairs: int = 7, **settings
) -> list:
    config = TrainingConfig.model_validate(
        {
            "num_workers": world_size,
            "max_length": 64,
            "max_tokens_per_micro_batch": 128,
            "gradient_checkpointing": True,
            **settings,
        }
    )
    rng = random.Random(4)
    # Of lengths that need a different number of LM chunks.
    pairs = [
        EncodedItem.of_pair(str(i), [1] * 3, [1] * rng.randint(1, 60), [1] * rng.randint(1, 60))
        for i in range(num_pairs)
    ]
    with pretended_rank(rank, world_size):
        mesh = make_mesh(config, torch.device("cpu"))
        with FakeTensorMode(), Collectives() as seen:
            shape = Qwen2Config(**{**QWEN2_72B, "num_hidden_layers": num_layers})
            model = model_from_config(shape, objective_of(config))
            shard(model, config, mesh)
            model.train()
            optimizer = make_optimizer(model, config)
            runner = StepRunner(model, config, torch.device("cpu"))
            for _, batch in runner._micro_batches(pairs):
                loss = model.objective.loss(model(batch), {"pair": 1, "token": 1})
                (loss * batch.weight).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    return seen.calls


@pytest.mark.parametrize(
    "settings",
    [{}, {"objective": "dpo"}, {"data_parallel_replicate_degree": 2}, {"num_pairs": 19}],
)
def test_every_rank_calls_the_same_collectives_whatever_its_load(settings: dict) -> None:
    """With 7 pairs the last of 8 ranks runs a filler, with 19 some ranks do beside a full one."""
    first = collectives_of_a_step(0, 8, 2, **settings)
    assert len(first) >= 8  # two blocks, each gathered twice and reduced, and the root
    if settings.get("num_pairs"):
        assert len(first) > len(collectives_of_a_step(0, 8, 2))  # more than one micro-batch
    for rank in (3, 7):
        assert collectives_of_a_step(rank, 8, 2, **settings) == first


def test_a_whole_step_gathers_and_reduces_every_block() -> None:
    calls = collectives_of_a_step(0, 64, 10)
    (gather, num_gathers), *_ = Counter(c for c in calls if "allgather" in c[0]).most_common()
    (reduce, num_reductions), *_ = Counter(
        c for c in calls if "reduce_scatter" in c[0]
    ).most_common()
    # Each block is gathered for its forward and again for its backward pass, and reduced once.
    assert (num_gathers, num_reductions) == (20, 10)
    per_block = 2 * 8192 * 8192 + 2 * 8192 * 1024 + 3 * 8192 * 29568
    assert gather[1] == pytest.approx(per_block * (1 + 1 / 64), rel=0.001)  # whole, and one's share
    assert reduce[1] == gather[1]


def state_of_a_rank(world_size: int, num_layers: int) -> Any:
    """What the pretended rank would hand to a checkpoint after its first step."""
    config = TrainingConfig(num_workers=world_size)
    mesh = make_mesh(config, torch.device("cpu"))
    with FakeTensorMode():
        shape = Qwen2Config(**{**QWEN2_72B, "num_hidden_layers": num_layers})
        model = shard(model_from_config(shape, objective_of(config)), config, mesh)
        model_state, optimizer_state = get_state_dict(model, make_optimizer(model, config))
        return flatten_state_dict({"model": model_state, "optimizer": optimizer_state})[0]


def test_every_byte_is_saved_once_and_read_again_by_another_number_of_ranks() -> None:
    num_layers, saving, loading = 3, 12, 8
    plans = []
    for rank in range(saving):
        with pretended_rank(rank, saving):
            state = state_of_a_rank(saving, num_layers)
            plans.append(create_default_local_save_plan(state, is_coordinator=rank == 0))
    tensors = [item.tensor_data for plan in plans for item in plan.items if item.tensor_data]
    num_saved = sum(math.prod(tensor.chunk.sizes) for tensor in tensors)
    # Weights and two moments of AdamW, in fp32; the steps' counters are tiny.
    num_parameters = 3 * (2 * 8192**2 + 2 * 8192 * 1024 + 3 * 8192 * 29568) + 2 * 152064 * 8192
    assert num_saved == pytest.approx(3 * num_parameters, rel=1e-3)
    _, metadata = create_default_global_save_plan(dedup_save_plans(plans))
    for name, saved in metadata.state_dict_metadata.items():
        if isinstance(saved, TensorStorageMetadata):
            covered = sum(math.prod(chunk.sizes) for chunk in saved.chunks)
            assert covered == math.prod(saved.size), name
            assert len({tuple(chunk.offsets) for chunk in saved.chunks}) == len(saved.chunks), name

    num_read = Counter[str]()
    for rank in range(loading):
        with pretended_rank(rank, loading):
            state = state_of_a_rank(loading, num_layers)
            plan = create_default_local_load_plan(state, metadata)
        mine = Counter[str]()
        for item in plan.items:
            mine[item.dest_index.fqn] += math.prod(item.lengths)
        for name, value in state.items():
            if isinstance(value, DTensor):
                assert mine[name] == value.to_local().numel(), name
        num_read += mine
    for name, saved in metadata.state_dict_metadata.items():
        if isinstance(saved, TensorStorageMetadata) and len(saved.size) > 1:
            assert num_read[name] == math.prod(saved.size), name


def test_the_export_of_a_72b_is_cut_into_files_and_complete(weights: Path) -> None:
    model = empty_model(str(weights), RM)
    with torch.device("meta"):
        plain = AutoModelForSequenceClassification.from_config(
            Qwen2Config(**QWEN2_72B, num_labels=1, pad_token_id=0)
        )
    names = {n.replace("backbone.", "model.", 1) for n, _ in model.named_parameters()}
    assert names == {name for name, _ in plain.named_parameters()}
    in_bf16 = {name: tensor.numel() * 2 for name, tensor in plain.named_parameters()}
    numbers = file_of_tensor(in_bf16, 5 * 10**9)
    sizes: dict[int, int] = {}
    for name, number in numbers.items():
        sizes[number] = sizes.get(number, 0) + in_bf16[name]
    assert max(sizes.values()) <= 5 * 10**9 and sum(sizes.values()) > 140 * 10**9
    assert sorted(sizes) == list(range(1, len(sizes) + 1))


def test_every_rank_calls_the_same_collectives_for_the_export_and_each_file_is_written_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = TrainingConfig(num_workers=8, objective="rm")
    shape = Qwen2Config(**{**QWEN2_72B, "num_hidden_layers": 4}, num_labels=1, pad_token_id=0)
    with torch.device("meta"):
        plain = AutoModelForSequenceClassification.from_config(shape)
    calls: dict[int, list] = {}
    held: dict[str, set[str]] = {}

    def write(tensors: dict[str, torch.Tensor], target: LocalStore, file: str) -> None:
        assert file not in held
        held[file] = set(tensors)
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        assert size <= FILE_BYTES

    monkeypatch.setattr(export, "write_file", write)
    # Nothing is sent between pretended ranks, the errors of others included.
    monkeypatch.setattr(export, "writing", nullcontext)
    for rank in range(8):
        with pretended_rank(rank, 8):
            mesh = make_mesh(config, torch.device("cpu"))
            with FakeTensorMode(), Collectives() as seen:
                model = shard(model_from_config(shape, RM), config, mesh)
                export._write_weights(
                    export._export_state(model, plain),
                    plain,
                    LocalStore(tmp_path),
                    torch.bfloat16,
                    FILE_BYTES,
                )
            calls[rank] = seen.calls
    assert all(calls[rank] == calls[0] for rank in calls) and calls[0]
    names = [name for name, _ in plain.named_parameters()]
    assert sorted(name for tensors in held.values() for name in tensors) == sorted(names)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert {name: index["weight_map"][name] for tensors in held.values() for name in tensors} == {
        name: file for file, tensors in held.items() for name in tensors
    }
    assert len(held) > 2
