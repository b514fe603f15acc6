"""Checkpoints whose tensors are laid out otherwise than the model's parameters.

The hub stores every expert of a mixture by itself, transformers computes with one tensor for all;
others have other names there. The rules are transformers' own (`core_model_loading`), applied to
one parameter at a time: a rank holds that parameter whole while it is read or written, in the
checkpoint's type, and keeps its own part.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    PrefixChange,
    WeightConverter,
    WeightRenaming,
    dot_natural_key,
    rename_source_key,
    revert_weight_conversion,
)

from codepmp_ray.errors import ModelError

Read = Callable[[str], torch.Tensor]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Conversion:
    """Stored tensors that become parameters of a transformers model.

    Attributes:
        sources: stored name -> the converter's pattern that it answers to.
        shapes: of the parameters, by their name in the transformers model.
    """

    transform: Any
    first: str
    sources: dict[str, str]
    config: Any
    shapes: dict[str, Shape]

    def run(self, read: Read) -> dict[str, torch.Tensor]:
        """The parameters, made of what `read` returns for each source."""
        return _run(self.transform, self.first, self.sources, self.config, read)


def conversions_of(made: Any, stored: Mapping[str, Shape], name: str) -> list[Conversion]:
    """How the parameters of `made`, a transformers model, come from tensors stored otherwise.

    Raises ModelError when the stored shapes of the model `name` do not go together.
    """
    transforms = copy.deepcopy(get_model_conversion_mapping(made))
    renamings = [entry for entry in transforms if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in transforms if isinstance(entry, WeightConverter)]
    by_pattern = {key: entry for entry in converters for key in entry.source_patterns}
    state = made.state_dict()
    groups: dict[str, dict[str, str]] = {}
    rules: dict[str, Any] = {}
    for key in sorted(stored, key=dot_natural_key):
        if key in state:
            continue
        target, pattern = rename_source_key(
            key, renamings, converters, made.base_model_prefix, state
        )
        if target == key or target not in state:
            continue
        groups.setdefault(target, {})[key] = pattern or key
        rules[target] = by_pattern[pattern] if pattern else WeightRenaming(key, target)
    found = []
    for first, sources in groups.items():
        empty = {key: torch.empty(stored[key], device="meta") for key in sources}
        try:
            values = _run(rules[first], first, sources, made.config, empty.__getitem__)
        except Exception as error:
            raise ModelError(
                f"{name}: {', '.join([*sources][:2])} cannot be made into {first}: "
                f"{(str(error).strip() or repr(error)).splitlines()[0]}.",
                "The folder's files do not belong together; download or export it again.",
            ) from error
        shapes = {key: tuple(value.shape) for key, value in values.items()}
        found.append(Conversion(rules[first], first, sources, made.config, shapes))
    return found


def _run(
    transform: Any, first: str, sources: Mapping[str, str], config: Any, read: Read
) -> dict[str, torch.Tensor]:
    own = copy.deepcopy(transform)
    for key, pattern in sources.items():
        own.add_tensor(first, key, pattern, read(key))
    values = own.convert(first, config=config)
    return {key: value[0] if isinstance(value, list) else value for key, value in values.items()}


class StoredLayout:
    """Under which names, and in which pieces, tensors of a transformers model are stored.

    That is the layout in which the family's checkpoints are published. Where several tensors would
    have to be joined for it all keep their own names, which transformers reads as well.

    Attributes:
        shapes: for each tensor of the model those of its pieces, by their stored names.
    """

    def __init__(self, plain: Any, tensors: Mapping[str, torch.Tensor]) -> None:
        conversions = get_model_conversion_mapping(plain, add_legacy=False)
        # One that takes a prefix away when it reads does not say whether there was one.
        plain._weight_conversions = [e for e in conversions if not isinstance(e, PrefixChange)]
        self._plain, self._is_own = plain, False
        empty = {name: torch.empty(value.shape, device="meta") for name, value in tensors.items()}
        self.shapes: dict[str, dict[str, Shape]] = {}
        whole = None
        with suppress(Exception):  # of a piece that needs others
            self.shapes = {name: _shapes(self.pieces(name, empty[name])) for name in empty}
            whole = _shapes(revert_weight_conversion(plain, empty))
        apart = {key: shape for each in self.shapes.values() for key, shape in each.items()}
        if whole != apart:
            self._is_own = True
            self.shapes = {name: {name: tuple(value.shape)} for name, value in empty.items()}

    def pieces(self, name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
        """Stored name -> tensor, of one whole tensor of the model."""
        if self._is_own:
            return {name: tensor}
        return revert_weight_conversion(self._plain, {name: tensor})


def _shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, Shape]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def sources_of(conversions: Iterable[Conversion]) -> set[str]:
    return {key for conversion in conversions for key in conversion.sources}
