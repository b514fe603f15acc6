"""A random reward model that every engine can load, exported like a trained one."""

from __future__ import annotations

from pathlib import Path

from codepmp_ray.preference.tokenization import PromptTemplate
from tests.conftest import tiny_tokenizer


def save_tiny_reward_model(folder: Path, *, pad_is_eos: bool = False) -> Path:
    """LlamaForSequenceClassification with two layers and byte tokens.

    Args:
        pad_is_eos: a careless export: a search for the pad token skips the EOS at the end.
    """
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification

    tokenizer = tiny_tokenizer()
    if not pad_is_eos:
        tokenizer.pad_token = "<|endoftext|>"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,  # heads of 32: the smallest that vLLM's CPU attention takes
        num_key_value_heads=1,
        max_position_embeddings=512,
        initializer_range=0.2,  # spreads the scores
        num_labels=1,
        problem_type="regression",
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
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
