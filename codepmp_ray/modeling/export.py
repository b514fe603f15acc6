"""Export as a plain transformers model that loads everywhere without code of ours.

Reward models become `*ForSequenceClassification`: one label, `problem_type="regression"` (vLLM
applies a sigmoid otherwise) and a pad token distinct from EOS (transformers reads the reward at the
last token that is not pad). Their chat template ends where the reward is read. Policies (sft, dpo)
become `*ForCausalLM`.

A family without that class is exported as its base model (`AutoModel`) and, in a file of its own,
HEAD_FILE, the head's `score.weight` [1, H]: the reward is its product with the last hidden state of
the last token. This project's scorers read both; other programs know the base alone.

Files are made one after the other, each by one rank, which collects its tensors one by one. So no
host holds more than one file, other ranks no more than one tensor, and nothing needs a disk that
all of them see.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
)

from codepmp_ray.errors import ModelError, StorageError
from codepmp_ray.modeling.chat_template import scored_conversation
from codepmp_ray.modeling.checkpoint_files import HEAD, HEAD_FILE
from codepmp_ray.modeling.collectives import failing_together
from codepmp_ray.modeling.conversions import StoredLayout
from codepmp_ray.modeling.lora import is_adapter, plain_name
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
    plain = empty_export(model, pad_id, dtype)
    state = _export_state(model, plain)
    if export_kind(model) is AutoModel:
        head = {HEAD: whole(state.pop(HEAD).detach().to(dtype)).cpu()}
        with writing():
            if is_first_rank():
                write_file(head, target, HEAD_FILE)
    _write_weights(state, plain, target, dtype, max_file_bytes)
    with writing():
        if is_first_rank():
            _write_rest(model, plain, tokenizer, template, target, before_last)


def _write_rest(
    model: PreferenceModel,
    plain: Any,
    tokenizer: Any,
    template: PromptTemplate,
    target: Store,
    before_last: Callable[[], None],
) -> None:
    with target.scratch_folder() as folder:
        plain.config.save_pretrained(folder)
        if plain.can_generate():
            plain.generation_config.save_pretrained(folder)
        save_texts(model, tokenizer, template, folder)
        names = {path.name for path in folder.iterdir()}
        for name in sorted(names - {CONFIG_FILE}):
            target.take(name, folder / name)
        before_last()
        target.take(CONFIG_FILE, folder / CONFIG_FILE)


def save_texts(
    model: PreferenceModel, tokenizer: Any, template: PromptTemplate, folder: Path
) -> None:
    """The tokenizer as the export has it, and the template."""
    tokenizer.pad_token_id = distinct_pad_id(tokenizer, template)
    tokenizer.padding_side = "right"
    # None for plain prompts: the base's own template renders what was never trained.
    tokenizer.chat_template = template.chat_template
    if template.chat_template and model.score is not None:
        tokenizer.chat_template = scored_conversation(template.chat_template, template.append_eos)
    tokenizer.save_pretrained(folder)
    template.save(folder)


def _write_weights(
    state: dict[str, torch.Tensor],
    plain: Any,
    target: Store,
    dtype: torch.dtype,
    max_file_bytes: int,
) -> None:
    """The safetensors files of `state` in `dtype`, and their index where there are several."""
    layout = StoredLayout(plain, state)
    sizes = {
        key: math.prod(shape) * dtype.itemsize
        for shapes in layout.shapes.values()
        for key, shape in shapes.items()
    }
    numbers = file_of_tensor(sizes, max_file_bytes)
    num_files = max(numbers.values())
    names = ["model.safetensors"]
    if num_files > 1:
        names = [f"model-{n:05d}-of-{num_files:05d}.safetensors" for n in range(1, num_files + 1)]
    for number, file in enumerate(names, start=1):
        is_mine = number % _num_ranks() == _rank()
        tensors: dict[str, torch.Tensor] = {}
        for name, shapes in layout.shapes.items():
            if not any(numbers[key] == number for key in shapes):
                continue
            tensor = whole(state[name].detach().to(dtype))
            if is_mine:
                for key, piece in layout.pieces(name, tensor.cpu()).items():
                    if numbers[key] == number:
                        tensors[key] = piece.contiguous()
        with writing():
            if is_mine:
                write_file(tensors, target, file)
    with writing():
        if num_files > 1 and is_first_rank():
            places = {name: names[number - 1] for name, number in numbers.items()}
            index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": places}
            target.put("model.safetensors.index.json", json.dumps(index, indent=2).encode())


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of which each rank may hold a part. Collective."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def write_file(tensors: dict[str, torch.Tensor], target: Store, file: str) -> None:
    """A safetensors file. Raises StorageError where it cannot be written."""
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
def writing() -> Iterator[None]:
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


def is_first_rank() -> bool:
    """Whether this rank writes what one alone has to."""
    return _rank() == 0


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


def require_exportable(model: PreferenceModel) -> str:
    """What is said about the export before the first step; empty for the usual one.

    Raises ModelError when it could not be made at the end.
    """
    _export_state(model, empty_export(model, 0, torch.float32))
    if export_kind(model) is not AutoModel:
        return ""
    if any(map(is_adapter, dict(model.named_parameters()))):
        raise ModelError(
            f"{model.config.model_type} has no sequence classification class in transformers, in "
            "which peft would keep the reward head.",
            "Leave lora out and train all weights, or choose another backbone.",
        )
    return (
        f"{model.config.model_type} has no sequence classification class in transformers: the "
        f"model is exported as its base with the reward head in {HEAD_FILE}, which this project's "
        "torch scorer and trainings read and other programs, vLLM among them, do not."
    )


def export_kind(model: PreferenceModel) -> Any:
    """The auto class that loads the export; AutoModel for a base whose head is in HEAD_FILE."""
    if model.score is None:
        return AutoModelForCausalLM
    has_class = type(model.config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    return AutoModelForSequenceClassification if has_class else AutoModel


def export_config(model: PreferenceModel, pad_id: int, dtype: torch.dtype) -> Any:
    """The configuration of the export, without its class."""
    config = type(model.config).from_dict(model.config.to_dict())
    if model.score is not None:
        config.num_labels = 1
        config.problem_type = "regression"
        config.id2label, config.label2id = {0: "reward"}, {"reward": 0}
    config.pad_token_id = pad_id
    config.use_cache = True
    config.dtype = dtype
    return config


def empty_export(model: PreferenceModel, pad_id: int, dtype: torch.dtype) -> Any:
    """The transformers model to export, without memory; its config says all that matters."""
    with torch.device("meta"):
        plain: Any = export_kind(model).from_config(export_config(model, pad_id, dtype))
    plain.config.architectures = [type(plain).__name__]
    return plain


def exported_name(name: str, plain: Any) -> str:
    """The name in a transformers model of what PreferenceModel calls `name`."""
    if not name.startswith("backbone."):
        return name
    bare = plain_name(name.removeprefix("backbone."))
    is_base = plain.base_model is plain
    return bare if is_base else f"{plain.base_model_prefix}.{bare}"


def _export_state(model: PreferenceModel, plain: Any) -> dict[str, torch.Tensor]:
    """Parameters and buffers under the names that `plain` gives them.

    A reward model has no LM head; where its class has no place for the reward head, it is HEAD.
    """
    state = {
        exported_name(name, plain): value
        for name, value in model.state_dict(keep_vars=True).items()
        if not (name.startswith("lm_head.") and model.score is not None) and not is_adapter(name)
    }
    every = {name for name, _ in plain.named_parameters(remove_duplicate=False)}
    buffers = {*plain.state_dict(keep_vars=True)} - every
    expected = {name for name, _ in plain.named_parameters()} | buffers
    if export_kind(model) is AutoModel:
        expected.add(HEAD)
    if expected != set(state):
        raise ModelError(
            f"{type(plain).__name__} cannot hold this model: it lacks "
            f"{sorted(expected - set(state))} and has no place for "
            f"{sorted(set(state) - expected)}.",
            "Choose another backbone (docs/families.md lists those that were compared).",
        )
    return state
