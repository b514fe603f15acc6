"""Adapters as peft's `save_pretrained` writes them, for `PeftModel.from_pretrained` over the base.

    adapter_config.json   adapter_model.safetensors   tokenizer and template

The reward head lies in the same file, as one of peft's `modules_to_save`.
"""

from __future__ import annotations

from typing import Any

from codepmp_ray.config.lora import LoraConfig
from codepmp_ray.hub_models import hub_model
from codepmp_ray.modeling.export import (
    empty_export,
    exported_name,
    is_first_rank,
    save_texts,
    whole,
    write_file,
    writing,
)
from codepmp_ray.modeling.lora import is_adapter, peft_settings
from codepmp_ray.modeling.preference_model import PreferenceModel
from codepmp_ray.preference.tokenization import PromptTemplate
from codepmp_ray.redaction import redacted
from codepmp_ray.storage import Store

_WEIGHTS_FILE = "adapter_model.safetensors"


def export_adapters(
    model: PreferenceModel,
    lora: LoraConfig,
    base: str,
    tokenizer: Any,
    template: PromptTemplate,
    target: Store,
) -> None:
    """Write adapters and reward head, in fp32, to `target`; before they are merged.

    Collective where there is a process group. `base` is what training began with.
    """
    plain = empty_export(model, 0, next(model.parameters()).dtype)
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    tensors = {
        f"base_model.model.{exported_name(name, plain)}".replace(".default.", "."): whole(
            value.detach()
        ).cpu()
        for name, value in trained.items()
    }
    with writing():
        if not is_first_rank():
            return
        write_file(tensors, target, _WEIGHTS_FILE)
        hub = hub_model(base)
        settings = peft_settings(
            lora,
            sorted(
                {name.split(".lora_")[0].rpartition(".")[2] for name in filter(is_adapter, trained)}
            ),
            task_type="SEQ_CLS",
            modules_to_save=["score"],
            inference_mode=True,
            base_model_name_or_path=hub.repo if hub else redacted(base),
            revision=hub.revision if hub else None,
        )
        with target.scratch_folder() as folder:
            settings.save_pretrained(folder)
            save_texts(model, tokenizer, template, folder)
            for path in sorted(folder.iterdir()):
                target.take(path.name, path)
