"""One pass over a prompt with N answers equals one sequence per answer, and packs of its pairs.

The reference computes each answer in a forward of its own, under transformers' own attention, and
each loss pair by pair in Python: it has nothing of the product but the ids.
"""

from __future__ import annotations

import copy
import random
from dataclasses import replace
from math import exp, log

import pytest
import torch

from codepmp_ray.modeling.losses import listwise_loss_sum
from codepmp_ray.modeling.objectives import Objective, make_objective
from codepmp_ray.modeling.preference_model import PreferenceModel
from codepmp_ray.preference.items import EncodedItem, join_pairs, split_item
from codepmp_ray.preference.packing import pack
from tests.packed_models import VOCABULARY, distance, make_models

pytestmark = pytest.mark.slow

Pair = tuple[int, int]
# All right against all wrong, a ranking, and pairs of which no answer is the best.
SHAPES: list[tuple[int, list[Pair]]] = [
    (4, [(0, 1), (0, 2), (0, 3)]),
    (7, [(right, wrong) for right in (0, 1, 2) for wrong in (3, 4, 5, 6)]),
    (4, [(0, 1), (1, 2), (2, 3), (0, 3)]),
    (3, [(0, 1), (1, 0), (2, 1), (1, 2)]),
    (2, [(1, 0)]),
]
SETTINGS = [
    {"lm_weight": 0.3, "center": 0.05},
    {"is_per_prompt": True, "center": 0.05},
    {"is_listwise": True},
    {"is_listwise": True, "is_per_prompt": True},
]


def pairs_of_items() -> list[list[EncodedItem]]:
    """The pairs of each shape, as rows give them."""
    rng = random.Random(3)

    def ids(count: int) -> list[int]:
        return [rng.randrange(2, VOCABULARY) for _ in range(count)]

    found = []
    for number, (num_answers, pairs) in enumerate(SHAPES):
        prompt, answers = ids(4 + 2 * number), [ids(rng.randint(1, 9)) for _ in range(num_answers)]
        found.append(
            [
                EncodedItem.of_pair(
                    f"{number}-{i}", prompt, answers[one], answers[other], rng.choice([0.0, 0.25])
                )
                for i, (one, other) in enumerate(pairs)
            ]
        )
    return found


def reference_loss(causal_lm, score, items: list[list[EncodedItem]], objective: Objective):
    """(loss over the whole, rewards by sequence): rows, lists and weights spelled out."""
    rewards: dict[tuple[int, ...], torch.Tensor] = {}
    nll: dict[tuple[int, ...], torch.Tensor] = {}
    terms = {name: torch.zeros((), dtype=torch.float64) for name in ("rm", "center", "lm")}
    num_ranked, num_pairs, num_tokens = 0.0, 0.0, 0
    for pairs in items:
        ranked: dict[tuple[int, ...], list[tuple[tuple[int, ...], float]]] = {}
        beaten = {(*pair.prompt, *pair.answers[1]) for pair in pairs}
        for pair in pairs:
            keys = []
            for answer in pair.answers:
                keys.append(key := (*pair.prompt, *answer))
                if key in rewards:
                    continue
                out = causal_lm(torch.tensor([key]), output_hidden_states=True, use_cache=False)
                rewards[key] = out.hidden_states[-1][0, -1] @ score[0]
                log_p = out.logits[0, len(pair.prompt) - 1 : -1].log_softmax(dim=-1)
                nll[key] = -sum(log_p[i, token] for i, token in enumerate(answer))
            weight = 1 / len(pairs) if objective.is_per_prompt else 1
            one, other = (rewards[key] for key in keys)
            terms["center"] = terms["center"] + weight * (one + other) ** 2
            num_pairs += weight
            if not objective.is_listwise:
                gap = one - other - torch.tensor(pair.margins[0])
                terms["rm"] = terms["rm"] + weight * torch.log1p(torch.exp(-gap))
                num_ranked += weight
            ranked.setdefault(keys[0], []).append((keys[1], pair.margins[0]))
        for key, others in ranked.items():
            if objective.is_listwise:
                weight = 1 / len(ranked) if objective.is_per_prompt else 1
                scores = [rewards[key], *(rewards[k] + torch.tensor(m) for k, m in others)]
                share = torch.exp(scores[0]) / sum(torch.exp(value) for value in scores)
                terms["rm"] = terms["rm"] - weight * torch.log(share)
                num_ranked += weight
            if key not in beaten:
                terms["lm"] = terms["lm"] + nll[key]
                num_tokens += len(key) - len(pairs[0].prompt)
    weights = {term.name: term.weight for term in objective.terms}
    loss = weights["rm"] * terms["rm"] / num_ranked
    loss = loss + weights.get("center", 0.0) * terms["center"] / num_pairs
    return loss + weights.get("lm", 0.0) * terms["lm"] / num_tokens, rewards


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in model.named_parameters()
    }


