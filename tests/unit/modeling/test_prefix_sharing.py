"""The packed, prefix-shared computation equals the plain one on two sequences per pair."""

import copy
import random

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, Qwen2Config

from codepmp_ray.errors import ModelError
from codepmp_ray.modeling.losses import lm_loss_sum
from codepmp_ray.modeling.preference_model import PreferenceModel
from codepmp_ray.preference.packing import EncodedPair, pack

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
CONFIGS = {
    "llama-tied": LlamaConfig(**SHAPE, tie_word_embeddings=True),
    "qwen2-untied": Qwen2Config(**SHAPE, tie_word_embeddings=False),
}


def make_pairs() -> list[EncodedPair]:
    rng = random.Random(1)

    def ids(count: int) -> list[int]:
        return [rng.randrange(VOCABULARY) for _ in range(count)]

    return [EncodedPair(str(i), ids(5 + i), ids(1 + 4 * i), ids(9 - 2 * i), 0.1) for i in range(4)]


class ExactNorm(torch.nn.Module):
    """transformers' RMSNorm without its detour through fp32, so that fp64 can show exactness."""

    def __init__(self, norm: torch.nn.Module) -> None:
        super().__init__()
        self.weight, self.epsilon = norm.weight, norm.variance_epsilon

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        variance = hidden.square().mean(-1, keepdim=True)
        return self.weight * hidden * torch.rsqrt(variance + self.epsilon)


def in_fp64(model: torch.nn.Module) -> torch.nn.Module:
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__.endswith("RMSNorm"):
                setattr(parent, name, ExactNorm(child))
    return model.double()


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
    torch.manual_seed(0)
    causal_lm = in_fp64(AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS[name])))
    causal_lm.set_attn_implementation("sdpa")
    ours = copy.deepcopy(causal_lm)
    tied = causal_lm.config.tie_word_embeddings
    model = PreferenceModel(ours.base_model, None if tied else ours.lm_head).double()
    torch.nn.init.normal_(model.score.weight)
    score = model.score.weight.detach().clone().requires_grad_()
    pairs = make_pairs()

    out = model(pack(pairs), with_lm=True)
    loss = out["rm_sum"] + out["lm_sum"]
    loss.backward()
    reference = plain_loss(causal_lm, score, pairs)
    reference.backward()

    assert abs(loss.item() - reference.item()) < 1e-10
    assert (model.score.weight.grad - score.grad).abs().max() < 1e-10
    expected = dict(causal_lm.base_model.named_parameters())
    for key, parameter in model.backbone.named_parameters():
        assert (parameter.grad - expected[key].grad).abs().max() < 1e-10, key
    if not tied:
        assert (model.lm_head.weight.grad - causal_lm.lm_head.weight.grad).abs().max() < 1e-10


def test_sides_do_not_see_each_other_nor_other_pairs() -> None:
    torch.manual_seed(0)
    causal_lm = AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS["llama-tied"]))
    model = PreferenceModel(causal_lm.base_model, None)
    torch.nn.init.normal_(model.score.weight)
    pairs = make_pairs()
    together = model(pack(pairs), with_lm=False)
    changed = [
        EncodedPair("x", p.prompt, [*p.chosen[::-1], 3], p.rejected, p.margin) for p in pairs
    ]
    with_other_chosen = model(pack(changed), with_lm=False)
    assert torch.allclose(
        together["rejected_rewards"], with_other_chosen["rejected_rewards"], atol=1e-5
    )
    assert not torch.allclose(
        together["chosen_rewards"], with_other_chosen["chosen_rewards"], atol=1e-3
    )
    alone = torch.cat([model(pack([pair]), with_lm=False)["chosen_rewards"] for pair in pairs])
    assert torch.allclose(together["chosen_rewards"], alone, atol=1e-5)


def test_chunked_lm_loss_equals_the_whole() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(23, 16, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(31, 16, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(31, (23,))
    chunked = lm_loss_sum(hidden, weight, targets, chunk_size=5)
    whole = torch.nn.functional.cross_entropy(hidden @ weight.T, targets, reduction="sum")
    assert torch.allclose(chunked, whole)
    ours = torch.autograd.grad(chunked, [hidden, weight])
    theirs = torch.autograd.grad(whole, [hidden, weight])
    assert all(torch.allclose(a, b) for a, b in zip(ours, theirs, strict=True))


def test_reward_loss_does_not_overflow() -> None:
    from codepmp_ray.modeling.losses import reward_loss_sum

    loss = reward_loss_sum(torch.tensor([-1e4]), torch.tensor([1e4]), torch.zeros(1))
    assert torch.isfinite(loss) and loss.item() == pytest.approx(2e4)


def test_soft_capped_attention_is_refused_not_computed_wrongly() -> None:
    config = Gemma2Config(**SHAPE, head_dim=8)
    backbone = AutoModelForCausalLM.from_config(config).base_model
    with pytest.raises(ModelError, match="caps attention"):
        PreferenceModel(backbone, None)
