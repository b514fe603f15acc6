"""Where decoders differ: blocks, width, learned positions; OPT beside the usual ones."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM

from benchmarks._families import family
from codepmp_ray.errors import ModelError
from codepmp_ray.modeling.backbones import (
    blocks_of,
    num_learned_positions,
    output_size,
    require_positions,
)
from codepmp_ray.modeling.objectives import make_objective
from codepmp_ray.preference.packing import pack
from codepmp_ray.training.throughput import FlopCounter
from tests.packed_models import CONFIGS, make_models, make_pairs


def backbone_of(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS[name])).base_model


@pytest.mark.parametrize(("name", "width"), [("llama-tied", 48), ("opt", 48), ("opt-350m", 20)])
def test_blocks_and_the_width_of_what_heads_read(name: str, width: int) -> None:
    backbone = backbone_of(name)
    assert len(list(blocks_of(backbone))) == 3
    hidden = backbone(input_ids=torch.tensor([[5, 6]])).last_hidden_state
    assert hidden.shape[-1] == output_size(backbone.config) == width


def test_a_model_without_blocks_is_refused() -> None:
    backbone = torch.nn.Linear(2, 2)
    backbone.config = SimpleNamespace(num_hidden_layers=2)
    with pytest.raises(ModelError, match="Linear has no list of layers"):
        blocks_of(backbone)


def test_positions_that_were_never_learned_are_refused() -> None:
    assert num_learned_positions(backbone_of("llama-tied")) is None
    require_positions(backbone_of("llama-tied"), 10**6)
    require_positions(backbone_of("opt"), 40)
    with pytest.raises(ModelError, match=r"max_length=41 exceeds the 40 positions.*max_length=40"):
        require_positions(backbone_of("opt"), 41)


@pytest.mark.parametrize("name", ["gpt2", "falcon", "gpt_neox", "mpt", "qwen3_moe", "gpt_oss"])
def test_blocks_are_found_by_their_number(name: str) -> None:
    backbone = AutoModelForCausalLM.from_config(family(name).config()).base_model
    blocks = list(blocks_of(backbone))
    assert len(blocks) == 3
    assert sum(p.numel() for block in blocks for p in block.parameters()) > 3 * 64 * 64 * 4


@pytest.mark.parametrize(
    ("name", "limit"), [("llama, dynamic rope", 512), ("phi3, longrope", 256), ("gpt2", 512)]
)
def test_positions_that_depend_on_the_longest_neighbour_are_refused(name: str, limit: int) -> None:
    backbone = AutoModelForCausalLM.from_config(family(name).config()).base_model
    require_positions(backbone, limit)
    with pytest.raises(ModelError, match=rf"max_length={limit + 1}(.|\n)*Set max_length={limit}"):
        require_positions(backbone, limit + 1)


def test_arithmetic_counts_no_look_up_and_the_head_at_its_width() -> None:
    _, model = make_models("opt-350m", make_objective("pmp"))
    counter = FlopCounter.of(model)
    block = 4 * 48 * 48 + 2 * 48 * 64
    assert counter.num_weights == 3 * block + 2 * 20 * 48  # and the two projections
    assert counter.num_head_weights == 97 * 20
    assert counter.count(make_pairs()) > 0
    assert model(pack(make_pairs()))["rewards"].shape == (8,)
