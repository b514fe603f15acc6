"""What lies in a checkpoint's files and would not be in the model is refused or named.

A checkpoint that is read in part gives a model that looks whole and is garbage: quantised weights
without their scales, a reward head under another name, the layers of a larger model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from codepmp_ray.errors import ModelError
from codepmp_ray.hub_models import HEAD_FILES, is_hub_id
from codepmp_ray.modeling.checkpoint_files import (
    HEAD,
    CheckpointFiles,
    read_headers,
    say_once,
)
from codepmp_ray.modeling.sources import CONFIG_FILE, model_store, require_weights

_QUANTISATION = ("quantization_config", "compression_config", "quantization")
_DEQUANTISE = (
    "Give the checkpoint in bf16 that it was quantised from, or dequantise it and save it anew."
)
_FLOATS = ("F64", "F32", "F16", "BF16")
# Those of TRL and LLaMA-Factory (v_head.summary), OpenRLHF (value_head), DeepSpeed-Chat and
# InternLM2 (v_head), UltraRM (regression_head) and others; all are a row of weights, as ours is.
_HEADS = re.compile(
    r"(?:(?:model|module|base_model|pretrained_model|transformer)\.)*"
    r"(?:score|value_head|v_head\.summary|v_head|rm_head|reward_head|regression_head)"
    r"(?:\.weight|(?P<bias>\.bias))?"
)
# What transformers computes, once saved, and drops in silence too.
_COMPUTED = (r"(^|\.)inv_freq$", r"(^|\.)position_ids$")
_SHOWN = 3


@dataclass(frozen=True)
class Head:
    """Names of a stored reward head."""

    weight: str
    biases: tuple[str, ...]


def is_reward_model(architectures: Iterable[str] | None) -> bool:
    """Whether config.json says that the weights have a reward head."""
    return any(
        name.endswith(("ForSequenceClassification", "RewardModel")) for name in architectures or ()
    )


def require_unquantised(name: str, facts: Mapping[str, Any]) -> None:
    """Raise ModelError when a model's configuration, or a part of it, says how it is quantised."""
    for key, value in facts.items():
        if key in _QUANTISATION and value:
            method = value.get("quant_method", "") if isinstance(value, dict) else value
            raise ModelError(
                f"{name} is quantised: its {CONFIG_FILE} has {key} {method}".rstrip() + ". Its "
                "weights are no numbers without their scales, which are not read.",
                f"{_DEQUANTISE} If it was, delete {key} from {CONFIG_FILE}.",
            )
        if isinstance(value, dict):
            require_unquantised(name, value)


def require_floats(found: CheckpointFiles, keys: Iterable[str]) -> None:
    """Raise ModelError when a tensor that would be a weight has integers or 8 bits."""
    for key in keys:
        tensor = found.tensors[key]
        if tensor.dtype not in _FLOATS:
            raise ModelError(
                f"{found.name} is quantised: {key} in {tensor.file} has the type {tensor.dtype}; "
                f"weights are read in {', '.join(_FLOATS)}.",
                _DEQUANTISE,
            )


def find_head(found: CheckpointFiles, *, is_needed: bool) -> Head | None:
    """The reward head, named in a line where it has another trainer's name.

    Raises ModelError when there are two, when it has a bias, which a RewardHead cannot hold, when
    it lies in a file that is not read, and when there is none but `is_needed`.
    """
    weights = [key for key in found.tensors if is_head(key) and not _is_bias(key)]
    biases = tuple(key for key in found.tensors if _is_bias(key))
    if len(weights) > 1:
        raise ModelError(
            f"{found.name} has {len(weights)} reward heads: {', '.join(sorted(weights))}.",
            "Keep the one that was trained and delete the other from the files.",
        )
    for key in biases:
        if not found.is_zero(key):
            raise ModelError(
                f"{found.name}: the reward head's {key} in {found.tensors[key].file} is not zero, "
                "and a head here has no bias.",
                "It moves all rewards alike: delete it from the file if their level is free.",
            )
    if not weights:
        _refuse_head_in(found, is_needed=is_needed)
        return None
    if weights[0] != HEAD:
        file = found.tensors[weights[0]].file
        say_once(f"{found.name}: the reward head is {weights[0]} of {file}.")
    require_floats(found, weights)
    return Head(weights[0], biases)


