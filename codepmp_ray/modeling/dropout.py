"""All randomness of a forward in training mode is off, whatever a family calls it.

As TRL does for rewards and DPO: the reference of a policy, and a step that runs again after a kill,
have to be the same function.
"""

from __future__ import annotations

import copy
import re
from typing import Any

from torch import nn
from transformers import PretrainedConfig

# attention_dropout, resid_pdrop, layerdrop, drop_path_rate, router_jitter_noise, ...
_RANDOM = re.compile("drop|jitter", re.IGNORECASE)
_DROPOUTS = (
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
    *(nn.AlphaDropout, nn.FeatureAlphaDropout),
)


def without_dropout(backbone: nn.Module) -> None:
    """Set every rate of dropout, layer drop and jitter to 0: of modules, and of what they read.

    Some families ask their configuration during the forward, so modules get copies of it without
    dropout. The object that `backbone.config` was before is not changed.
    """
    copies: dict[int, Any] = {}
    for module in backbone.modules():
        if isinstance(module, _DROPOUTS):
            module.p = 0.0
        for name, value in list(vars(module).items()):
            if isinstance(value, PretrainedConfig):
                setattr(module, name, _without(value, copies))
            elif _is_rate(name, value):
                setattr(module, name, type(value)(0))


def _without(config: PretrainedConfig, copies: dict[int, Any]) -> Any:
    """A copy of `config` with rates of 0, the same for all who share it."""
    if id(config) not in copies:
        found = copies[id(config)] = copy.copy(config)
        copies[id(found)] = found
        for name, value in list(vars(config).items()):
            if isinstance(value, PretrainedConfig):
                setattr(found, name, _without(value, copies))
            elif _is_rate(name, value):
                setattr(found, name, type(value)(0))
    return copies[id(config)]


def _is_rate(name: str, value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and _RANDOM.search(name) is not None
