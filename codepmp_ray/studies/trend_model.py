"""Small models of random weights, for trends where no trained one of that size can be had."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path
from typing import Any

from codepmp_ray.config.base import fingerprint
from codepmp_ray.config.study_materials import ModelConfig
from codepmp_ray.errors import StorageError

_MAX_POSITIONS = 2048


def random_model(config: ModelConfig, models_dir: Path) -> Path:
    """The folder of the model of this shape, made if it is not there.

    Raises ModelError when the tokenizer cannot be loaded, StorageError without space.
    """
    folder = models_dir / f"{config.architecture}-{fingerprint(config.before_training)}"
    if (folder / "config.json").is_file():
        return folder
    scratch = models_dir / f".{uuid.uuid4().hex}"
    try:
        scratch.mkdir(parents=True)
        _write(config, scratch)
        os.rename(scratch, folder)
    except OSError as error:
        if not (folder / "config.json").is_file():
            raise StorageError(f"Cannot write a model to {folder}: {error.strerror}.") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def num_parameters(folder: str | Path) -> int:
    """Of the causal language model in `folder`, tied weights once."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from codepmp_ray.modeling.sources import resolve_model

    config = AutoConfig.from_pretrained(resolve_model(str(folder), weights=False))
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    return sum(parameter.numel() for parameter in model.parameters())


def _write(config: ModelConfig, folder: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from codepmp_ray.modeling.loading import load_tokenizer

    tokenizer = load_tokenizer(config.tokenizer)
    fields: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.hidden_size // config.num_attention_heads,
        "max_position_embeddings": _MAX_POSITIONS,
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    torch.manual_seed(config.seed)
    shape = AutoConfig.for_model(config.architecture, **fields)
    AutoModelForCausalLM.from_config(shape, dtype=torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
