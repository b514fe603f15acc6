"""How far a model is from plain transformers with the same weights, on a few items."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from codepmp_ray.modeling.checkpoint_files import HEAD
from codepmp_ray.modeling.export import export_config, export_kind, exported_name
from codepmp_ray.modeling.plain_reference import plain_sums
from codepmp_ray.modeling.preference_model import PreferenceModel
from codepmp_ray.preference.items import EncodedItem
from codepmp_ray.preference.packing import pack

GRADIENTS, EXPORT = "gradients", "the export's rewards"
# How the quantities are called where people read them.
NAMES = {"rm": "L_RM", "lm": "L_LM", "dpo": "L_DPO", "center": "the centring term"}


def differences(
    causal_lm: Any, model: PreferenceModel, items: list[EncodedItem]
) -> dict[str, float]:
    """Largest relative differences by quantity: rewards, losses, gradients.

    `causal_lm` is the transformers model with the weights of `model`; each parameter's gradient is
    compared as a vector. Gradients of both are there afterwards.
    """
    objective = model.objective
    counts = objective.counts(items)
    device = next(model.parameters()).device
    score = None
    if model.score is not None:
        score = model.score.weight.detach().clone().requires_grad_()
    for module in (causal_lm, model):
        module.zero_grad()
    expected = plain_sums(causal_lm, score, items, objective)
    objective.loss(expected, counts).backward()
    found = model(pack(items, sides=objective.sides).to(device))
    objective.loss(found, counts).backward()
    told = {"rewards", "log_likelihoods", *(term.name for term in objective.terms)}
    result = {
        NAMES.get(name, name.replace("_", " ")): _distance(found[name].detach(), value.detach())
        for name, value in expected.items()
        if name in told
    }
    result[GRADIENTS] = _worst_gradient(causal_lm, model, score)
    return result


def _worst_gradient(causal_lm: Any, model: PreferenceModel, score: torch.Tensor | None) -> float:
    theirs = dict(causal_lm.named_parameters(remove_duplicate=False))
    pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
    for name, parameter in model.named_parameters():
        other = score if name == HEAD else theirs[exported_name(name, causal_lm)]
        assert other is not None  # both have a head or none has
        pairs.append((_gradient(parameter), _gradient(other)))
    largest = max(float(expected.norm()) for _, expected in pairs)
    least = largest * 1e-3  # a gradient that is zero by theory has no relative error
    return max(
        _finite(float((found - expected).norm()) / max(float(expected.norm()), least))
        for found, expected in pairs
    )


@torch.no_grad()
def export_difference(model: PreferenceModel, items: list[EncodedItem]) -> dict[str, float]:
    """The same of the rewards that others compute with the export; empty where only we can."""
    if model.score is None or export_kind(model) is not AutoModelForSequenceClassification:
        return {}
    parameter = next(model.parameters())
    device, dtype = parameter.device, parameter.dtype
    with torch.random.fork_rng(devices=[]):
        plain: Any = AutoModelForSequenceClassification.from_config(
            export_config(model, 0, dtype), dtype=dtype
        )
    plain.to(device).eval()
    state = {exported_name(name, plain): value for name, value in model.state_dict().items()}
    plain.load_state_dict(state, strict=False)
    rows = [item.prompt + answer for item in items for answer in item.answers]
    found = [
        plain(input_ids=torch.tensor([ids], device=device), use_cache=False).logits[0, 0]
        for ids in rows
    ]
    expected = model(pack(items).to(device))["rewards"]
    return {EXPORT: _distance(torch.stack(found).to(expected.dtype), expected)}


def _gradient(parameter: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return _finite(float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-12)))


def _finite(difference: float) -> float:
    """Infinite where either side is not finite: max() may pass a NaN over."""
    return difference if difference == difference else float("inf")
