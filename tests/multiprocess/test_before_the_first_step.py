"""What only the export would find out is asked before the training."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.errors import ModelError
from codepmp_ray.preference.tokenization import PromptTemplate
from codepmp_ray.storage import LocalStore
from codepmp_ray.training import loop
from codepmp_ray.training.loop import train
from codepmp_ray.training.task import InputShard, TrainingTask


def save_model_without_a_spare_token(folder: Path) -> Path:
    """Its one special token ends texts, so that none is left to pad with."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    from tests.tiny_models import tiny_llama_config

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<end>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")
    LlamaForCausalLM(tiny_llama_config(fast)).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def test_a_stage_keeps_the_template_that_it_began_with(group, tmp_path: Path) -> None:
    """On another day the tokenizer's own may have another date."""
    store = LocalStore(tmp_path)
    first = PromptTemplate("chat", "Today: 1 Dec ", "", True, "a template")
    later = PromptTemplate("chat", "Today: 2 Dec ", "", True, "another")
    assert loop._of_the_first_attempt(store, first) == first
    assert loop._of_the_first_attempt(store, later) == first


def test_a_tokenizer_without_a_token_to_pad_with_is_refused(
    group, tmp_path: Path, preference_rows: list[dict]
) -> None:
    model = save_model_without_a_spare_token(tmp_path / "model")
    config = TrainingConfig(template="plain", bf16=False, num_workers=1)
    rows = InputShard("run", "digest", functools.partial(list, preference_rows))
    out_dir = tmp_path / "stage"
    task = TrainingTask("pretraining", config, str(model), (rows,), str(out_dir))
    with pytest.raises(ModelError, match=r"no special token to use as pad(.|\n)*differs from EOS"):
        train(task, lambda row: None)
    assert not (out_dir / "metrics.jsonl").exists()
