"""Small backbones of every kind, pairs for them, and both computations of them in fp64."""

import copy
import random

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    Qwen2Config,
    Qwen3Config,
)
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from codepmp_ray.modeling.objectives import Objective
from codepmp_ray.modeling.preference_model import PreferenceModel
from codepmp_ray.preference.items import EncodedItem, join_pairs

VOCABULARY = 97
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}
WINDOW = 6  # shorter than prompt + response of most pairs
SLIDING = {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}
OPT_SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "ffn_dim": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "max_position_embeddings": 40,
    "pad_token_id": 1,
}
CONFIGS = {
    "llama-tied": LlamaConfig(**SHAPE, tie_word_embeddings=True),
    "llama3.2-tied": LlamaConfig(
        **SHAPE,
        tie_word_embeddings=True,
        head_dim=8,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 5e5,
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    ),
    "qwen2-untied": Qwen2Config(**SHAPE, tie_word_embeddings=False),
    "qwen2-sliding": Qwen2Config(**SHAPE, **SLIDING, tie_word_embeddings=True),
    "qwen3-untied": Qwen3Config(**SHAPE, head_dim=8, tie_word_embeddings=False),
    "mistral-sliding": MistralConfig(**SHAPE, sliding_window=WINDOW, tie_word_embeddings=False),
    "gemma2-tied": Gemma2Config(
        **SHAPE,
        head_dim=8,
        sliding_window=WINDOW,
        attn_logit_softcapping=2.0,
        final_logit_softcapping=1.5,
        query_pre_attn_scalar=10,
        tie_word_embeddings=True,
    ),
    "gemma3-tied": Gemma3TextConfig(
        **SHAPE, head_dim=8, sliding_window=WINDOW, tie_word_embeddings=True
    ),
    # Learned positions, dropout of 0.1. OPT-350M alone normalises after its blocks, and projects
    # from and to narrower embeddings.
    "opt": OPTConfig(**OPT_SHAPE),
    "opt-350m": OPTConfig(**OPT_SHAPE, word_embed_proj_dim=20, do_layer_norm_before=False),
}


def make_pairs() -> list[EncodedItem]:
    rng = random.Random(1)

    def ids(count: int) -> list[int]:
        return [rng.randrange(VOCABULARY) for _ in range(count)]

    return [
        EncodedItem.of_pair(str(i), ids(5 + i), ids(1 + 4 * i), ids(9 - 2 * i), 0.1)
        for i in range(4)
    ]


def make_items() -> list[EncodedItem]:
    """Those pairs, and prompts with five and three answers, of which two and one are the best."""
    rng = random.Random(2)

    def ids(count: int) -> list[int]:
        return [rng.randrange(VOCABULARY) for _ in range(count)]

    items = make_pairs()
    for num_right, num_wrong in ((2, 3), (1, 2)):
        prompt, answers = ids(6), [ids(2 + 5 * (i % 3)) for i in range(num_right + num_wrong)]
        pairs = [
            EncodedItem.of_pair("tree", prompt, right, wrong, 0.1)
            for right in answers[:num_right]
            for wrong in answers[num_right:]
        ]
        items.insert(2, join_pairs(pairs))
    return items


class ExactNorm(torch.nn.Module):
    """transformers' RMSNorm without its detour through fp32, so that fp64 can show exactness."""

    def __init__(self, norm: torch.nn.Module) -> None:
        super().__init__()
        self.weight = norm.weight
        self.epsilon = getattr(norm, "variance_epsilon", None) or norm.eps
        # Gemma stores its weight as the difference from one.
        self.offset = 1.0 if "Gemma" in type(norm).__name__ else 0.0

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        variance = hidden.square().mean(-1, keepdim=True)
        return (self.weight + self.offset) * hidden * torch.rsqrt(variance + self.epsilon)


def in_fp64(model: torch.nn.Module) -> torch.nn.Module:
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__.endswith("RMSNorm"):
                setattr(parent, name, ExactNorm(child))
    return model.double()


def plain_attention(
    module, query, key, value, attention_mask, scaling=None, dropout=0.0, softcap=None, **kwargs
):
    """transformers' eager attention, with its softmax in the precision of its input."""
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    scores = query @ key.transpose(2, 3) * scaling
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    weights = (scores + attention_mask).softmax(dim=-1)
    return (weights @ value).transpose(1, 2).contiguous(), weights


ALL_ATTENTION_FUNCTIONS.register("plain_fp64", plain_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register("plain_fp64", eager_mask)


def make_models(name: str, objective: Objective) -> tuple[torch.nn.Module, PreferenceModel]:
    """transformers' own causal LM, and ours with the same weights; both in fp64."""
    torch.manual_seed(0)
    causal_lm = in_fp64(AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS[name])))
    for parameter in causal_lm.parameters():
        torch.nn.init.normal_(parameter, std=0.2)  # far from the symmetric start
    ours = copy.deepcopy(causal_lm)
    causal_lm.set_attn_implementation("plain_fp64")
    causal_lm.eval()  # without dropout; ours has none in training either
    head = None if causal_lm.config.tie_word_embeddings else ours.lm_head
    model = PreferenceModel(ours.base_model, head, objective).double()
    if model.score is not None:
        torch.nn.init.normal_(model.score.weight)
    return causal_lm, model


def distance(found: torch.Tensor, truth: torch.Tensor) -> float:
    return float((found.double() - truth).norm() / truth.norm())