def assert_close(found: dict[str, torch.Tensor], truth: dict[str, torch.Tensor]) -> None:
    for name, value in truth.items():
        scale = max(1.0, float(value.abs().max()))
        assert (found[name] - value).abs().max() < 1e-10 * scale, name


def plain_path(causal_lm, packed: PreferenceModel) -> PreferenceModel:
    other = copy.deepcopy(causal_lm)
    head = None if packed.lm_head is None else other.lm_head
    model = PreferenceModel(other.base_model, head, packed.objective, is_packed=False).double()
    model.load_state_dict(packed.state_dict())
    return model


@pytest.mark.parametrize("objective", SETTINGS)
@pytest.mark.parametrize(
    ("name", "is_packed"), [("gemma2-tied", True), ("gemma2-tied", False), ("qwen2-untied", True)]
)
def test_losses_rewards_and_gradients_equal_rows_of_their_own_in_fp64(
    name: str, objective: dict, is_packed: bool
) -> None:
    causal_lm, model = make_models(name, make_objective("pmp", **objective))
    if not is_packed:
        model = plain_path(causal_lm, model)
    score = model.score.weight.detach().clone().requires_grad_()
    rows = pairs_of_items()
    items = [join_pairs(pairs) for pairs in rows]

    out = model(pack(items))
    loss = model.objective.loss(out, model.objective.counts(items))
    loss.backward()
    truth, rewards = reference_loss(causal_lm, score, rows, model.objective)
    truth.backward()

    assert abs(loss.item() - truth.item()) < 1e-10 * max(1.0, abs(truth.item()))
    keys = [(*item.prompt, *answer) for item in items for answer in item.answers]
    assert len(keys) == len(rewards)
    expected = torch.stack([rewards[key] for key in keys])
    assert (out["rewards"] - expected).abs().max() < 1e-10
    assert (model.score.weight.grad - score.grad).abs().max() < 1e-10
    assert_close(gradients(model.backbone), gradients(causal_lm.base_model))
    if model.lm_head is not None:
        assert (model.lm_head.weight.grad - causal_lm.lm_head.weight.grad).abs().max() < 1e-10


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_pairs_in_items_of_their_own_and_split_items_give_the_same(dtype: torch.dtype) -> None:
    """The reward losses; L_LM of pairs counts a best answer once for each of its pairs."""
    bound = 1e-12 if dtype == torch.float64 else 1e-5
    rows = pairs_of_items()
    items = [join_pairs(pairs) for pairs in rows]
    small = [part for item in items for part in split_item(item, 24)]
    assert len(items) < len(small)
    for name, settings in (("rm", SETTINGS[0]), ("rm", SETTINGS[1]), ("pmp", SETTINGS[0])):
        _, model = make_models("llama-tied", make_objective(name, **settings))
        model.to(dtype)
        objective, found = model.objective, []
        ways = [items, small] if name == "pmp" else [items, small, _alone(rows)]
        for some in ways:
            model.zero_grad()
            objective.loss(model(pack(some)), objective.counts(items)).backward()
            parts = [parameter.grad.flatten() for parameter in model.parameters()]
            found.append(torch.cat(parts).double())
            assert objective.counts(some)["pair"] == pytest.approx(objective.counts(items)["pair"])
        assert max(distance(other, found[0]) for other in found[1:]) < bound


