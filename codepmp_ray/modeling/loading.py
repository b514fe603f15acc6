"""Load a backbone with its heads from a causal LM or from an exported reward model."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from codepmp_ray.errors import ModelError
from codepmp_ray.modeling.objectives import Objective
from codepmp_ray.modeling.preference_model import PreferenceModel
from codepmp_ray.modeling.sources import resolve_model


def load_preference_model(
    model_name_or_path: str,
    objective: Objective,
    *,
    seed: int,
    dtype: torch.dtype = torch.float32,
) -> PreferenceModel:
    """The model on CPU. A fresh reward head is drawn from `seed`, alike on every rank.

    Raises ModelError when the weights cannot be loaded or lack the LM head that `objective` needs.
    """
    folder = resolve_model(model_name_or_path)
    try:
        config = AutoConfig.from_pretrained(folder)
        is_reward_model = any(
            name.endswith("ForSequenceClassification") for name in config.architectures or []
        )
        loader = AutoModelForSequenceClassification if is_reward_model else AutoModelForCausalLM
        loaded: Any = loader.from_pretrained(folder, dtype=dtype)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"Cannot load the model {model_name_or_path!r}: {str(error).strip().splitlines()[0]}",
            "Check the name, the network or the folder's files.",
        ) from error
    tied = bool(loaded.config.tie_word_embeddings)
    if objective.has_lm and is_reward_model and not tied:
        raise ModelError(
            f"{model_name_or_path} is a reward model without an LM head, which the objective "
            f"{objective.name} needs.",
            "Start from the causal LM, or set objective=rm.",
        )
    lm_head: nn.Module | None = None
    if objective.has_lm and not tied:
        lm_head = loaded.get_output_embeddings()
    model = PreferenceModel(loaded.base_model, lm_head, objective)
    if model.score is None:
        return model.to(dtype)
    with torch.no_grad():
        if is_reward_model:
            model.score.weight.copy_(loaded.score.weight)
        else:
            generator = torch.Generator().manual_seed(seed)
            std = getattr(loaded.config, "initializer_range", 0.02)
            model.score.weight.copy_(
                torch.randn(model.score.weight.shape, generator=generator) * std
            )
    return model.to(dtype)


def load_tokenizer(model_name_or_path: str) -> Any:
    """The model's tokenizer. Raises ModelError when it cannot be loaded."""
    try:
        return AutoTokenizer.from_pretrained(resolve_model(model_name_or_path))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"Cannot load the tokenizer of {model_name_or_path!r}: "
            f"{str(error).strip().splitlines()[0]}"
        ) from error
