"""Factors and caps of logits are found by asking the family's own forward."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from benchmarks._families import family
from codepmp_ray.modeling.logit_rule import LogitRule, logit_rule_of


def asked(name: str, **changes: float) -> LogitRule:
    config = family(name).config()
    for key, value in changes.items():
        setattr(config, key, value)
    with torch.device("meta"):
        return logit_rule_of(AutoModelForCausalLM.from_config(config))


@pytest.mark.parametrize(
    ("name", "changes", "scale", "soft_cap"),
    [
        ("llama", {}, 1.0, None),
        ("granite", {"logits_scaling": 8.0}, 1 / 8, None),
        ("cohere", {"logit_scale": 0.0625}, 0.0625, None),
        ("gemma2", {"final_logit_softcapping": 30.0}, 1.0, 30.0),
        ("gemma2", {"final_logit_softcapping": None}, 1.0, None),
        ("minicpm3", {}, None, None),
        ("qwen3_moe", {}, 1.0, None),
        ("nanochat", {"final_logit_softcapping": 15.0}, 1.0, 15.0),
    ],
)
def test_rules_are_those_of_the_configuration(
    name: str, changes: dict[str, float], scale: float | None, soft_cap: float | None
) -> None:
    rule = asked(name, **changes)
    if scale is None:  # MiniCPM3 divides what the head reads, by a number of its sizes
        config = family(name).config()
        scale = config.dim_model_base / config.hidden_size
    assert rule.scale == pytest.approx(scale, rel=1e-5)
    assert rule.soft_cap == soft_cap


def test_a_soft_cap_under_a_name_of_its_own_is_found() -> None:
    rule = asked("recurrent_gemma", logits_soft_cap=20.0)
    assert rule.scale == 1.0 and rule.soft_cap == pytest.approx(20.0, rel=1e-5)


def test_what_cannot_be_asked_has_the_soft_cap_of_its_configuration() -> None:
    model = AutoModelForCausalLM.from_config(family("gemma2").config())
    model.forward = lambda **kwargs: 1 / 0
    assert logit_rule_of(model) == LogitRule(1.0, 30.0)


def test_asking_leaves_the_model_as_it_was() -> None:
    model = AutoModelForCausalLM.from_config(family("llama").config())
    before = dict(model.named_modules())
    logit_rule_of(model)
    assert dict(model.named_modules()) == before