def test_parts_whose_best_answers_are_in_other_steps_have_no_likelihood_to_learn() -> None:
    _, model = make_models("llama-tied", make_objective("pmp"))
    part = split_item(join_pairs(pairs_of_items()[0]), 1)[1]
    assert part.best == [] and model.objective.counts([part])["token"] == 0
    out = model(pack([part]))
    loss = model.objective.loss(out, model.objective.counts([part]))
    loss.backward()
    assert loss.item() == out["rm"].item() > 0 == out["lm"].item()
    assert all(value.isfinite().all() for value in gradients(model).values())


def _alone(rows: list[list[EncodedItem]]) -> list[EncodedItem]:
    return [
        replace(pair, num_pairs=len(pairs), num_lists=join_pairs(pairs).num_lists)
        for pairs in rows
        for pair in pairs
    ]


def test_dpo_compares_any_pairs_of_the_answers_likelihoods_in_fp64() -> None:
    causal_lm, model = make_models("llama-tied", make_objective("dpo"))
    items = [join_pairs(pairs) for pairs in pairs_of_items()]
    items = [
        replace(item, references=[-20.0 - i for i in range(len(item.answers))]) for item in items
    ]
    out = model(pack(items, sides="all"))
    out["dpo"].backward()
    total, likelihoods = torch.zeros((), dtype=torch.float64), []
    for item in items:
        own = []
        for answer in item.answers:
            logits = causal_lm(torch.tensor([item.prompt + answer]), use_cache=False).logits[0]
            log_p = logits[len(item.prompt) - 1 : -1].log_softmax(dim=-1)
            own.append(sum(log_p[i, token] for i, token in enumerate(answer)))
        likelihoods += own
        for one, other in item.pairs:
            gaps = [own[place] - item.references[place] for place in (one, other)]
            total = total + torch.log1p(torch.exp(-0.1 * (gaps[0] - gaps[1])))
    total.backward()
    assert (out["log_likelihoods"] - torch.stack(likelihoods)).abs().max() < 1e-10
    assert abs(out["dpo"].item() - total.item()) < 1e-10
    assert_close(gradients(model.backbone), gradients(causal_lm.base_model))


def test_sft_computes_the_best_answers_alone_and_the_prompt_once() -> None:
    causal_lm, model = make_models("qwen2-untied", make_objective("sft"))
    items = [item for item in map(join_pairs, pairs_of_items()) if item.best]
    batch = pack(items, sides="best_alone")
    best = [(item.prompt, [item.answers[place] for place in item.best]) for item in items]
    assert [len(answers) for _, answers in best] == [1, 3, 1, 1]
    assert batch.input_ids.shape[1] == sum(len(p) + sum(map(len, a)) for p, a in best)
    out = model(batch)
    out["lm"].backward()
    total = torch.zeros((), dtype=torch.float64)
    for prompt, answers in best:
        for answer in answers:
            logits = causal_lm(torch.tensor([prompt + answer]), use_cache=False).logits[0]
            log_p = logits[len(prompt) - 1 : -1].log_softmax(dim=-1)
            total = total - sum(log_p[i, token] for i, token in enumerate(answer))
    total.backward()
    assert abs(out["lm"].item() - total.item()) < 1e-10 * total.item()
    assert_close(gradients(model.backbone), gradients(causal_lm.base_model))


def test_a_list_of_one_is_a_pair_and_longer_ones_are_their_softmax() -> None:
    rewards = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    pairs = torch.tensor([[0, 1], [0, 2], [2, 1]])
    margins = torch.tensor([0.5, 0.0, 0.0])
    found = listwise_loss_sum(rewards, pairs, margins, torch.tensor([1.0, 7.0, 2.0]))
    of_first = log(exp(0.3) + exp(-0.5) + exp(2.0)) - 0.3
    of_last = log(exp(2.0) + exp(-1.0)) - 2.0
    assert found.item() == pytest.approx(of_first + 2 * of_last, abs=1e-12)


def test_one_forward_for_each_micro_batch_however_many_answers() -> None:
    """Ranks wait for each other at every block: all have to do as many forwards."""
    causal_lm, packed = make_models("llama-tied", make_objective("rm"))
    for model in (packed, plain_path(causal_lm, packed)):
        seen: list[dict] = []
        model.backbone.register_forward_pre_hook(
            lambda module, args, kwargs, seen=seen: seen.append(kwargs), with_kwargs=True
        )
        model(pack([join_pairs(pairs) for pairs in pairs_of_items()]))
        assert len(seen) == 1
