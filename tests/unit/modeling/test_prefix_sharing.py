"""The packed, prefix-shared computation equals the plain one on two sequences per pair."""

import copy
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, GptOssConfig

from codepmp_ray.errors import ModelError
from codepmp_ray.modeling.objectives import make_objective
from codepmp_ray.modeling.preference_model import PreferenceModel
from codepmp_ray.preference.items import EncodedItem
from codepmp_ray.preference.packing import pack
from tests.packed_models import CONFIGS, SHAPE, distance, make_models, make_pairs

pytestmark = pytest.mark.slow

RM, PMP, DPO, SFT = (make_objective(name) for name in ("rm", "pmp", "dpo", "sft"))


def assert_same_gradients(causal_lm: torch.nn.Module, model: PreferenceModel) -> None:
    expected = dict(causal_lm.base_model.named_parameters())
    for key, parameter in model.backbone.named_parameters():
        scale = max(1.0, expected[key].grad.abs().max().item())
        assert (parameter.grad - expected[key].grad).abs().max() < 1e-10 * scale, key
    if model.lm_head is not None:
        ours, theirs = model.lm_head.weight.grad, causal_lm.lm_head.weight.grad
        assert (ours - theirs).abs().max() < 1e-10 * max(1.0, theirs.abs().max().item())


def plain_log_likelihood(causal_lm, prompt: list[int], response: list[int]) -> torch.Tensor:
    scores = plain_logits(causal_lm, prompt, response).log_softmax(dim=-1)
    return scores.gather(1, torch.tensor(response)[:, None]).sum()


def plain_logits(causal_lm, prompt: list[int], response: list[int]) -> torch.Tensor:
    logits = causal_lm(torch.tensor([prompt + response]), use_cache=False).logits
    return logits[0, len(prompt) - 1 : -1]


def plain_terms(
    causal_lm, score: torch.Tensor, pairs: list[EncodedItem]
) -> dict[str, torch.Tensor]:
    """Two sequences per pair, transformers' own attention, full logits."""
    terms = {name: score.new_zeros(()) for name in ("rm", "lm", "center")}
    for pair in pairs:
        rewards = []
        for number, response in enumerate(pair.answers):
            out = causal_lm(
                torch.tensor([pair.prompt + response]), output_hidden_states=True, use_cache=False
            )
            rewards.append(out.hidden_states[-1][0, -1] @ score[0])
            if number == 0:
                logits = out.logits[0, len(pair.prompt) - 1 : -1]
                terms["lm"] = terms["lm"] + torch.nn.functional.cross_entropy(
                    logits, torch.tensor(response), reduction="sum"
                )
        difference = rewards[0] - rewards[1] - torch.tensor(pair.margins[0])
        terms["rm"] = terms["rm"] - torch.nn.functional.logsigmoid(difference)
        terms["center"] = terms["center"] + (rewards[0] + rewards[1]) ** 2
    return terms


@pytest.mark.parametrize("name", CONFIGS)
def test_losses_and_gradients_equal_the_plain_computation_in_fp64(name: str) -> None:
    causal_lm, model = make_models(name, PMP)
    score = model.score.weight.detach().clone().requires_grad_()
    pairs = make_pairs()

    out = model(pack(pairs))
    loss = out["rm"] + out["lm"]
    loss.backward()
    terms = plain_terms(causal_lm, score, pairs)
    reference = terms["rm"] + terms["lm"]
    reference.backward()

    assert abs(loss.item() - reference.item()) < 1e-10 * max(1.0, abs(reference.item()))
    assert (model.score.weight.grad - score.grad).abs().max() < 1e-10
    assert_same_gradients(causal_lm, model)


def test_weights_of_the_losses_equal_the_plain_computation_in_fp64() -> None:
    """Table 2's weight of L_LM, rewards around zero, margins; each over its own count."""
    objective = make_objective("pmp", lm_weight=0.3, center=0.05)
    causal_lm, model = make_models("qwen2-untied", objective)
    score = model.score.weight.detach().clone().requires_grad_()
    pairs, counts = make_pairs(), {"pair": 11, "token": 170}

    loss = objective.loss(model(pack(pairs)), counts)
    loss.backward()
    terms = plain_terms(causal_lm, score, pairs)
    reference = (terms["rm"] + 0.05 * terms["center"]) / 11 + 0.3 * terms["lm"] / 170
    reference.backward()

    assert abs(loss.item() - reference.item()) < 1e-10
    assert (model.score.weight.grad - score.grad).abs().max() < 1e-10
    assert_same_gradients(causal_lm, model)