def _refuse_head_in(found: CheckpointFiles, *, is_needed: bool) -> None:
    for file in found.unlisted:
        if file in HEAD_FILES:
            raise ModelError(
                f"{found.name}: the reward head seems to be in {file}, which is not one of the "
                f"files that are read ({', '.join(found.files[:_SHOWN])}).",
                f"Save it as {HEAD} in one of them and in the index, or delete {file} to begin "
                "with a new head.",
            )
    if is_needed:
        rows = [key for key, tensor in found.tensors.items() if tensor.shape[:-1] == (1,)]
        others = f" Tensors of one row: {', '.join(sorted(rows)[:_SHOWN])}." if rows else ""
        raise ModelError(
            f"{found.name} is a reward model by its {CONFIG_FILE}, and its files have no {HEAD}."
            + others,
            f"Save the head as {HEAD}, or give the causal LM to begin with a new head.",
        )


def require_all_read(
    found: CheckpointFiles, read: Collection[str], harmless: Iterable[str]
) -> None:
    """Raise ModelError when a tensor is neither in `read` nor like a pattern in `harmless`.

    transformers only warns, and the model then is another one than its files say.
    """
    patterns = [re.compile(pattern) for pattern in (*_COMPUTED, *harmless)]
    unread = [
        key
        for key in sorted(set(found.tensors) - set(read))
        if not any(pattern.search(key) for pattern in patterns)
    ]
    if unread:
        raise ModelError(
            f"{found.name} has tensors that the model of its {CONFIG_FILE} does not read: "
            f"{described(found, unread)}.",
            "Give the checkpoint that belongs to this configuration (merge adapters first), or "
            "delete the tensors from the files if the model is whole without them.",
        )


def described(found: CheckpointFiles, keys: list[str]) -> str:
    """The first few tensors with type, shape and file, and how many more there are."""
    shown = [
        f"{key} ({found.tensors[key].dtype} {list(found.tensors[key].shape)} in "
        f"{found.tensors[key].file})"
        for key in keys[:_SHOWN]
    ]
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(shown) + more


def name_unlisted(found: CheckpointFiles) -> None:
    """One line for the safetensors files that are not read."""
    if found.unlisted:
        say_once(
            f"{found.name}: not read: {', '.join(found.unlisted)}; the weights are those of "
            f"{found.source}."
        )


def is_head(key: str) -> bool:
    """Whether a tensor's name is that of a reward head or of its bias."""
    return _HEADS.fullmatch(key) is not None


def _is_bias(key: str) -> bool:
    match = _HEADS.fullmatch(key)
    return match is not None and match["bias"] is not None


def require_trainable(model_name_or_path: str, *, has_rewards: bool) -> None:
    """`require_weights` for weights that will be trained: config.json and headers are looked at.

    Nothing is downloaded: an object store is asked, and a hub id is not (its workers look).
    """
    require_weights(model_name_or_path)
    if is_hub_id(model_name_or_path):
        return
    store = model_store(model_name_or_path)
    try:
        facts = json.loads(store.read_bytes(CONFIG_FILE).decode())
    except ValueError as error:
        raise ModelError(
            f"Cannot load the model {model_name_or_path!r}: {CONFIG_FILE}: {error}.",
            "Export the model again.",
        ) from error
    require_unquantised(model_name_or_path, facts)
    found = read_headers(store, model_name_or_path)
    name_unlisted(found)
    if has_rewards:
        find_head(found, is_needed=is_reward_model(facts.get("architectures")))
