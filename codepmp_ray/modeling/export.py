"""Export as a plain transformers model that loads everywhere without code of ours.

Reward models become `*ForSequenceClassification`: one label, `problem_type="regression"` (vLLM
applies a sigmoid otherwise) and a pad token distinct from EOS (transformers reads the reward at the
last token that is not pad). Their chat template ends where the reward is read. Policies (sft, dpo)
become `*ForCausalLM`.

Files are made one after the other, each by one rank, which collects its tensors one by one. So no
host holds more than one file, other ranks no more than one tensor, and nothing needs a disk that
all of them see.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from codepmp_ray.errors import ModelError, StorageError
from codepmp_ray.modeling.chat_template import scored_conversation
from codepmp_ray.modeling.collectives import failing_together
from codepmp_ray.modeling.preference_model import PreferenceModel
from codepmp_ray.modeling.sources import CONFIG_FILE
from codepmp_ray.preference.tokenization import PromptTemplate
from codepmp_ray.storage import Store

_MAX_FILE_BYTES = 5 * 10**9  # as the hub's files are cut


def export_model(
    model: PreferenceModel,
    tokenizer: Any,
    template: PromptTemplate,
    target: Store,
    dtype: torch.dtype,
    max_file_bytes: int = _MAX_FILE_BYTES,
    before_last: Callable[[], None] = lambda: None,
) -> None:
    """Write weights, configuration, tokenizer and template to `target`.

    CONFIG_FILE comes last: where it stands, the model is whole.

    Collective where there is a process group. Raises StorageError on every rank when one cannot
    write.

    Args:
        max_file_bytes: of a file of weights; a larger tensor has a file of its own.
        before_last: called on rank 0 before CONFIG_FILE is written.
    """
    pad_id = distinct_pad_id(tokenizer, template)
    plain = _empty_export(model, pad_id, dtype)
    _write_weights(_export_state(model, plain), target, dtype, max_file_bytes)
    with _writing():
        if not _rank():
            _write_rest(model, plain, tokenizer, template, target, pad_id, before_last)


def _write_rest(
    model: PreferenceModel,
    plain: Any,
    tokenizer: Any,
    template: PromptTemplate,
    target: Store,
    pad_id: int,
    before_last: Callable[[], None],
) -> None:
    with target.scratch_folder() as folder:
        plain.config.save_pretrained(folder)
        if plain.can_generate():
            plain.generation_config.save_pretrained(folder)
        tokenizer.pad_token_id = pad_id
        tokenizer.padding_side = "right"
        # None for plain prompts: the base's own template renders what was never trained.
        tokenizer.chat_template = template.chat_template
        if template.chat_template and model.score is not None:
            tokenizer.chat_template = scored_conversation(
                template.chat_template, template.append_eos
            )
        tokenizer.save_pretrained(folder)
        template.save(folder)
        names = {path.name for path in folder.iterdir()}
        for name in sorted(names - {CONFIG_FILE}):
            target.take(name, folder / name)
        before_last()
        target.take(CONFIG_FILE, folder / CONFIG_FILE)


def _write_weights(
    state: dict[str, torch.Tensor], target: Store, dtype: torch.dtype, max_file_bytes: int
) -> None:
    """The safetensors files of `state` in `dtype`, and their index where there are several."""
    sizes = {name: tensor.numel() * dtype.itemsize for name, tensor in state.items()}
    numbers = file_of_tensor(sizes, max_file_bytes)
    num_files = max(numbers.values())
    names = ["model.safetensors"]
    if num_files > 1:
        names = [f"model-{n:05d}-of-{num_files:05d}.safetensors" for n in range(1, num_files + 1)]
    for number, file in enumerate(names, start=1):
        is_mine = number % _num_ranks() == _rank()
        tensors: dict[str, torch.Tensor] = {}
        for name in (name for name in state if numbers[name] == number):
            whole = _whole(state[name].detach().to(dtype))
            if is_mine:
                tensors[name] = whole.cpu().contiguous()
        with _writing():
            if is_mine:
                _write_file(tensors, target, file)
    with _writing():
        if num_files > 1 and not _rank():
            places = {name: names[number - 1] for name, number in numbers.items()}
            index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": places}
            target.put("model.safetensors.index.json", json.dumps(index, indent=2).encode())


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _write_file(tensors: dict[str, torch.Tensor], target: Store, file: str) -> None:
    with target.scratch_folder() as folder:
        path = Path(folder) / file
        try:
            save_file(tensors, path, metadata={"format": "pt"})
        except Exception as error:  # of safetensors: its class and text differ by version
            raise StorageError(
                f"Cannot write {path}: {error}.",
                "Free disk space there ($TMPDIR for runs in an object store) and run the same "
                "command; the export begins anew.",
            ) from error
        target.take(file, path)


@contextmanager
def _writing() -> Iterator[None]:
    """What one rank cannot write ends all."""
    with failing_together():
        try:
            yield
        except OSError as error:  # of what libraries write
            raise StorageError(
                f"Cannot write {error.filename or 'the export'}: {error.strerror}.",
                "Free disk space there ($TMPDIR for runs in an object store) and run the same "
                "command.",
            ) from error


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _num_ranks() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def file_of_tensor(sizes: dict[str, int], max_bytes: int) -> dict[str, int]:
    """Tensor name -> number of its file, from 1; in the order of `sizes`, each up to `max_bytes`.

    A tensor that is larger has a file of its own.
    """
    numbers, number, filled = {}, 1, 0
    for name, size in sizes.items():
        if filled and filled + size > max_bytes:
            number, filled = number + 1, 0
        numbers[name] = number
        filled += size
    return numbers


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


def _empty_export(model: PreferenceModel, pad_id: int, dtype: torch.dtype) -> Any:
    """The transformers model to export, without memory; its config says all that matters."""
    config = type(model.config).from_dict(model.config.to_dict())
    kind = AutoModelForCausalLM
    if model.score is not None:
        kind = AutoModelForSequenceClassification
        config.num_labels = 1
        config.problem_type = "regression"
        config.id2label, config.label2id = {0: "reward"}, {"reward": 0}
    config.pad_token_id = pad_id
    config.use_cache = True
    config.dtype = dtype
    with torch.device("meta"):
        plain: Any = kind.from_config(config)
    plain.config.architectures = [type(plain).__name__]
    return plain


def _export_state(model: PreferenceModel, plain: Any) -> dict[str, torch.Tensor]:
    """Parameters under the names that `plain` gives them; a reward model has no LM head."""
    state = {}
    for name, parameter in model.named_parameters():
        if name.startswith("lm_head.") and model.score is not None:
            continue
        state[name.replace("backbone.", f"{plain.base_model_prefix}.", 1)] = parameter
    expected = {name for name, _ in plain.named_parameters()}
    if expected != set(state):
        raise ModelError(
            f"Export lacks {sorted(expected - set(state))} and has no place for "
            f"{sorted(set(state) - expected)}."
        )
    return state
