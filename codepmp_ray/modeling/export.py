"""Export as a plain transformers model that loads everywhere without code of ours.

Reward models become `*ForSequenceClassification`: one label, `problem_type="regression"` (vLLM
applies a sigmoid otherwise) and a pad token distinct from EOS (transformers reads the reward at the
last token that is not pad). Policies (sft, dpo) become `*ForCausalLM`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from codepmp_ray.errors import ModelError
from codepmp_ray.preference.tokenization import PromptTemplate


def export_model(
    config: Any,
    state: dict[str, torch.Tensor],
    tokenizer: Any,
    template: PromptTemplate,
    folder: Path,
    dtype: torch.dtype,
) -> None:
    """Write weights, configuration, tokenizer and template to `folder`, which must not exist.

    Args:
        config: configuration of the backbone.
        state: full state of a PreferenceModel. With a `score.weight` ([1, H]) the export is a
            reward model, otherwise a causal LM.
    """
    config = type(config).from_dict(config.to_dict())
    is_reward_model = "score.weight" in state
    kind = AutoModelForSequenceClassification if is_reward_model else AutoModelForCausalLM
    if is_reward_model:
        config.num_labels = 1
        config.problem_type = "regression"
        config.id2label, config.label2id = {0: "reward"}, {"reward": 0}
    config.pad_token_id = distinct_pad_id(tokenizer, template)
    config.use_cache = True
    config.dtype = dtype
    with torch.device("meta"):
        model: Any = kind.from_config(config)
    weights = {
        name.replace("backbone.", f"{model.base_model_prefix}.", 1): value.to(dtype)
        for name, value in state.items()
        if not (is_reward_model and name.startswith("lm_head."))
    }
    missing, unexpected = model.load_state_dict(weights, strict=False, assign=True)
    if not is_reward_model and config.tie_word_embeddings:
        model.tie_weights()
        missing = [name for name in missing if name != "lm_head.weight"]
    if missing or unexpected:
        raise ModelError(f"Export lacks {missing} and has no place for {unexpected}.")
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    tokenizer.pad_token_id = config.pad_token_id
    tokenizer.padding_side = "right"
    if template.chat_template:
        tokenizer.chat_template = template.chat_template
    tokenizer.save_pretrained(folder)
    template.save(folder)


def distinct_pad_id(tokenizer: Any, template: PromptTemplate) -> int:
    """A pad id that is neither EOS nor BOS nor part of the prompt template.

    Raises ModelError when the tokenizer has no special token to spare.
    """
    text = f"{template.prefix}{template.suffix}"
    taken = set(tokenizer(text, add_special_tokens=False)["input_ids"])
    taken |= {tokenizer.eos_token_id, tokenizer.bos_token_id}
    special = [tokenizer.pad_token_id, tokenizer.unk_token_id]
    special += sorted(
        token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special
    )
    for token_id in special:
        if token_id is not None and token_id not in taken:
            return int(token_id)
    raise ModelError(
        f"The tokenizer of {tokenizer.name_or_path} has no special token to use as pad.",
        "Add a pad token to the tokenizer that differs from EOS.",
    )
