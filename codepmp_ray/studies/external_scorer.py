"""A reward model of others as the judge of answers: any one-label sequence classifier.

Such as OpenAssistant/reward-model-deberta-v3-large-v2, from the hub or a folder. It reads question
and answer as two segments, or as its tokenizer puts them together.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from codepmp_ray.errors import ModelError
from codepmp_ray.hub_models import is_hub_id
from codepmp_ray.modeling.sources import resolve_model
from codepmp_ray.studies.measures import Floats
from codepmp_ray.studies.policies import device_of_models
from codepmp_ray.studies.sets import is_hub_reachable
from codepmp_ray.training.settled_heap import returned_heap

_ROWS_AT_ONCE = 16
_CONVERT = (
    "Name a folder that save_pretrained wrote, or a hub id; weights in pickle form are not loaded: "
    "convert them with save_pretrained."
)


def require_scorer(name: str) -> None:
    """Raise ModelError for a folder that is no classifier in safetensors; a hub id is not asked."""
    if not is_hub_id(name):
        _load(name)


def available_scorer(name: str | None) -> str | None:
    """The recipe's scorer, if it can be had: a folder, or a model of a hub that answers."""
    return name if name and (not is_hub_id(name) or is_hub_reachable()) else None


def scorer_name(name: str) -> str:
    """For reports: without where a folder lies on this machine."""
    return name if is_hub_id(name) else Path(name).name


@returned_heap()
def external_rewards(name: str, questions: Sequence[str], texts: Sequence[str]) -> Floats:
    """[texts] rewards of `texts` as answers to `questions`, by the classifier `name`.

    What is longer than the classifier takes is cut by its tokenizer, the longer of the two texts
    first. Raises ModelError when it cannot be loaded or has not exactly one label.
    """
    import torch

    model, tokenizer = _load(name)
    device = device_of_models()
    model.to(device).eval()
    # Without a token to pad with, or told which one it is, decoders read the wrong end of a row.
    can_pad = tokenizer.pad_token_id is not None and model.config.pad_token_id is not None
    at_once = _ROWS_AT_ONCE if can_pad else 1
    found: list[float] = []
    with torch.inference_mode():
        for start in range(0, len(texts), at_once):
            some = slice(start, start + at_once)
            batch = tokenizer(
                list(questions[some]),
                list(texts[some]),
                return_tensors="pt",
                padding=can_pad,
                truncation=True,
                max_length=_max_length(model, tokenizer),
            ).to(device)
            found += model(**batch).logits[:, 0].float().tolist()
    return np.array(found)


def _load(name: str) -> tuple[Any, Any]:
    """(classifier in fp32, its tokenizer)."""
    from safetensors import SafetensorError
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = resolve_model(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        # The overloads do not know that loading information makes it two values.
        made: Any = AutoModelForSequenceClassification.from_pretrained(
            folder, use_safetensors=True, output_loading_info=True, dtype="float32"
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        problem = " ".join(str(error).split())[:300]
        raise ModelError(f"The scorer {name} cannot be loaded: {problem}.", _CONVERT) from error
    model, info = made
    if model.config.num_labels != 1:
        raise ModelError(
            f"The scorer {name} has {model.config.num_labels} labels, and a reward model has one.",
            "Name a sequence classifier with num_labels=1.",
        )
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            f"The scorer {name} has no weights for {missing[0]}: its rewards would be random.",
            "Name a sequence classifier, and not the language model that it was made of.",
        )
    return model, tokenizer


def _max_length(model: Any, tokenizer: Any) -> int:
    """Tokens that both take; a tokenizer without a limit says an astronomical number."""
    most = getattr(model.config, "max_position_embeddings", None) or sys.maxsize
    return min(tokenizer.model_max_length, most)
