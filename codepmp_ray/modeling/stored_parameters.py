"""Which stored tensor fills which parameter, and whether one of either is left over."""

from __future__ import annotations

import re
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
from codepmp_ray.modeling.preference_model import PreferenceModel


def require_whole(model: PreferenceModel, made: Any, found: CheckpointFiles) -> None:
    """Raise ModelError unless the files hold what the model needs, and nothing else that matters.

    `made` is the transformers model that `model` was built from.
    """
    name_unlisted(found)
    keys = stored_keys(model, found)
    read = {key for key in keys.values() if key}
    harmless: list[str] = list(getattr(made, "_keys_to_ignore_on_load_unexpected", None) or ())
    if model.score is None:
        read |= {key for key in found.tensors if is_head(key)}
    elif head := find_head(found, is_needed=False):
        read |= {*head.biases}
    if model.lm_head is None:
        _require_tied(model, found, keys)
        harmless += [f"^{re.escape(key)}$" for key in LM_HEADS]
    if not model.objective.has_lm:
        harmless.append(r"^(lm_head|embed_out)\.bias$")
    require_all_read(found, read, harmless)


def _require_tied(
    model: PreferenceModel, found: CheckpointFiles, keys: dict[str, str | None]
) -> None:
    """Raise ModelError when an LM head is called tied and is stored with other values."""
    embeddings = model.backbone.get_input_embeddings().weight
    names = [name for name, parameter in model.named_parameters() if parameter is embeddings]
    stored = [key for key in LM_HEADS if key in found.tensors]
    if not (model.objective.has_lm and names and stored):
        return
    embedding = keys[names[0]]
    if embedding and not found.look_alike(embedding, stored[0]):
        raise ModelError(
            f"{found.name}: {stored[0]} differs from {embedding}, and config.json ties them.",
            "Set tie_word_embeddings to false in config.json, or delete the one that is not meant.",
        )


def stored_keys(model: PreferenceModel, found: CheckpointFiles) -> dict[str, str | None]:
    """Parameter -> the tensor that it is read from; None for a reward head to be drawn.

    Raises ModelError when a parameter has no tensor, or one that is no plain number.
    """
    keys: dict[str, str | None] = {}
    missing = []
    for name, parameter in model.named_parameters():
        if name == HEAD:
            is_needed = is_reward_model(model.backbone.config.architectures)
            head = find_head(found, is_needed=is_needed)
            key = head and head.weight
        else:
            names = _stored_names(model, name)
            key = next((name for name in names if name in found.tensors), None)
            if key is None:
                missing.append(name.removeprefix("backbone."))
        if key is not None:
            _require_number(found, key, tuple(parameter.shape))
        keys[name] = key
    if missing:
        raise _lacking(found, missing[0], {key for key in keys.values() if key})
    return keys


def _require_number(found: CheckpointFiles, key: str, shape: tuple[int, ...]) -> None:
    """Raise ModelError when a tensor is quantised, or of another shape (a part is not asked)."""
    require_floats(found, [key])
    tensor = found.tensors[key]
    if tensor.shape != shape and not tensor.is_part:
        raise ModelError(
            f"{found.name}: {key} has the shape {tensor.shape}, its config.json says {shape}.",
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
    """Names under which transformers may have saved a parameter; headless saves have no prefix."""
    if not name.startswith("backbone."):
        return [name]
    bare = name.removeprefix("backbone.")
    return [f"{model.backbone.base_model_prefix}.{bare}", bare]
