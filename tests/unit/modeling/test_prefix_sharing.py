"""The packed, prefix-shared computation equals the plain one on two sequences per pair."""

import copy
import random
from dataclasses import replace

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GptOssConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
    T5Config,
)
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.errors import ConfigError, ModelError
from codepmp_ray.modeling.attention import require_supported
from codepmp_ray.modeling.attention_blocks import AttentionRule, attend_in_blocks
from codepmp_ray.modeling.attention_cpu import attend_fused
from codepmp_ray.modeling.attention_flex import attend_with_flex
from codepmp_ray.modeling.block_mask import block_mask, may_attend, visible_blocks
from codepmp_ray.modeling.lm_loss import (
    _compiled_loss_and_slope,
    _loss_and_slope,
    lm_loss_sum,
    token_log_likelihoods,
)
from codepmp_ray.modeling.objectives import Objective, make_objective
from codepmp_ray.modeling.preference_model import PreferenceModel
from codepmp_ray.preference.packing import EncodedPair, PackedLayout, pack
from codepmp_ray.training.compiling import compile_blocks

VOCABULARY = 97
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}
WINDOW = 6  # shorter than prompt + response of most pairs
SLIDING = {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}
CONFIGS = {
    "llama-tied": LlamaConfig(**SHAPE, tie_word_embeddings=True),
    "llama3.2-tied": LlamaConfig(
        **SHAPE,
        tie_word_embeddings=True,
        head_dim=8,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 5e5,
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    ),
    "qwen2-untied": Qwen2Config(**SHAPE, tie_word_embeddings=False),
    "qwen2-sliding": Qwen2Config(**SHAPE, **SLIDING, tie_word_embeddings=True),
    "qwen3-untied": Qwen3Config(**SHAPE, head_dim=8, tie_word_embeddings=False),
    "mistral-sliding": MistralConfig(**SHAPE, sliding_window=WINDOW, tie_word_embeddings=False),
    "gemma2-tied": Gemma2Config(
        **SHAPE,
        head_dim=8,
        sliding_window=WINDOW,
        attn_logit_softcapping=2.0,
        final_logit_softcapping=1.5,
        query_pre_attn_scalar=10,
        tie_word_embeddings=True,
    ),
    "gemma3-tied": Gemma3TextConfig(
        **SHAPE, head_dim=8, sliding_window=WINDOW, tie_word_embeddings=True
    ),
}
RM, PMP, DPO, SFT = (make_objective(name) for name in ("rm", "pmp", "dpo", "sft"))


def make_pairs() -> list[EncodedPair]:
    rng = random.Random(1)

    def ids(count: int) -> list[int]:
        return [rng.randrange(VOCABULARY) for _ in range(count)]

    return [EncodedPair(str(i), ids(5 + i), ids(1 + 4 * i), ids(9 - 2 * i), 0.1) for i in range(4)]


class ExactNorm(torch.nn.Module):
    """transformers' RMSNorm without its detour through fp32, so that fp64 can show exactness."""

    def __init__(self, norm: torch.nn.Module) -> None:
        super().__init__()
        self.weight = norm.weight
        self.epsilon = getattr(norm, "variance_epsilon", None) or norm.eps
        # Gemma stores its weight as the difference from one.
        self.offset = 1.0 if "Gemma" in type(norm).__name__ else 0.0

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        variance = hidden.square().mean(-1, keepdim=True)
        return (self.weight + self.offset) * hidden * torch.rsqrt(variance + self.epsilon)


def in_fp64(model: torch.nn.Module) -> torch.nn.Module:
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__.endswith("RMSNorm"):
                setattr(parent, name, ExactNorm(child))
    return model.double()


def plain_attention(
    module, query, key, value, attention_mask, scaling=None, dropout=0.0, softcap=None, **kwargs
):
    """transformers' eager attention, with its softmax in the precision of its input."""
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    scores = query @ key.transpose(2, 3) * scaling
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    weights = (scores + attention_mask).softmax(dim=-1)
    return (weights @ value).transpose(1, 2).contiguous(), weights


ALL_ATTENTION_FUNCTIONS.register("plain_fp64", plain_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register("plain_fp64", eager_mask)


def make_models(name: str, objective: Objective) -> tuple[torch.nn.Module, PreferenceModel]:
    """transformers' own causal LM, and ours with the same weights; both in fp64."""
    torch.manual_seed(0)
    causal_lm = in_fp64(AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS[name])))
    for parameter in causal_lm.parameters():
        torch.nn.init.normal_(parameter, std=0.2)  # far from the symmetric start
    ours = copy.deepcopy(causal_lm)
    causal_lm.set_attn_implementation("plain_fp64")
    head = None if causal_lm.config.tie_word_embeddings else ours.lm_head
    model = PreferenceModel(ours.base_model, head, objective).double()
    if model.score is not None:
        torch.nn.init.normal_(model.score.weight)
    return causal_lm, model


