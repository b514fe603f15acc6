"""A backbone with its heads, built without memory and filled shard by shard.

`empty_model` makes every parameter on the meta device; once FSDP has cut it (or not), `materialise`
gives each rank memory for its own part and `read_weights` reads that part, and nothing else, from
the safetensors files. So no rank ever holds the whole model. What the files lay out otherwise, such
as the experts of a mixture, is made on every rank, one parameter at a time.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError, safe_open
from torch.distributed.checkpoint.filesystem import FileSystem
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from codepmp_ray.errors import ModelError
from codepmp_ray.hub_models import hub_model
from codepmp_ray.modeling.building import is_tied, with_heads
from codepmp_ray.modeling.checkpoint_checks import is_reward_model, require_unquantised
from codepmp_ray.modeling.checkpoint_files import (
    HEAD_FILE,
    LM_HEADS,
    CheckpointFiles,
    read_headers,
    say_once,
)
from codepmp_ray.modeling.lora import initial_adapters
from codepmp_ray.modeling.objectives import Objective
from codepmp_ray.modeling.paths import choose_path
from codepmp_ray.modeling.preference_model import PreferenceModel
from codepmp_ray.modeling.sources import CONFIG_FILE, require_weights, resolve_model
from codepmp_ray.modeling.stored_parameters import Origins, find_origins
from codepmp_ray.storage import is_uri, open_store


def empty_model(
    model_name_or_path: str, objective: Objective, *, is_packed: bool = True
) -> PreferenceModel:
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
    found = _headers(model_name_or_path)
    if objective.has_lm and not is_tied(config):
        is_headless = HEAD_FILE in found.files and not found.tensors.keys() & {*LM_HEADS}
        if has_head or is_headless:
            raise ModelError(
                f"{model_name_or_path} is a reward model without an LM head, which the objective "
                f"{objective.name} needs.",
                "Start from the causal LM, or set objective=rm.",
            )
    with init_empty_weights(include_buffers=False):
        model = with_heads(made, objective, is_packed=is_packed)
    model.origins = find_origins(model, made, found)
    return model


def load_config(model_name_or_path: str) -> Any:
    """The transformers configuration; of a model of texts and images that of its text part.

    Raises ModelError when there is none that can be used, and for a quantised model.
    """
    try:
        with _config_folder(model_name_or_path) as folder:
            config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise _unusable(model_name_or_path, error) from error
    require_unquantised(model_name_or_path, config.to_dict())
    text: Any = config.get_text_config()
    if text is config or type(text) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return config
    say_once(
        f"{model_name_or_path}: only the text part ({text.model_type}) of {config.model_type} is "
        "read and exported."
    )
    text.tie_word_embeddings = config.tie_word_embeddings
    text.architectures = config.architectures
    return text


@contextmanager
def _config_folder(model_name_or_path: str) -> Iterator[str]:
    """What transformers reads a configuration from; nothing else is fetched from a store."""
    if not is_uri(model_name_or_path) or hub_model(model_name_or_path) is not None:
        yield resolve_model(model_name_or_path, weights=False)
        return
    require_weights(model_name_or_path)
    with tempfile.TemporaryDirectory() as folder:
        open_store(model_name_or_path).download(CONFIG_FILE, Path(folder) / CONFIG_FILE)
        yield folder


def materialise(model: PreferenceModel, device: torch.device) -> None:
    """Memory on `device` for what this rank holds of each parameter; values are arbitrary."""
    model._apply(lambda t: torch.empty_like(t, device=device) if t.is_meta else t.to(device))


@torch.no_grad()
def read_weights(model: PreferenceModel, model_name_or_path: str, *, seed: int) -> None:
    """Fill the parameters from safetensors; every rank reads its own part, without the others.

    A reward head that the files do not have, and adapters, are drawn from `seed`, alike for any
    number of ranks.

    Raises ModelError when files are missing, damaged, of another shape or lack a parameter.
    """
    found, origins = _headers(model_name_or_path), model.origins
    assert isinstance(origins, Origins)  # of empty_model
    wanted: dict[str, torch.Tensor] = {}
    state = model.state_dict(keep_vars=True)
    for name, key in origins.keys.items():
        parameter = state[name]
        if key is None:
            _draw(parameter, getattr(model.backbone.config, "initializer_range", 0.02), seed)
            continue
        if _holds_some(parameter):
            wanted[key] = parameter.detach()  # a rank may hold nothing of a short tensor
    for parameter, value in initial_adapters(model, seed):
        _keep_part(parameter, value)
    reader = HuggingFaceStorageReader(found.store.uri)
    reader.fs = _ListedFiles(found.files)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        # What a rank reads follows from its own shards: there is nothing to agree on.
        try:
            load(wanted, storage_reader=reader, no_dist=True)
            _convert(model, origins, found)
        except SafetensorError as error:  # damage that the headers' sizes do not show
            raise _unusable(model_name_or_path, error) from error


def _convert(model: PreferenceModel, origins: Origins, found: CheckpointFiles) -> None:
    """Make the parameters that the files lay out otherwise, and keep this rank's part of each."""
    by_key = {key: name for name, key in origins.converted.items()}
    state = model.state_dict(keep_vars=True)

    def read(key: str) -> torch.Tensor:
        path = Path(found.store.uri) / found.tensors[key].file
        with safe_open(path, framework="pt") as handle:
            return handle.get_tensor(key)

    for conversion in origins.conversions:
        targets = [state[by_key[key]] for key in conversion.shapes if key in by_key]
        if not any(map(_holds_some, targets)):
            continue
        for key, whole in conversion.run(read).items():
            if key in by_key:
                _keep_part(state[by_key[key]], whole)


def _holds_some(parameter: torch.Tensor) -> bool:
    return not isinstance(parameter, DTensor) or bool(parameter.to_local().numel())


def _keep_part(parameter: torch.Tensor, whole: torch.Tensor) -> None:
    if not isinstance(parameter, DTensor):
        parameter.copy_(whole)
        return
    shape, offset = compute_local_shape_and_global_offset(
        parameter.shape, parameter.device_mesh, parameter.placements
    )
    part = tuple(slice(start, start + size) for start, size in zip(offset, shape, strict=True))
    parameter.to_local().copy_(whole[part])


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
    """The whole model in this process, on CPU in fp32, packed where that is right (paths.py)."""
    path = choose_path(load_config(model_name_or_path), objective, torch.device("cpu"))
    model = empty_model(model_name_or_path, objective, is_packed=path.is_packed)
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
