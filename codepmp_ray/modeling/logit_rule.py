"""What a family does to its logits besides the LM head's product: a factor, and a soft cap.

Granite divides by `logits_scaling`, Cohere multiplies by `logit_scale`, others by numbers that
follow from their sizes. The rule is not read from such names: the family's own forward is asked,
with numbers in the place of hidden states and nothing in the place of the LM head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

_RANGE = 40.0  # logits that are tried: -40 to 40, where a soft cap shows
_HIGHEST_CAP = 1e6
_SMALL = 2.0**-10  # where a cap of 1 or more takes less than a millionth
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class LogitRule:
    """logits = soft_cap x tanh(scale x product / soft_cap), or scale x product without a cap."""

    scale: float = 1.0
    soft_cap: float | None = None

    def __call__(self, product: torch.Tensor) -> torch.Tensor:
        scaled = product * self.scale
        if self.soft_cap is None:
            return scaled
        return self.soft_cap * torch.tanh(scaled / self.soft_cap)


def logit_rule_of(causal_lm: Any) -> LogitRule:
    """The rule of a transformers *ForCausalLM; its parameters are not touched (meta will do).

    Where the forward cannot be asked, or has another rule, that of the soft cap in its
    configuration: the parity check then finds what it lacks.
    """
    config = causal_lm.config.get_text_config()
    named = LogitRule(soft_cap=getattr(config, "final_logit_softcapping", None))
    try:
        return _asked(causal_lm, named)
    except Exception:  # noqa: BLE001 - families differ without end, and tensors may be fake
        return named


def _asked(causal_lm: Any, named: LogitRule) -> LogitRule:
    num_tokens = causal_lm.config.get_text_config().vocab_size
    tried = torch.linspace(-_RANGE, _RANGE, num_tokens, dtype=torch.float64, device="cpu")
    tried[0] = _SMALL
    found = _logits(causal_lm, tried).double()
    scale = float(found[0]) / _SMALL
    if abs(scale - 1) < 1e-6:
        scale = 1.0
    caps = named.soft_cap, None, _soft_cap(scale * _RANGE, float(found[-1]))
    for rule in (LogitRule(scale, cap) for cap in caps):
        if torch.allclose(rule(tried), found, rtol=_TOLERANCE, atol=_TOLERANCE):
            return rule
    return named


def _soft_cap(largest: float, capped: float) -> float | None:
    """The cap that makes `capped` of the logit `largest`; None where none does."""
    low, high = capped, _HIGHEST_CAP
    if not 0 < capped < largest:
        return None
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        is_below = middle * math.tanh(largest / middle) < capped
        low, high = (middle, high) if is_below else (low, middle)
    return high


@torch.no_grad()
def _logits(causal_lm: Any, product: torch.Tensor) -> torch.Tensor:
    """[V] -> [V]: the family's forward around its backbone and its LM head."""
    name, head = causal_lm.base_model_prefix, causal_lm.get_output_embeddings()
    backbone = getattr(causal_lm, name)
    try:
        setattr(causal_lm, name, _Given(backbone, product.view(1, 1, -1)))
        causal_lm.set_output_embeddings(nn.Identity())
        ids = torch.zeros(1, 1, dtype=torch.int64, device="cpu")
        return causal_lm(input_ids=ids, use_cache=False).logits.flatten()
    finally:
        setattr(causal_lm, name, backbone)
        causal_lm.set_output_embeddings(head)


class _Given(nn.Module):
    """A backbone that returns what it was given, and has the other's attributes."""

    def __init__(self, backbone: nn.Module, hidden: torch.Tensor) -> None:
        super().__init__()
        object.__setattr__(self, "other", backbone)  # no child of this one
        object.__setattr__(self, "hidden", hidden)

    def forward(self, *args: Any, **kwargs: Any) -> _Outputs:
        return _Outputs(last_hidden_state=self.hidden)

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "other"), name)


class _Outputs(SimpleNamespace):
    """Outputs of any kind: what is asked for and not there is None."""

    def __getitem__(self, index: int) -> Any:
        return self.last_hidden_state if index == 0 else None

    def __getattr__(self, name: str) -> None:
        return None
