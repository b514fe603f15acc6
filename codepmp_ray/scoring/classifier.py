"""A reward model as transformers loads it, refused where transformers would only warn."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from codepmp_ray.errors import ModelError
from codepmp_ray.modeling.backbones import output_size
from codepmp_ray.modeling.checkpoint_checks import (
    HEAD,
    Head,
    find_head,
    name_unlisted,
    require_all_read,
    require_floats,
    require_unquantised,
)
from codepmp_ray.modeling.checkpoint_files import (
    HEAD_FILE,
    INDEX_FILE,
    LM_HEADS,
    SINGLE_FILE,
    CheckpointFiles,
    read_headers,
)
from codepmp_ray.storage import open_store


class HeadedBase(torch.nn.Module):
    """A base model and a reward head, as a *ForSequenceClassification holds them."""

    def __init__(self, base_model: Any, hidden_size: int) -> None:
        super().__init__()
        self.base_model, self.config = base_model, base_model.config
        self.score = torch.nn.Linear(hidden_size, 1, bias=False, dtype=base_model.dtype)

    @property
    def device(self) -> torch.device:
        return self.score.weight.device


def load_classifier(folder: str | Path, dtype: torch.dtype) -> Any:
    """The *ForSequenceClassification with one label in `folder`, on CPU.

    Of a family without that class a HeadedBase, from an export with a HEAD_FILE.

    Raises ModelError when it cannot be loaded, is quantised, has no head or more than one label,
    and when its files and the model differ in their tensors.
    """
    try:
        config = AutoConfig.from_pretrained(str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise _unusable(folder, error) from error
    if config.num_labels != 1:
        raise ModelError(
            f"The model in {folder} has num_labels={config.num_labels}, not 1.",
            "Score with a reward model exported by this project.",
        )
    require_unquantised(str(folder), config.to_dict())
    found = read_headers(open_store(folder), str(folder))
    _require_one_choice(found)
    name_unlisted(found)
    head = find_head(found, is_needed=True)
    assert head is not None  # is_needed
    require_floats(found, _numbers(found))
    width = output_size(config.get_text_config())
    _require_width(found, head, width)
    has_file = found.tensors[head.weight].file == HEAD_FILE
    kind = AutoModel if has_file else AutoModelForSequenceClassification
    try:
        made: Any = kind.from_pretrained(
            str(folder), dtype=dtype, use_safetensors=True, output_loading_info=True
        )
        model, info = made
        if has_file:
            model = HeadedBase(model, width)
        _take_head(model, found, head)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise _unusable(folder, error) from error
    _require_whole(found, head, info["missing_keys"], info["unexpected_keys"])
    return model


def _require_one_choice(found: CheckpointFiles) -> None:
    """Raise ModelError where transformers and other readers would take different files."""
    if found.source == INDEX_FILE and SINGLE_FILE in found.unlisted:
        raise ModelError(
            f"{found.name} has {SINGLE_FILE} and an {INDEX_FILE} that lists other files: "
            "transformers reads the one, vLLM and this project's trainer the others.",
            "Delete the one that is not meant.",
        )


def _require_width(found: CheckpointFiles, head: Head, width: int) -> None:
    stored = found.tensors[head.weight]
    if stored.shape != (1, width):
        raise ModelError(
            f"{found.name}: {head.weight} in {stored.file} has the shape {stored.shape}; a head on "
            f"this model has {(1, width)}.",
            "The folder's files do not belong together; download or export it again.",
        )


def _numbers(found: CheckpointFiles) -> list[str]:
    """Tensors that may be weights: old decoders stored their causal masks as bytes beside them."""
    return [key for key in found.tensors if not key.endswith((".attn.bias", ".attention.bias"))]


@torch.no_grad()
def _take_head(model: Any, found: CheckpointFiles, head: Head) -> None:
    """Copy a reward head that transformers does not know, by its name or by its file."""
    if head.weight == HEAD and not isinstance(model, HeadedBase):
        return
    file = found.tensors[head.weight].file
    with safe_open(Path(found.store.uri) / file, framework="pt") as handle:
        stored = handle.get_tensor(head.weight)
    model.score.weight.copy_(stored)


def _require_whole(
    found: CheckpointFiles, head: Head, missing: Collection[str], unexpected: Collection[str]
) -> None:
    """Raise ModelError for weights that transformers drew anew, and for those that it left out."""
    lacking = sorted(set(missing) - {HEAD})  # find_head has seen it
    if lacking:
        raise ModelError(
            f"{found.name} has no weights for {lacking[0]}: its rewards would be random.",
            "The folder's files are incomplete; download or export it again.",
        )
    known = {head.weight, *head.biases, *LM_HEADS}
    require_all_read(found, set(found.tensors) - (set(unexpected) - known), ())


def _unusable(folder: str | Path, error: Exception) -> ModelError:
    return ModelError(f"The model in {folder} cannot be loaded: {error}.")
