"""Decoder families in tiny shapes: what `train_family_parity` measures and tests take from.

Sizes are random, switches are those of the published models: windows, soft caps, factors, routers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

VOCABULARY = 259  # of tests.tiny_models' tokenizer
_SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_WINDOW = {"sliding_window": 8}
_HEAD = {"head_dim": 16}
_MOE = {
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 48,
    "decoder_sparse_step": 1,
    "n_group": 1,
    "topk_group": 1,
}
_MLA = {
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 16,
    "num_key_value_heads": 4,
    "first_k_dense_replace": 1,
}
_OLD = {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 512}
_LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "layer_types": ["linear_attention", "linear_attention", "full_attention"],
}


@dataclass(frozen=True)
class Family:
    """A configuration of transformers.

    Attributes:
        name: of the row; `model_type` says the class.
        models: published ones of this build, for people.
        changes: to the common shape; None takes a number away.
    """

    name: str
    models: str
    changes: dict[str, Any] = field(default_factory=dict)
    model_type: str = ""

    def config(self) -> Any:
        """The transformers configuration. Raises what its class raises."""
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING

        facts = {k: v for k, v in (_SHAPE | self.changes).items() if v is not None}
        return CONFIG_MAPPING[self.model_type or self.name](**facts)


def _rope(kind: str, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 1e4, **more}}


FAMILIES = (
    Family("llama", "Llama 2 and 3, Yi, TinyLlama, SmolLM2"),
    Family(
        "llama, linear rope", "DeepSeek-Coder 1", _rope("linear", factor=4.0), model_type="llama"
    ),
    Family(
        "llama, llama3 rope",
        "Llama 3.1 and 3.2",
        _rope(
            "llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=16,
        ),
        model_type="llama",
    ),
    Family("llama, dynamic rope", "InternLM2 and others", _rope("dynamic", factor=2.0), "llama"),
    Family("mistral", "Mistral 7B", _WINDOW),
    Family("ministral", "Ministral 8B", _WINDOW | _HEAD),
    Family("ministral3", "Ministral 3", _HEAD),
    Family("qwen2", "Qwen2, Qwen2.5, Qwen2.5-Coder"),
    Family(
        "qwen2, yarn",
        "Qwen2.5 with long contexts",
        _rope("yarn", factor=4.0, original_max_position_embeddings=16),
        model_type="qwen2",
    ),
    Family("qwen3", "Qwen3", _HEAD),
    Family("gemma", "Gemma, CodeGemma", _HEAD),
    Family("gemma2", "Gemma 2", _HEAD | _WINDOW),
    Family("gemma3_text", "Gemma 3 270M and 1B", _HEAD | _WINDOW),
    Family(
        "gemma3n_text",
        "Gemma 3n",
        _HEAD
        | _WINDOW
        | {
            "num_hidden_layers": 4,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "num_kv_shared_layers": 2,
            "hidden_size_per_layer_input": 16,
            "vocab_size_per_layer_input": VOCABULARY,
        },
    ),
    Family("gemma4_text", "Gemma 4", _HEAD | _WINDOW),
    Family("vaultgemma", "VaultGemma", _HEAD | _WINDOW),
    Family("phi", "Phi-1, Phi-1.5, Phi-2"),
    Family("phi3", "Phi-3, Phi-4", {"sliding_window": None}),
    Family(
        "phi3, longrope",
        "Phi-3 128k, Phi-4-mini",
        {
            "original_max_position_embeddings": 256,
            **_rope(
                "longrope",
                short_factor=[1.0] * 8,
                long_factor=[3.0] * 8,
                original_max_position_embeddings=256,
            ),
        },
        model_type="phi3",
    ),
    Family("phimoe", "Phi-3.5-MoE", _MOE),
    Family("starcoder2", "StarCoder2", _WINDOW),
    Family(
        "granite",
        "Granite 3, Granite Code",
        {
            "logits_scaling": 8.0,
            "residual_multiplier": 0.22,
            "embedding_multiplier": 12.0,
            "attention_multiplier": 0.0625,
        },
    ),
    Family("granitemoe", "Granite 3 MoE", _MOE | {"logits_scaling": 6.0}),
    Family(
        "granitemoehybrid",
        "Granite 4",
        _MOE
        | {
            "layer_types": ["mamba", "mamba", "attention"],
            "mamba_n_heads": 8,
            "mamba_d_head": 16,
            "mamba_d_state": 8,
            "shared_intermediate_size": 64,
        },
    ),
    Family("cohere", "Command R"),
    Family("cohere2", "Command R7B", _WINDOW),
    Family("olmo", "OLMo"),
    Family("olmo2", "OLMo 2"),
    Family("olmo3", "OLMo 3", _WINDOW),
    Family("olmoe", "OLMoE", _MOE),
    Family("stablelm", "StableLM 2, Stable Code"),
    Family("gpt_neox", "Pythia, GPT-NeoX", {"num_key_value_heads": None}),
    Family("gpt2", "GPT-2", _OLD),
    Family("gpt_bigcode", "StarCoder, SantaCoder", _OLD),
    Family("gptj", "GPT-J", _OLD | {"rotary_dim": 8}),
    Family("codegen", "CodeGen", _OLD | {"rotary_dim": 8}),
    Family("falcon", "Falcon 7B and 40B"),
    Family("bloom", "BLOOM", {"n_head": 4, "n_layer": 3}),
    Family("mpt", "MPT", {"d_model": 64, "n_layers": 3, "n_heads": 4}),
    Family("opt", "OPT", {"ffn_dim": 96, "word_embed_proj_dim": 64}),
    Family("biogpt", "BioGPT"),
    Family("persimmon", "Persimmon"),
    Family("nemotron", "Nemotron-4, Minitron"),
    Family("glm", "GLM-4 9B", _HEAD),
    Family("glm4", "GLM-4 0414", _HEAD),
    Family("glm4_moe", "GLM-4.5", _MOE | _HEAD | {"first_k_dense_replace": 1}),
    Family("smollm3", "SmolLM3"),
    Family("helium", "Helium", _HEAD),
    Family("exaone4", "EXAONE 4", _WINDOW),
    Family("seed_oss", "Seed-OSS", _HEAD),
    Family("apertus", "Apertus"),
    Family("arcee", "AFM"),
    Family("ernie4_5", "ERNIE 4.5 0.3B", _HEAD),
    Family("ernie4_5_moe", "ERNIE 4.5 MoE", _MOE | _HEAD | {"moe_num_experts": 4, "moe_k": 2}),
    Family("hunyuan_v1_dense", "Hunyuan", _HEAD),
    Family("hunyuan_v1_moe", "Hunyuan-A13B", _MOE | _HEAD | {"moe_topk": 2}),
    Family("bitnet", "BitNet b1.58"),
    Family("cwm", "CWM"),
    Family("nanochat", "nanochat"),
    Family("minicpm3", "MiniCPM3", _MLA | {"q_lora_rank": 16}),
    Family("diffllama", "DiffLlama"),
    Family("doge", "Doge"),
    Family("mixtral", "Mixtral", _MOE),
    Family(
        "qwen2_moe", "Qwen1.5-MoE, Qwen2-57B-A14B", _MOE | {"shared_expert_intermediate_size": 48}
    ),
    Family("qwen3_moe", "Qwen3-30B-A3B, Qwen3-Coder-30B-A3B", _MOE | _HEAD),
    Family("deepseek_v2", "DeepSeek-Coder-V2-Lite", _MOE | _MLA | {"q_lora_rank": None}),
    Family("deepseek_v3", "DeepSeek-V3, Kimi K2", _MOE | _MLA | {"q_lora_rank": 16}),
    Family("dots1", "dots.llm1", _MOE | {"first_k_dense_replace": 1, "n_shared_experts": 1}),
    Family("gpt_oss", "gpt-oss, dequantised", _MOE | _HEAD | _WINDOW),
    Family("minimax", "MiniMax-Text-01", _MOE | _HEAD),
    Family("llama4_text", "Llama 4", _MOE | _HEAD | {"intermediate_size_mlp": 96}),
    Family("qwen3_next", "Qwen3-Next, Qwen3-Coder-Next", _MOE | _HEAD | _LINEAR),
    Family("qwen3_5_text", "Qwen3.5", _HEAD | _LINEAR),
    Family("qwen3_5_moe_text", "Qwen3.5 MoE", _MOE | _HEAD | _LINEAR),
    Family(
        "falcon_h1",
        "Falcon-H1",
        {
            "mamba_d_ssm": 64,
            "mamba_n_heads": 4,
            "mamba_d_head": 16,
            "mamba_n_groups": 1,
            "mamba_d_state": 8,
            "lm_head_multiplier": 0.5,
        },
    ),
    Family(
        "jamba",
        "Jamba",
        _MOE
        | {
            "mamba_d_state": 8,
            "mamba_dt_rank": 4,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
        },
    ),
    Family("lfm2", "LFM2", {"layer_types": ["conv", "conv", "full_attention"]}),
    Family("mamba", "Mamba", {"state_size": 8}),
    Family("recurrent_gemma", "RecurrentGemma", {"attention_window_size": 8}),
)


def family(name: str) -> Family:
    return next(found for found in FAMILIES if found.name == name)
