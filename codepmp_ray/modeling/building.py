"""A PreferenceModel around the modules of a transformers model."""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM

from codepmp_ray.errors import ModelError
from codepmp_ray.modeling.logit_rule import logit_rule_of
from codepmp_ray.modeling.objectives import Objective
from codepmp_ray.modeling.preference_model import PreferenceModel


def require_causal_lm(config: Any) -> None:
    """Raise ModelError where transformers has no causal LM for the configuration."""
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ModelError(
            f"transformers has no causal language model for {config.model_type}.",
            "Choose a decoder-only backbone such as Llama, Qwen or Gemma.",
        )


def model_from_config(
    config: Any, objective: Objective, *, is_packed: bool = True
) -> PreferenceModel:
    """A model of this shape with arbitrary weights, in fp32; for plans and benchmarks."""
    made = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model = with_heads(made, objective, is_packed=is_packed)
    if model.score is not None:
        torch.nn.init.normal_(model.score.weight, std=0.02)
    return model


def with_heads(made: Any, objective: Objective, *, is_packed: bool = True) -> PreferenceModel:
    """The PreferenceModel around the modules of a transformers model, which it changes."""
    if made.base_model is made:
        raise ModelError(
            f"{type(made).__name__} has no {made.base_model_prefix} inside, which would be its "
            "decoder without head."
        )
    logits = None
    if objective.has_lm:
        causal_lm = made
        if made.get_output_embeddings() is None:  # a sequence classifier, whose embeddings are tied
            with torch.device("meta"):
                causal_lm = AutoModelForCausalLM.from_config(copy.deepcopy(made.config))
        logits = logit_rule_of(causal_lm)
    untied = objective.has_lm and not is_tied(made.config)
    return PreferenceModel(
        made.base_model,
        made.get_output_embeddings() if untied else None,
        objective,
        is_packed=is_packed,
        logits=logits,
    )


def is_tied(config: Any) -> bool:
    """Whether the LM head is the input embeddings."""
    return bool(getattr(config.get_text_config(), "tie_word_embeddings", False))