@pytest.mark.parametrize("name", ["llama-tied", "qwen2-untied", "gemma2-tied"])
def test_gradients_in_fp32_are_those_of_the_plain_computation(name: str) -> None:
    causal_lm, model = make_models(name, PMP)
    model.float()
    score = model.score.weight.detach().double().requires_grad_()
    pairs = make_pairs()

    out = model(pack(pairs))
    (out["rm"] + out["lm"]).backward()
    terms = plain_terms(causal_lm, score, pairs)
    (terms["rm"] + terms["lm"]).backward()

    expected = dict(causal_lm.base_model.named_parameters())
    ours, theirs = (
        torch.cat([grads[key].grad.flatten() for key in expected])
        for grads in (dict(model.backbone.named_parameters()), expected)
    )
    assert ours.dtype == torch.float32
    assert distance(ours, theirs) < 1e-5


@pytest.mark.parametrize("name", ["llama-tied", "qwen2-untied", "gemma2-tied", "opt-350m"])
def test_dpo_equals_the_plain_computation_in_fp64(name: str) -> None:
    causal_lm, model = make_models(name, DPO)
    pairs = [replace(pair, references=[-20.0 - i, -31.5]) for i, pair in enumerate(make_pairs())]

    out = model(pack(pairs, sides="all"))
    out["dpo"].backward()
    total = torch.zeros((), dtype=torch.float64)
    for i, pair in enumerate(pairs):
        own = slice(2 * i, 2 * i + 2)
        likelihoods = [plain_log_likelihood(causal_lm, pair.prompt, side) for side in pair.answers]
        assert torch.allclose(out["log_likelihoods"][own], torch.stack(likelihoods))
        for side, found in zip(pair.answers, out["logits"][own], strict=True):
            expected = plain_logits(causal_lm, pair.prompt, side).mean(dim=1).sum()
            assert abs(found.item() - expected.item()) < 1e-10
        ratios = [found - known for found, known in zip(likelihoods, pair.references, strict=True)]
        total = total - torch.nn.functional.logsigmoid(0.1 * (ratios[0] - ratios[1]))
    total.backward()

    assert abs(out["dpo"].item() - total.item()) < 1e-10
    assert_same_gradients(causal_lm, model)


@pytest.mark.parametrize("name", ["qwen2-untied", "opt-350m"])
def test_sft_computes_chosen_alone(name: str) -> None:
    causal_lm, model = make_models(name, SFT)
    pairs = make_pairs()
    batch = pack(pairs, sides="best_alone")
    assert batch.input_ids.shape[1] == sum(len(p.prompt) + len(p.answers[0]) for p in pairs)
    out = model(batch)
    out["lm"].backward()
    total = -sum(plain_log_likelihood(causal_lm, p.prompt, p.answers[0]) for p in pairs)
    total.backward()
    assert abs(out["lm"].item() - total.item()) < 1e-10 * total.item()
    assert_same_gradients(causal_lm, model)


def test_sides_do_not_see_each_other_nor_other_pairs() -> None:
    torch.manual_seed(0)
    causal_lm = AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS["llama-tied"]))
    model = PreferenceModel(causal_lm.base_model, None, RM)
    torch.nn.init.normal_(model.score.weight)
    pairs = make_pairs()
    together = model(pack(pairs))["rewards"]
    changed = [
        EncodedItem.of_pair("x", p.prompt, [*p.answers[0][::-1], 3], p.answers[1]) for p in pairs
    ]
    with_other_chosen = model(pack(changed))["rewards"]
    assert torch.allclose(together[1::2], with_other_chosen[1::2], atol=1e-5)
    assert not torch.allclose(together[0::2], with_other_chosen[0::2], atol=1e-3)
    alone = torch.cat([model(pack([pair]))["rewards"] for pair in pairs])
    assert torch.allclose(together, alone, atol=1e-5)


def test_reward_loss_does_not_overflow() -> None:
    from codepmp_ray.modeling.losses import listwise_loss_sum, reward_loss_sum

    rewards, pairs, ones = torch.tensor([-1e4, 1e4]), torch.tensor([[0, 1]]), torch.ones(2)
    for loss_sum in (reward_loss_sum, listwise_loss_sum):
        assert loss_sum(rewards, pairs, torch.zeros(1), ones[:1]).item() == pytest.approx(2e4)


def test_attention_sinks_are_refused_not_left_out() -> None:
    config = GptOssConfig(**SHAPE, head_dim=8, num_local_experts=2, num_experts_per_tok=1)
    model = PreferenceModel(AutoModelForCausalLM.from_config(config).base_model, None, RM)
    with pytest.raises(ModelError, match="attention sinks"):
        model(pack(make_pairs()))
