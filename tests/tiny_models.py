"""Random models that every engine can load: a base model, and an exported reward model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from codepmp_ray.preference.tokenization import PromptTemplate

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_tokenizer():
    """One token per byte, ChatML, pad equal to EOS (as many instruction models have it)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocabulary = {token: index for index, token in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def tiny_llama_config(tokenizer, **changes: Any):
    """Two layers, with heads of 32: the smallest that vLLM's CPU attention takes."""
    from transformers import LlamaConfig

    fields: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 512,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return LlamaConfig(**{**fields, **changes})


def save_tiny_base_model(folder: Path) -> Path:
    """LlamaForCausalLM with tied weights and its tokenizer, saved like any hub model."""
    import torch
    from transformers import LlamaForCausalLM

    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    LlamaForCausalLM(tiny_llama_config(tokenizer, tie_word_embeddings=True)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_tiny_reward_model(folder: Path, *, pad_is_eos: bool = False) -> Path:
    """LlamaForSequenceClassification with two layers and byte tokens.

    Args:
        pad_is_eos: a careless export: a search for the pad token skips the EOS at the end.
    """
    import torch
    from transformers import LlamaForSequenceClassification

    tokenizer = tiny_tokenizer()
    if not pad_is_eos:
        tokenizer.pad_token = "<|endoftext|>"
    torch.manual_seed(0)
    config = tiny_llama_config(
        tokenizer,
        initializer_range=0.2,  # spreads the scores
        num_labels=1,
        problem_type="regression",
    )
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    PromptTemplate.from_tokenizer(tokenizer, "chat", append_eos=True).save(folder)
    return folder


def plain_transformers_score(folder: Path, ids: list[int]) -> float:
    """The reward as transformers computes it for one row without padding, nothing of ours."""
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    model.config.pad_token_id = None  # with one row this means: read the last token
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids])).logits[0, 0].item()
