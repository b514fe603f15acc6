"""Model FLOPs utilisation: the arithmetic that a step needs, over what its devices could do.

Chowdhery et al. 2022 (PaLM), appendix B: forward and backward need 6 FLOPs per token and weight,
and 12 x layers x heads x head size per token and token that it attends to. Counted as packed:
- a prompt once, since all its answers share it;
- attention over the tokens that are visible under the packed causal mask (PaLM counts a full
  square, about twice as many); a sliding window is not subtracted;
- the LM head at target tokens only, the embedding look-up not at all;
- weights that are not trained (LoRA) with 4 FLOPs: they have no gradient of their own;
- gradient checkpointing's second forward not: it is how the work is done, not the work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from codepmp_ray.modeling.backbones import output_size
from codepmp_ray.modeling.preference_model import PreferenceModel
from codepmp_ray.preference.items import EncodedItem, Sides

# Dense bf16 FLOP/s of one device, from the vendors' data sheets, without sparsity. The first name
# that occurs in the device's name counts.
_PEAK_TFLOPS = {
    "GB200": 2500.0,
    "B200": 2250.0,
    "GH200": 989.0,
    "H200": 989.0,
    "H100 NVL": 835.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "H800": 989.0,
    "H20": 148.0,
    "A100": 312.0,
    "A800": 312.0,
    "A10G": 70.0,
    "A10": 125.0,
    "A40": 149.7,
    "A30": 165.0,
    "L40S": 362.0,
    "L40": 181.0,
    "L4": 121.0,
    "RTX A6000": 154.8,
    "RTX 4090": 165.2,
    "RTX 3090": 71.0,
    "MI300X": 1307.0,
    "MI325X": 1307.0,
}


def peak_flops(device_name: str) -> float | None:
    """Dense bf16 FLOP/s of a device as CUDA names it; None if it is not in the table."""
    for name, tera in _PEAK_TFLOPS.items():
        if name in device_name:
            return tera * 1e12
    return None


@dataclass(frozen=True)
class FlopCounter:
    """FLOPs of forward and backward over packed items.

    Attributes:
        num_weights: of the blocks: matrices that every token passes, no embeddings, no heads.
        attention_per_token_pair: 12 x layers x heads x head size.
        num_head_weights: of the LM head; 0 where the objective does not use it.
        num_frozen: of `num_weights` those that are not trained; with any, the LM head is not.
    """

    num_weights: int
    attention_per_token_pair: int
    num_head_weights: int
    sides: Sides
    num_frozen: int = 0

    @classmethod
    def of(cls, model: PreferenceModel) -> FlopCounter:
        backbone: Any = model.backbone
        config = backbone.config
        heads = config.num_attention_heads
        head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
        # Of tokens, and of positions where they are learned.
        looked_up = [m.weight for m in backbone.modules() if isinstance(m, torch.nn.Embedding)]
        embeddings = sum(weight.numel() for weight in looked_up)
        matrices = [p for p in backbone.parameters() if p.ndim > 1]
        num_frozen = sum(p.numel() for p in matrices if not p.requires_grad)
        return cls(
            num_weights=sum(p.numel() for p in matrices) - embeddings,
            attention_per_token_pair=12 * config.num_hidden_layers * heads * head_size,
            num_head_weights=config.vocab_size * output_size(config) * model.objective.has_lm,
            sides=model.objective.sides,
            num_frozen=max(0, num_frozen - embeddings),
        )

    def count(self, items: list[EncodedItem]) -> float:
        """FLOPs of one forward and backward over `items`."""
        total = 0.0
        for item in items:
            num_targets = sum(map(len, item.targets(self.sides)))
            of_weights = 6 * self.num_weights - 2 * self.num_frozen
            total += of_weights * item.packed_length(self.sides)
            total += (4 if self.num_frozen else 6) * self.num_head_weights * num_targets
            total += self.attention_per_token_pair * num_visible(item, self.sides)
        return total


def num_visible(item: EncodedItem, sides: Sides) -> int:
    """(query, key) pairs under the packed mask: causal within an answer and into the prompt."""
    prompt, answers = len(item.prompt), [len(ids) for ids in item.computed(sides)]
    return sum(n * (n + 1) // 2 for n in (prompt, *answers)) + prompt * sum(answers)


class Utilisation:
    """MFU of the steps of one run, on devices of one kind.

    None where it says nothing: on CPU, on unknown devices, outside bf16, for mixtures of experts,
    on the plain path.
    """

    def __init__(self, model: PreferenceModel, device: torch.device, bf16: bool) -> None:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
        self._peak = peak_flops(name) if bf16 else None
        config: Any = model.backbone.config
        experts = ("num_experts", "num_local_experts", "n_routed_experts")
        is_counted = model.is_packed and not any(hasattr(config, key) for key in experts)
        self._counter = FlopCounter.of(model) if self._peak is not None and is_counted else None

    def mfu(self, items: list[EncodedItem], elapsed_s: float, num_devices: int) -> float | None:
        """Share of the devices' peak, 0 to 1, that a step over `items` reached."""
        if self._counter is None or self._peak is None:
            return None
        return self._counter.count(items) / (elapsed_s * self._peak * num_devices)