def assert_same_gradients(causal_lm: torch.nn.Module, model: PreferenceModel) -> None:
    expected = dict(causal_lm.base_model.named_parameters())
    for key, parameter in model.backbone.named_parameters():
        scale = max(1.0, expected[key].grad.abs().max().item())
        assert (parameter.grad - expected[key].grad).abs().max() < 1e-10 * scale, key
    if model.lm_head is not None:
        ours, theirs = model.lm_head.weight.grad, causal_lm.lm_head.weight.grad
        assert (ours - theirs).abs().max() < 1e-10 * max(1.0, theirs.abs().max().item())


def plain_log_likelihood(causal_lm, prompt: list[int], response: list[int]) -> torch.Tensor:
    logits = causal_lm(torch.tensor([prompt + response]), use_cache=False).logits
    scores = logits[0, len(prompt) - 1 : -1].log_softmax(dim=-1)
    return scores.gather(1, torch.tensor(response)[:, None]).sum()


def plain_loss(causal_lm, score: torch.Tensor, pairs: list[EncodedPair]) -> torch.Tensor:
    """Two sequences per pair, transformers' own attention, full logits."""
    total = score.new_zeros(())
    for pair in pairs:
        rewards = []
        for response in (pair.chosen, pair.rejected):
            out = causal_lm(
                torch.tensor([pair.prompt + response]), output_hidden_states=True, use_cache=False
            )
            rewards.append(out.hidden_states[-1][0, -1] @ score[0])
            if response is pair.chosen:
                logits = out.logits[0, len(pair.prompt) - 1 : -1]
                total = total + torch.nn.functional.cross_entropy(
                    logits, torch.tensor(response), reduction="sum"
                )
        difference = rewards[0] - rewards[1] - torch.tensor(pair.margin)
        total = total - torch.nn.functional.logsigmoid(difference)
    return total


@pytest.mark.parametrize("name", CONFIGS)
def test_losses_and_gradients_equal_the_plain_computation_in_fp64(name: str) -> None:
    causal_lm, model = make_models(name, PMP)
    score = model.score.weight.detach().clone().requires_grad_()
    pairs = make_pairs()

    out = model(pack(pairs))
    loss = out["rm"] + out["lm"]
    loss.backward()
    reference = plain_loss(causal_lm, score, pairs)
    reference.backward()

    assert abs(loss.item() - reference.item()) < 1e-10 * max(1.0, abs(reference.item()))
    assert (model.score.weight.grad - score.grad).abs().max() < 1e-10
    assert_same_gradients(causal_lm, model)


@pytest.mark.parametrize("name", ["llama-tied", "qwen2-untied", "gemma2-tied"])
def test_dpo_equals_the_plain_computation_in_fp64(name: str) -> None:
    causal_lm, model = make_models(name, DPO)
    pairs = [replace(pair, reference=(-20.0 - i, -31.5)) for i, pair in enumerate(make_pairs())]

    out = model(pack(pairs, sides="both"))
    out["dpo"].backward()
    total = torch.zeros((), dtype=torch.float64)
    for i, pair in enumerate(pairs):
        likelihoods = [
            plain_log_likelihood(causal_lm, pair.prompt, side)
            for side in (pair.chosen, pair.rejected)
        ]
        assert torch.allclose(out["log_likelihoods"][i], torch.stack(likelihoods))
        ratios = [found - known for found, known in zip(likelihoods, pair.reference, strict=True)]
        total = total - torch.nn.functional.logsigmoid(0.1 * (ratios[0] - ratios[1]))
    total.backward()

    assert abs(out["dpo"].item() - total.item()) < 1e-10
    assert_same_gradients(causal_lm, model)


def test_sft_computes_chosen_alone() -> None:
    causal_lm, model = make_models("qwen2-untied", SFT)
    pairs = make_pairs()
    batch = pack(pairs, sides="chosen_alone")
    assert batch.input_ids.shape[1] == sum(len(p.prompt) + len(p.chosen) for p in pairs)
    out = model(batch)
    out["lm"].backward()
    total = -sum(plain_log_likelihood(causal_lm, p.prompt, p.chosen) for p in pairs)
    total.backward()
    assert abs(out["lm"].item() - total.item()) < 1e-10 * total.item()
    assert_same_gradients(causal_lm, model)


