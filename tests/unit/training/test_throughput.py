"""Model FLOPs against counts by hand and by torch's own counter."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from codepmp_ray.modeling.objectives import make_objective
from codepmp_ray.modeling.preference_model import PreferenceModel
from codepmp_ray.preference.items import EncodedItem, join_pairs
from codepmp_ray.preference.packing import pack
from codepmp_ray.training.throughput import FlopCounter, Utilisation, num_visible, peak_flops

PAIR = EncodedItem.of_pair("a", list(range(7)), list(range(5)), list(range(4)))

TREE = join_pairs([PAIR, EncodedItem.of_pair("b", PAIR.prompt, [1] * 9, PAIR.answers[1])])


def model(objective: str) -> PreferenceModel:
    config = LlamaConfig(vocab_size=50, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
                         num_attention_heads=2, num_key_value_heads=1)  # fmt: skip
    whole = LlamaForCausalLM(config)
    return PreferenceModel(whole.model, whole.lm_head, make_objective(objective))  # type: ignore[arg-type]


def test_visible_tokens_are_those_of_the_packed_mask() -> None:
    def causal(n: int) -> int:
        return n * (n + 1) // 2

    # Two causal sequences that share the prompt: its own part counts once.
    assert num_visible(PAIR, "best") == causal(7 + 5) + causal(7 + 4) - causal(7)
    assert num_visible(PAIR, "best_alone") == causal(7 + 5)
    answers = (5, 4, 9)
    assert num_visible(TREE, "all") == sum(causal(7 + n) for n in answers) - 2 * causal(7)
    assert num_visible(TREE, "best_alone") == causal(7 + 5) + causal(7 + 9) - causal(7)


@pytest.mark.parametrize("objective", ["pmp", "rm"])
def test_the_matrix_products_are_those_that_torch_counts(objective: str) -> None:
    own, items = model(objective), [PAIR, TREE]
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        own(pack(items))
    flops = counted.get_flop_counts()["Global"]
    products = sum(n for op, n in flops.items() if "mm" in str(op) and "bmm" not in str(op))
    counter = FlopCounter.of(own)
    attention = counter.attention_per_token_pair * sum(
        num_visible(item, counter.sides) for item in items
    )
    score = 2 * 64 * (2 + 3)  # the reward head, which is left out
    assert (counter.count(items) - attention) / 3 == products - score
    assert counter.attention_per_token_pair == 12 * 2 * 64


@pytest.mark.parametrize("objective", ["pmp", "rm"])
def test_weights_that_are_not_trained_cost_two_thirds(objective: str) -> None:
    """Forward, and the gradient of their inputs; attention has no weights and costs the same."""
    whole, frozen = model(objective), model(objective)
    frozen.requires_grad_(False)
    counter = FlopCounter.of(whole)
    pairs = num_visible(PAIR, counter.sides)
    attention = counter.attention_per_token_pair * pairs
    products = counter.count([PAIR]) - attention
    assert FlopCounter.of(frozen).count([PAIR]) - attention == pytest.approx(products * 2 / 3)


def test_peaks_go_by_name_and_what_is_unknown_has_no_utilisation() -> None:
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("NVIDIA H100 PCIe") == 756e12
    assert peak_flops("NVIDIA H200") == 989e12
    assert peak_flops("NVIDIA A100-SXM4-80GB") == 312e12
    assert peak_flops("NVIDIA L40S") == 362e12 and peak_flops("NVIDIA L4") == 121e12
    assert peak_flops("NVIDIA A10G") != peak_flops("NVIDIA A10")
    assert peak_flops("Some card") is None
    on_cpu = Utilisation(model("pmp"), torch.device("cpu"), bf16=True)
    assert on_cpu.mfu([PAIR], 1.0, 1) is None


def test_utilisation_is_flops_over_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    own = model("pmp")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    found = Utilisation(own, torch.device("cuda"), bf16=True).mfu([PAIR], 0.5, 4)
    assert found == pytest.approx(FlopCounter.of(own).count([PAIR]) / 0.5 / 989e12 / 4)
    assert Utilisation(own, torch.device("cuda"), bf16=False).mfu([PAIR], 0.5, 4) is None
