"""No forward in training mode is random, in families that name and read their rates differently."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from codepmp_ray.modeling.dropout import without_dropout
from codepmp_ray.modeling.export import empty_export
from codepmp_ray.modeling.objectives import make_objective
from codepmp_ray.modeling.preference_model import PreferenceModel

SHAPE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
OLDER = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
# A family's rates, as its configuration calls them, and what its shape needs besides.
FAMILIES: dict[str, tuple[set[str], dict[str, Any]]] = {
    "llama": ({"attention_dropout"}, {}),
    "seed_oss": ({"attention_dropout", "residual_dropout"}, {}),
    "starcoder2": ({"attention_dropout", "residual_dropout", "embedding_dropout"}, {}),
    "phi": ({"attention_dropout", "resid_pdrop", "embd_pdrop"}, {}),
    "stablelm": ({"attention_dropout", "hidden_dropout"}, {}),
    "gpt_neox": ({"attention_dropout", "hidden_dropout"}, {}),
    "opt": (
        {"attention_dropout", "dropout", "activation_dropout", "layerdrop"},
        {"ffn_dim": 48, "word_embed_proj_dim": 32},
    ),
    "gpt2": ({"attn_pdrop", "embd_pdrop", "resid_pdrop", "summary_first_dropout"}, OLDER),
    # These ask their configuration during the forward.
    "gptj": ({"attn_pdrop", "embd_pdrop", "resid_pdrop"}, {**OLDER, "rotary_dim": 8}),
    "persimmon": ({"attention_dropout", "hidden_dropout"}, {}),
    "falcon": ({"attention_dropout", "hidden_dropout"}, {"head_dim": None}),
    "mixtral": ({"attention_dropout", "router_jitter_noise"}, EXPERTS),
}


def family(name: str) -> Any:
    """A small model in training mode, all its rates at 0.5."""
    rates, more = FAMILIES[name]
    shape = {key: value for key, value in (SHAPE | more).items() if value is not None}
    config = CONFIG_MAPPING[name](**shape | dict.fromkeys(rates, 0.5))
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).base_model.train()


def two_forwards(backbone: Any) -> list[torch.Tensor]:
    ids = torch.arange(5, 45).unsqueeze(0)
    return [backbone(input_ids=ids, use_cache=False).last_hidden_state for _ in range(2)]


@pytest.mark.parametrize("name", FAMILIES)
def test_two_forwards_in_training_mode_are_the_same(name: str) -> None:
    backbone = family(name)
    assert not torch.equal(*two_forwards(backbone)), "nothing to switch off"
    before = backbone.config
    without_dropout(backbone)
    assert torch.equal(*two_forwards(backbone))
    # The configuration that is exported has the family's own rates.
    assert {rate: getattr(before, rate) for rate in FAMILIES[name][0]} == dict.fromkeys(
        FAMILIES[name][0], 0.5
    )


def test_modules_share_one_configuration_and_keep_all_else() -> None:
    backbone = family("falcon")
    without_dropout(backbone)
    configs = [module.config for module in backbone.modules() if hasattr(module, "config")]
    assert len(configs) > 2 and all(config is backbone.config for config in configs)
    assert backbone.config.attention_dropout == 0.0 and backbone.config.hidden_size == 32
    layer = torch.nn.Sequential(torch.nn.Dropout(0.5))
    without_dropout(layer)
    assert torch.equal(layer(torch.ones(99)), torch.ones(99))


def test_the_export_has_the_dropout_that_was_loaded() -> None:
    model = PreferenceModel(family("llama"), None, make_objective("rm"))
    assert model.backbone.config.attention_dropout == 0.0
    config = empty_export(model, 0, torch.float32).config
    assert config.attention_dropout == 0.5 and config.hidden_size == 32
