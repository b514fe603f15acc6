"""A backbone with its heads, built without memory and filled shard by shard.

`empty_model` makes every parameter on the meta device; once FSDP has cut it (or not), `materialise`
gives each rank memory for its own part and `read_weights` reads that part, and nothing else, from
the safetensors files. So no rank ever holds the whole model.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.tensor import DTensor, distribute_tensor
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

_SCORE = "score.weight"


def empty_model(model_name_or_path: str, objective: Objective) -> PreferenceModel:
    """The model with parameters on the meta device, in fp32; buffers are real.

    Raises ModelError when there is no usable configuration, or when `objective` needs an LM head
    that the weights do not have.
    """
    config = load_config(model_name_or_path)
    is_reward_model = _is_reward_model(config)
    kind = AutoModelForSequenceClassification if is_reward_model else AutoModelForCausalLM
    config.dtype = torch.float32
    try:
        with init_empty_weights(include_buffers=False):
            made: Any = kind.from_config(config, dtype=torch.float32)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise _unusable(model_name_or_path, error) from error
    if objective.has_lm and is_reward_model and not _is_tied(config):
        raise ModelError(
            f"{model_name_or_path} is a reward model without an LM head, which the objective "
            f"{objective.name} needs.",
            "Start from the causal LM, or set objective=rm.",
        )
    with init_empty_weights(include_buffers=False):
        return _with_heads(made, objective)


def model_from_config(config: Any, objective: Objective) -> PreferenceModel:
    """A model of this shape with arbitrary weights, in fp32; for plans and benchmarks."""
    model = _with_heads(AutoModelForCausalLM.from_config(config, dtype=torch.float32), objective)
    if model.score is not None:
        torch.nn.init.normal_(model.score.weight, std=0.02)
    return model


def _with_heads(made: Any, objective: Objective) -> PreferenceModel:
    untied = objective.has_lm and not _is_tied(made.config)
    return PreferenceModel(
        made.base_model, made.get_output_embeddings() if untied else None, objective
    )


def _is_tied(config: Any) -> bool:
    return bool(config.get_text_config().tie_word_embeddings)


def load_config(model_name_or_path: str) -> Any:
    """The transformers configuration. Raises ModelError when there is none that can be used."""
    try:
        return AutoConfig.from_pretrained(resolve_model(model_name_or_path))
    except (OSError, ValueError, KeyError) as error:
        raise _unusable(model_name_or_path, error) from error


def materialise(model: PreferenceModel, device: torch.device) -> None:
    """Memory on `device` for what this rank holds of each parameter; values are arbitrary."""
    model._apply(lambda t: torch.empty_like(t, device=device) if t.is_meta else t.to(device))


@torch.no_grad()
def read_weights(model: PreferenceModel, model_name_or_path: str, *, seed: int) -> None:
    """Fill the parameters from safetensors; every rank reads its own part, without the others.

    A reward head that the files do not have is drawn from `seed`, alike for any number of ranks.

    Raises ModelError when files are missing, damaged, of another shape or lack a parameter.
    """
    folder = local_folder(model_name_or_path)
    try:
        reader = HuggingFaceStorageReader(str(folder))
        metadata = reader.read_metadata().state_dict_metadata
    except Exception as error:  # safetensors raises an Exception of its own kind
        raise _unusable(model_name_or_path, error) from error
    stored = {
        name: tuple(item.size)
        for name, item in metadata.items()
        if isinstance(item, TensorStorageMetadata)
    }
    wanted: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        key = next((key for key in _stored_names(model, name) if key in stored), None)
        if key is not None:
            expected = tuple(parameter.shape)
            if stored[key] != expected:
                raise ModelError(
                    f"{model_name_or_path}: {key} has the shape {stored[key]}, its config.json "
                    f"says {expected}.",
                    "The folder's files do not belong together; download or export it again.",
                )
            if not isinstance(parameter, DTensor) or parameter.to_local().numel():
                wanted[key] = parameter.detach()  # a rank may hold nothing of a short tensor
        elif name == _SCORE:
            _draw(parameter, getattr(model.backbone.config, "initializer_range", 0.02), seed)
        else:
            raise ModelError(
                f"{model_name_or_path} has no weights for {name.removeprefix('backbone.')}.",
                "The folder's files are incomplete; download or export it again.",
            )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        # What a rank reads follows from its own shards: there is nothing to agree on.
        load(wanted, storage_reader=reader, no_dist=True)


def load_preference_model(
    model_name_or_path: str, objective: Objective, *, seed: int
) -> PreferenceModel:
    """The whole model in this process, on CPU in fp32."""
    model = empty_model(model_name_or_path, objective)
    materialise(model, torch.device("cpu"))
    read_weights(model, model_name_or_path, seed=seed)
    return model


def local_folder(model_name_or_path: str) -> Path:
    """The folder with the model's safetensors, downloaded once per machine for a hub id.

    Raises ModelError when there are none: weights in pickle form are not loaded.
    """
    resolved = resolve_model(model_name_or_path)
    folder = Path(resolved)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        try:
            folder = Path(snapshot_download(resolved, allow_patterns=["*.json", "*.safetensors"]))
        except Exception as error:  # the hub's client raises many kinds, not all of them its own
            raise _unusable(model_name_or_path, error) from error
    if not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"{model_name_or_path} has no *.safetensors files.",
            "Convert the weights with save_pretrained; pickled weights are not loaded.",
        )
    return folder


def load_tokenizer(model_name_or_path: str) -> Any:
    """The model's tokenizer. Raises ModelError when it cannot be loaded."""
    try:
        return AutoTokenizer.from_pretrained(resolve_model(model_name_or_path))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"Cannot load the tokenizer of {model_name_or_path!r}: "
            f"{str(error).strip().splitlines()[0]}"
        ) from error


def _stored_names(model: PreferenceModel, name: str) -> list[str]:
    """Names under which transformers may have saved a parameter; headless saves have no prefix."""
    if not name.startswith("backbone."):
        return [name]
    bare = name.removeprefix("backbone.")
    return [f"{model.backbone.base_model_prefix}.{bare}", bare]


def _draw(parameter: torch.Tensor, std: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(parameter.shape, generator=generator) * std
    if isinstance(parameter, DTensor):
        whole = values.to(parameter.device)
        mine = distribute_tensor(whole, parameter.device_mesh, parameter.placements)
        parameter.to_local().copy_(mine.to_local())
    else:
        parameter.copy_(values)


def _is_reward_model(config: Any) -> bool:
    names = config.architectures or []
    return any(name.endswith("ForSequenceClassification") for name in names)


def _unusable(model_name_or_path: str, error: Exception) -> ModelError:
    return ModelError(
        f"Cannot load the model {model_name_or_path!r}: "
        f"{(str(error).strip() or repr(error)).splitlines()[0]}",
        "Check the name, the network or the folder's files.",
    )
