"""A backbone with its heads, built without memory and filled shard by shard.

`empty_model` makes every parameter on the meta device; once FSDP has cut it (or not), `materialise`
gives each rank memory for its own part and `read_weights` reads that part, and nothing else, from
the safetensors files. So no rank ever holds the whole model.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError
from torch.distributed.checkpoint.filesystem import FileSystem
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from codepmp_ray.errors import ModelError
from codepmp_ray.modeling.checkpoint_checks import is_reward_model, require_unquantised
from codepmp_ray.modeling.checkpoint_files import CheckpointFiles, read_headers
from codepmp_ray.modeling.objectives import Objective
from codepmp_ray.modeling.preference_model import PreferenceModel
from codepmp_ray.modeling.sources import resolve_model
from codepmp_ray.modeling.stored_parameters import require_whole, stored_keys
from codepmp_ray.storage import open_store


def empty_model(model_name_or_path: str, objective: Objective) -> PreferenceModel:
    """The model with parameters on the meta device, in fp32; buffers are real.

    Raises ModelError when there is no usable configuration, when `objective` needs an LM head that
    the weights do not have, and when the files' headers show that they are not, or not only, the
    weights of this model (checkpoint_checks.py).
    """
    config = load_config(model_name_or_path)
    has_head = is_reward_model(config.architectures)
    kind = AutoModelForSequenceClassification if has_head else AutoModelForCausalLM
    config.dtype = torch.float32
    try:
        with init_empty_weights(include_buffers=False):
            made: Any = kind.from_config(config, dtype=torch.float32)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise _unusable(model_name_or_path, error) from error
    if objective.has_lm and has_head and not _is_tied(config):
        raise ModelError(
            f"{model_name_or_path} is a reward model without an LM head, which the objective "
            f"{objective.name} needs.",
            "Start from the causal LM, or set objective=rm.",
        )
    with init_empty_weights(include_buffers=False):
        model = _with_heads(made, objective)
    require_whole(model, made, _headers(model_name_or_path))
    return model


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
    """The transformers configuration.

    Raises ModelError when there is none that can be used, and for a quantised model.
    """
    try:
        folder = resolve_model(model_name_or_path, weights=False)
        config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise _unusable(model_name_or_path, error) from error
    require_unquantised(model_name_or_path, config.to_dict())
    return config


def materialise(model: PreferenceModel, device: torch.device) -> None:
    """Memory on `device` for what this rank holds of each parameter; values are arbitrary."""
    model._apply(lambda t: torch.empty_like(t, device=device) if t.is_meta else t.to(device))


@torch.no_grad()
def read_weights(model: PreferenceModel, model_name_or_path: str, *, seed: int) -> None:
    """Fill the parameters from safetensors; every rank reads its own part, without the others.

    A reward head that the files do not have is drawn from `seed`, alike for any number of ranks.

    Raises ModelError when files are missing, damaged, of another shape or lack a parameter.
    """
    found = _headers(model_name_or_path)
    keys = stored_keys(model, found)
    wanted: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        key = keys[name]
        if key is None:
            _draw(parameter, getattr(model.backbone.config, "initializer_range", 0.02), seed)
            continue
        if not isinstance(parameter, DTensor) or parameter.to_local().numel():
            wanted[key] = parameter.detach()  # a rank may hold nothing of a short tensor
    reader = HuggingFaceStorageReader(found.store.uri)
    reader.fs = _ListedFiles(found.files)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        # What a rank reads follows from its own shards: there is nothing to agree on.
        try:
            load(wanted, storage_reader=reader, no_dist=True)
        except SafetensorError as error:  # damage that the headers' sizes do not show
            raise _unusable(model_name_or_path, error) from error


class _ListedFiles(FileSystem):
    """For a reader that would read every safetensors file of a folder."""

    def __init__(self, files: tuple[str, ...]) -> None:
        self._files = files

    def ls(self, path: str | os.PathLike[str]) -> list[str]:
        return [os.path.join(path, file) for file in self._files]


def _headers(model_name_or_path: str) -> CheckpointFiles:
    return read_headers(open_store(resolve_model(model_name_or_path)), model_name_or_path)


def load_preference_model(
    model_name_or_path: str, objective: Objective, *, seed: int
) -> PreferenceModel:
    """The whole model in this process, on CPU in fp32."""
    model = empty_model(model_name_or_path, objective)
    materialise(model, torch.device("cpu"))
    read_weights(model, model_name_or_path, seed=seed)
    return model


def load_tokenizer(model_name_or_path: str) -> Any:
    """The model's tokenizer. Raises ModelError when it cannot be loaded."""
    try:
        return AutoTokenizer.from_pretrained(resolve_model(model_name_or_path, weights=False))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"Cannot load the tokenizer of {model_name_or_path!r}: "
            f"{str(error).strip().splitlines()[0]}"
        ) from error


def _draw(parameter: torch.Tensor, std: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(parameter.shape, generator=generator) * std
    if isinstance(parameter, DTensor):
        whole = values.to(parameter.device)
        mine = distribute_tensor(whole, parameter.device_mesh, parameter.placements)
        parameter.to_local().copy_(mine.to_local())
    else:
        parameter.copy_(values)


def _unusable(model_name_or_path: str, error: Exception) -> ModelError:
    return ModelError(
        f"Cannot load the model {model_name_or_path!r}: "
        f"{(str(error).strip() or repr(error)).splitlines()[0]}",
        "Check the name, the network or the folder's files.",
    )
