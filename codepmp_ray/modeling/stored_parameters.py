"""Which stored tensors fill which parameter, and whether any of either is left over."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from codepmp_ray.errors import ModelError
from codepmp_ray.modeling.checkpoint_checks import (
    HEAD,
    described,
    find_head,
    is_head,
    is_reward_model,
    name_unlisted,
    require_all_read,
    require_floats,
)
from codepmp_ray.modeling.checkpoint_files import LM_HEADS, CheckpointFiles
from codepmp_ray.modeling.conversions import Conversion, conversions_of, sources_of
from codepmp_ray.modeling.preference_model import PreferenceModel

_TEXT = "language_model."  # the part of a model of texts and images that is read here


@dataclass(frozen=True)
class Origins:
    """Where the parameters and buffers of a PreferenceModel are read from.

    Attributes:
        keys: by name the tensor that it is; None for a reward head to be drawn.
        conversions: what is made of other tensors, under the names of the transformers model.
        converted: by name the parameter of the transformers model in `conversions`.
    """

    keys: dict[str, str | None]
    conversions: list[Conversion]
    converted: dict[str, str]

    @property
    def read(self) -> set[str]:
        return {key for key in self.keys.values() if key} | sources_of(self.conversions)


def find_origins(model: PreferenceModel, made: Any, found: CheckpointFiles) -> Origins:
    """Where each parameter of `model` lies in the files, which hold nothing else that matters.

    `made` is the transformers model that `model` was built from. Raises ModelError for what is
    missing, is no plain number, has another shape or would not be read.
    """
    name_unlisted(found)
    origins = _origins(model, made, found)
    read = origins.read
    harmless: list[str] = list(getattr(made, "_keys_to_ignore_on_load_unexpected", None) or ())
    if any(_TEXT in key for key in read):
        harmless.append(rf"^(?!.*{re.escape(_TEXT)})")
    if model.score is None:
        read |= {key for key in found.tensors if is_head(key)}
    elif head := find_head(found, is_needed=False):
        read |= {*head.biases}
    if model.lm_head is None:
        _require_tied(model, found, origins.keys)
        harmless += [rf"(^|\.){re.escape(key)}$" for key in LM_HEADS]
    if not model.objective.has_lm:
        harmless.append(r"^(lm_head|embed_out)\.bias$")
    require_all_read(found, read, harmless)
    return origins


def _require_tied(
    model: PreferenceModel, found: CheckpointFiles, keys: dict[str, str | None]
) -> None:
    """Raise ModelError when an LM head is called tied and is stored with other values."""
    embeddings = model.backbone.get_input_embeddings().weight
    names = [name for name, parameter in model.named_parameters() if parameter is embeddings]
    stored = [key for key in LM_HEADS if key in found.tensors]
    if not (model.objective.has_lm and names and stored):
        return
    embedding = keys.get(names[0])
    if embedding and not found.look_alike(embedding, stored[0]):
        raise ModelError(
            f"{found.name}: {stored[0]} differs from {embedding}, and config.json ties them.",
            "Set tie_word_embeddings to false in config.json, or delete the one that is not meant.",
        )


def _origins(model: PreferenceModel, made: Any, found: CheckpointFiles) -> Origins:
    keys: dict[str, str | None] = {}
    others: dict[str, str] = {}  # by their name in the transformers model
    parameters = {name for name, _ in model.named_parameters()}
    state = model.state_dict()
    for name, tensor in state.items():
        if name == HEAD:
            is_needed = is_reward_model(model.backbone.config.architectures)
            head = find_head(found, is_needed=is_needed)
            keys[name] = key = head and head.weight
        else:
            names = _stored_names(model, name)
            key = next((name for name in names if name in found.tensors), None)
            if key is not None:
                keys[name] = key
            else:
                others[names[0]] = name
        if key is not None:
            _require_number(found, key, tuple(tensor.shape))
    conversions: list[Conversion] = []
    if others:
        stored = {key: tensor.shape for key, tensor in found.tensors.items()}
        conversions = [
            conversion
            for conversion in conversions_of(made, stored, found.name)
            if others.keys() & conversion.shapes.keys()
        ]
        require_floats(found, sorted(sources_of(conversions)))
    shapes = {key: shape for each in conversions for key, shape in each.shapes.items()}
    converted: dict[str, str] = {}
    for key, name in others.items():
        if key not in shapes:
            if name not in parameters:
                continue  # a buffer that is as the family makes it
            read = {key for key in keys.values() if key} | sources_of(conversions)
            raise _lacking(found, name.removeprefix("backbone."), read)
        if shapes[key] != tuple(state[name].shape):
            raise _of_another_shape(found, key, shapes[key], tuple(state[name].shape))
        converted[name] = key
    return Origins(keys, conversions, converted)


def _require_number(found: CheckpointFiles, key: str, shape: tuple[int, ...]) -> None:
    """Raise ModelError when a tensor is quantised, or of another shape (a part is not asked)."""
    require_floats(found, [key])
    tensor = found.tensors[key]
    if tensor.shape != shape and not tensor.is_part:
        raise _of_another_shape(found, key, tensor.shape, shape)


def _of_another_shape(
    found: CheckpointFiles, key: str, stored: tuple[int, ...], shape: tuple[int, ...]
) -> ModelError:
    return ModelError(
        f"{found.name}: {key} has the shape {stored}, its config.json says {shape}.",
        "The folder's files do not belong together; download or export it again.",
    )


def _lacking(found: CheckpointFiles, name: str, read: set[str]) -> ModelError:
    problem = f"{found.name} has no weights for {name}"
    others = sorted({key for key in found.tensors if not is_head(key)} - read - {*LM_HEADS})
    if not others:
        return ModelError(
            f"{problem}.", "The folder's files are incomplete; download or export it again."
        )
    return ModelError(
        f"{problem}; its files have {described(found, others)}.",
        "They are laid out for another program, or hold an adapter that was not merged; convert "
        "or merge them.",
    )


def _stored_names(model: PreferenceModel, name: str) -> list[str]:
    """Names under which transformers may have saved a parameter, that of its own model first.

    Saves without a head have no prefix, those of texts and images have one more.
    """
    if not name.startswith("backbone."):
        return [name, f"{_TEXT}{name}"]
    bare, prefix = name.removeprefix("backbone."), model.backbone.base_model_prefix
    own = f"{prefix}.{bare}"
    return [own, bare, f"{_TEXT}{own}", f"{prefix}.{_TEXT}{bare}"]