@pytest.mark.parametrize("window", [None, WINDOW])
@pytest.mark.parametrize("soft_cap", [None, 2.0])
@pytest.mark.parametrize("sides", ["chosen", "chosen_alone"])
def test_the_kernel_for_gpus_equals_the_blocks(window, soft_cap, sides) -> None:
    """FlexAttention runs forward on CPU: the same mask function and scores as on a GPU."""
    torch.manual_seed(0)
    batch = pack(make_pairs(), sides=sides)
    layout = PackedLayout(batch.spans, batch.position_ids)
    num_tokens = batch.input_ids.shape[1]
    query = torch.randn(1, 4, num_tokens, 16)
    key, value = torch.randn(2, 1, 2, num_tokens, 16).unbind(0)
    arguments = (query, key, value, layout, AttentionRule(0.3, 0.0, window, soft_cap))
    assert torch.allclose(attend_with_flex(*arguments), attend_in_blocks(*arguments), atol=1e-5)


@pytest.mark.parametrize("size", [4, 16])
@pytest.mark.parametrize("window", [None, WINDOW, 2 * WINDOW])
@pytest.mark.parametrize("sides", ["chosen", "chosen_alone"])
def test_block_masks_say_what_the_rule_says_of_their_tokens(sides, window, size) -> None:
    """Nothing that is seen is left out, and what counts as seen by all is."""
    batch = pack([*make_pairs(), EncodedPair("long", [1] * 19, [2] * 70, [3] * 41)], sides=sides)
    layout = PackedLayout(batch.spans, batch.position_ids)
    num_tokens = batch.input_ids.shape[1]
    place = torch.arange(num_tokens)
    seen = may_attend(layout, window)(place, place, place[:, None], place[None, :])
    num_blocks = -(-num_tokens // size)
    padded = torch.zeros(num_blocks * size, num_blocks * size, dtype=torch.bool)
    padded[:num_tokens, :num_tokens] = seen
    by_block = padded.view(num_blocks, size, num_blocks, size).transpose(1, 2).flatten(2)
    some, whole = visible_blocks(batch.spans, num_tokens, window, size)
    assert (by_block.any(-1) <= some).all()
    assert (whole <= by_block.all(-1)).all()
    if window is None:
        assert some.equal(by_block.any(-1))
        assert whole.any()
    else:
        assert some.sum() < visible_blocks(batch.spans, num_tokens, None, size)[0].sum()


def test_a_block_mask_has_the_blocks_in_torchs_own_form() -> None:
    from torch.nn.attention.flex_attention import create_block_mask

    pairs = [EncodedPair(str(i), [1] * 90, [2] * (40 + 90 * i), [3] * 333) for i in range(4)]
    batch = pack(pairs)
    layout = PackedLayout(batch.spans, batch.position_ids)
    num_tokens = batch.input_ids.shape[1]
    rule = may_attend(layout, None)
    theirs = create_block_mask(rule, None, None, num_tokens, num_tokens, "cpu")
    ours = block_mask(layout, None)
    assert ours.to_dense().equal(theirs.to_dense())
    assert ours.seq_lengths == theirs.seq_lengths and ours.shape == theirs.shape


@pytest.mark.parametrize("window", [None, WINDOW])
@pytest.mark.parametrize("sides", ["chosen", "chosen_alone"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_one_step_of_autograd_equals_the_blocks_that_autograd_sees(window, sides, dtype) -> None:
    """In bf16 the fused backward pass is the nearer one to the truth."""
    torch.manual_seed(0)
    batch = pack(make_pairs(), sides=sides)
    layout = PackedLayout(batch.spans, batch.position_ids)
    num_tokens = batch.input_ids.shape[1]
    rule = AttentionRule(0.3, 0.0, window, None)
    # As a backbone hands them over: [T, heads, d] in memory.
    given = [torch.randn(1, num_tokens, heads, 16).bfloat16() for heads in (4, 2, 2, 4)]

    def run(attend, dtype: torch.dtype) -> list[torch.Tensor]:
        *inputs, gradient = [tensor.to(dtype).transpose(1, 2) for tensor in given]
        inputs = [tensor.detach().requires_grad_() for tensor in inputs]
        output = attend(*inputs, layout, rule)
        assert output.shape == inputs[0].shape and output.dtype == dtype
        return [output.detach(), *torch.autograd.grad(output, inputs, gradient)]

    truth = run(attend_in_blocks, torch.float64)
    fused = [_distance(*both) for both in zip(run(attend_fused, dtype), truth, strict=True)]
    if dtype == torch.bfloat16:
        plain = [_distance(*both) for both in zip(run(attend_in_blocks, dtype), truth, strict=True)]
        assert sum(fused) < sum(plain)
        assert max(fused) < 3e-3
    else:
        assert max(fused) < (1e-14 if dtype == torch.float64 else 1e-6)


def _distance(found: torch.Tensor, truth: torch.Tensor) -> float:
    return float((found.double() - truth).norm() / truth.norm())


def test_sides_do_not_see_each_other_nor_other_pairs() -> None:
    torch.manual_seed(0)
    causal_lm = AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS["llama-tied"]))
    model = PreferenceModel(causal_lm.base_model, None, RM)
    torch.nn.init.normal_(model.score.weight)
    pairs = make_pairs()
    together = model(pack(pairs))["rewards"]
    changed = [
        EncodedPair("x", p.prompt, [*p.chosen[::-1], 3], p.rejected, p.margin) for p in pairs
    ]
    with_other_chosen = model(pack(changed))["rewards"]
    assert torch.allclose(together[:, 1], with_other_chosen[:, 1], atol=1e-5)
    assert not torch.allclose(together[:, 0], with_other_chosen[:, 0], atol=1e-3)
    alone = torch.cat([model(pack([pair]))["rewards"] for pair in pairs])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("soft_cap", [None, 2.0])
@pytest.mark.parametrize("method", ["sum", "tokens"])
def test_chunked_lm_loss_equals_the_whole(method, soft_cap) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(23, 16, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(31, 16, dtype=torch.float64, requires_grad=True)
    arguments = (hidden, weight, targets := torch.randint(31, (23,)))
    if method == "sum":
        chunked = lm_loss_sum(*arguments, soft_cap=soft_cap, chunk_size=5)
    else:
        chunked = -token_log_likelihoods(*arguments, soft_cap=soft_cap, chunk_size=5).sum()
    logits = hidden @ weight.T
    logits = logits if soft_cap is None else soft_cap * torch.tanh(logits / soft_cap)
    whole = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    assert torch.allclose(chunked, whole, rtol=1e-12)
    ours = torch.autograd.grad(chunked / 7, [hidden, weight])
    theirs = torch.autograd.grad(whole / 7, [hidden, weight])
    assert all(torch.allclose(a, b, rtol=1e-10) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.skipif(" " in torch.__file__, reason="torch does not quote its own folder to g++")
def test_what_gpus_compile_of_the_lm_loss_equals_what_runs_here() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(7, 31).bfloat16(), torch.randint(31, (7, 1))
    here = _loss_and_slope(logits, targets, None)
    compiled = _compiled_loss_and_slope()(logits, targets, None)
    assert all(
        torch.allclose(*both, rtol=1e-2, atol=1e-3) for both in zip(here, compiled, strict=True)
    )
    assert compiled[1].dtype == torch.bfloat16


@pytest.mark.skipif(" " in torch.__file__, reason="torch does not quote its own folder to g++")
def test_compiled_blocks_equal_plain_ones_at_every_length() -> None:
    results = []
    for torch_compile in (False, True):
        _, model = make_models("qwen2-untied", PMP)
        for norm in [m for m in model.modules() if isinstance(m, ExactNorm)]:
            assert norm.weight.dtype == torch.float64
        config = TrainingConfig(torch_compile=torch_compile)
        names = list(dict(model.named_parameters()))
        compile_blocks(model, config, torch.device("cpu"))
        assert list(dict(model.named_parameters())) == names
        for pairs in (make_pairs(), make_pairs()[1:3], make_pairs()[2:]):
            out = model(pack(pairs))
            (out["rm"] + out["lm"]).backward()
        gradients = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
        results.append((float(out["rm"]), gradients))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-12)
    assert _distance(results[1][1], results[0][1]) < 1e-12


def test_compiling_on_cpu_in_a_folder_with_a_space_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(torch, "__file__", "/a folder/torch/__init__.py")
    _, model = make_models("llama-tied", RM)
    with pytest.raises(ConfigError, match="a folder with a space"):
        compile_blocks(model, TrainingConfig(torch_compile=True), torch.device("cpu"))
    compile_blocks(model, TrainingConfig(), torch.device("cpu"))


def test_reward_loss_does_not_overflow() -> None:
    from codepmp_ray.modeling.losses import reward_loss_sum

    loss = reward_loss_sum(torch.tensor([-1e4]), torch.tensor([1e4]), torch.zeros(1))
    assert torch.isfinite(loss) and loss.item() == pytest.approx(2e4)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (LlamaConfig(**SHAPE, layer_types=["chunked_attention"] * 3), "chunked_attention"),
        (T5Config(**{**SHAPE, "d_model": 48}), "no causal decoder"),
    ],
)
def test_backbones_that_would_be_computed_wrongly_are_refused(config, words) -> None:
    with pytest.raises(ModelError, match=words):
        require_supported(config)


def test_attention_sinks_are_refused_not_left_out() -> None:
    config = GptOssConfig(**SHAPE, head_dim=8, num_local_experts=2, num_experts_per_tok=1)
    model = PreferenceModel(AutoModelForCausalLM.from_config(config).base_model, None, RM)
    with pytest.raises(ModelError, match="attention sinks"):
        model(pack(make_pairs()))
