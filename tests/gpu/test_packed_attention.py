"""FlexAttention's kernels against the dense blocks, and a model against fp64 on a CPU."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, Qwen2Config

from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.modeling.attention_blocks import AttentionRule, attend_in_blocks
from codepmp_ray.modeling.attention_flex import attend_with_flex
from codepmp_ray.modeling.objectives import make_objective
from codepmp_ray.modeling.preference_model import PreferenceModel
from codepmp_ray.preference.items import EncodedItem, join_pairs
from codepmp_ray.preference.packing import PackedLayout, pack
from codepmp_ray.training.compiling import compile_blocks
from tests import packed_models
from tests.packed_models import distance

GPU = torch.device("cuda")
SHAPE = packed_models.SHAPE | {
    "vocab_size": 997,
    "hidden_size": 192,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
}
WINDOW = 100
CONFIGS = {
    "llama-tied": LlamaConfig(**SHAPE, tie_word_embeddings=True),
    "qwen2-untied": Qwen2Config(**SHAPE, tie_word_embeddings=False),
    "gemma2-windows-and-caps": Gemma2Config(
        **SHAPE,
        head_dim=32,
        sliding_window=WINDOW,
        attn_logit_softcapping=20.0,
        final_logit_softcapping=15.0,
        query_pre_attn_scalar=32,
        tie_word_embeddings=True,
    ),
}


def make_items(num_pairs: int, longest: int = 300, seed: int = 0) -> list[EncodedItem]:
    """Pairs, and a prompt with five answers."""
    rng = random.Random(seed)

    def ids() -> list[int]:
        return [rng.randrange(1, 997) for _ in range(rng.randint(1, longest))]

    pairs = [EncodedItem.of_pair(str(i), ids(), ids(), ids(), 0.1) for i in range(num_pairs)]
    prompt, right, *wrong = (ids() for _ in range(6))
    tree = join_pairs([EncodedItem.of_pair("tree", prompt, right, one) for one in wrong])
    return [*pairs, tree]


@pytest.mark.parametrize("window", [None, WINDOW])
@pytest.mark.parametrize("soft_cap", [None, 2.0])
@pytest.mark.parametrize("sides", ["best", "best_alone"])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 2e-5), (torch.bfloat16, 1e-2)])
def test_forward_and_backward_equal_the_blocks(dtype, bound, sides, soft_cap, window) -> None:
    torch.manual_seed(0)
    batch = pack(make_items(7), sides=sides).to(GPU)
    num_tokens = batch.input_ids.shape[1]
    given = [torch.randn(1, heads, num_tokens, 64, device=GPU) for heads in (6, 2, 2, 6)]
    given = [tensor.to(dtype) for tensor in given]
    rule = AttentionRule(0.3, 0.0, window, soft_cap)

    def run(attend, dtype: torch.dtype) -> list[torch.Tensor]:
        *inputs, gradient = [tensor.to(dtype) for tensor in given]
        inputs = [tensor.detach().requires_grad_() for tensor in inputs]
        layout = PackedLayout(batch.spans, batch.position_ids)
        output = attend(*inputs, layout, rule)
        return [output.detach(), *torch.autograd.grad(output, inputs, gradient)]

    truth = run(attend_in_blocks, torch.float64)
    found = [distance(*both) for both in zip(run(attend_with_flex, dtype), truth, strict=True)]
    assert max(found) < bound


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_losses_and_gradients_equal_those_of_fp64_on_cpu(name: str, compiled: bool) -> None:
    torch.manual_seed(0)
    causal_lm = AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS[name]), dtype=torch.float32)
    head = None if causal_lm.config.tie_word_embeddings else causal_lm.lm_head
    here = PreferenceModel(causal_lm.base_model, head, make_objective("pmp"))
    torch.nn.init.normal_(here.score.weight)
    there = copy.deepcopy(here).to(GPU)
    compile_blocks(there, TrainingConfig(torch_compile=compiled), GPU)
    batch = pack(make_items(5))

    truth = here.double()(batch)
    (truth["rm"] + truth["lm"] / 100).backward()
    found = there(batch.to(GPU))
    (found["rm"] + found["lm"] / 100).backward()

    # transformers computes norms in fp32 whatever the model's type.
    assert distance(found["rewards"].cpu(), truth["rewards"]) < 1e-4
    assert float(found["lm"]) == pytest.approx(float(truth["lm"]), rel=1e-5)
    ours = torch.cat([parameter.grad.flatten().cpu() for parameter in there.parameters()])
    theirs = torch.cat([parameter.grad.flatten() for parameter in here.parameters()])
    assert distance(ours, theirs) < 1e-3


def test_packs_of_any_length_are_compiled_once() -> None:
    counters = torch._dynamo.utils.counters
    torch.manual_seed(0)
    causal_lm = AutoModelForCausalLM.from_config(CONFIGS["qwen2-untied"], dtype=torch.float32)
    model = PreferenceModel(causal_lm.base_model, causal_lm.lm_head, make_objective("pmp")).to(GPU)
    compile_blocks(model, TrainingConfig(), GPU)
    num_graphs = []
    for number in range(8):
        sums = model(pack(make_items(2 + number, seed=number)).to(GPU))
        (sums["rm"] + sums["lm"]).backward()
        num_graphs.append(counters["stats"]["unique_graphs"])
    assert num_graphs[0] > 0
    assert num_graphs[-1] == num_graphs[2], num_graphs
