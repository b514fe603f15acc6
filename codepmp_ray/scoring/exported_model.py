"""What is refused before an engine loads a reward model, and what settings suit it."""

from __future__ import annotations

import json
from typing import Any

from codepmp_ray.config.evaluation import ServingConfig
from codepmp_ray.errors import ConfigError, InputError
from codepmp_ray.modeling.checkpoint_checks import require_unquantised
from codepmp_ray.modeling.checkpoint_files import HEAD_FILE
from codepmp_ray.modeling.sources import CONFIG_FILE, model_store
from codepmp_ray.preference.tokenization import TEMPLATE_FILE
from codepmp_ray.storage import Store


def require_model(config: ServingConfig, model_path: str) -> dict[str, Any]:
    """Refuse what is no export, and a context longer than the model was made for. Returns what its
    configuration says.

    For the torch engine also a quantised model, which only vLLM can read; for vLLM a base with the
    reward head beside it. `model_path` is a folder
    or its URI; weights are not read.
    """
    store = model_store(model_path)
    for name in (CONFIG_FILE, *([TEMPLATE_FILE] if config.template == "recorded" else [])):
        if not store.exists(name):
            raise InputError(
                f"{model_path} is not an exported reward model: it has no {name}.",
                "Run codepmp train rm, set serving.model_path to an exported model, or "
                "serving.template=own for a model of others.",
            )
    facts = _facts(store)
    if config.engine == "torch":
        if config.quantization is not None:
            raise ConfigError(
                f"serving.quantization={config.quantization} is vLLM's, and serving.engine=torch.",
                "Set serving.engine=vllm, or leave quantization out.",
            )
        require_unquantised(model_path, facts)
    elif store.exists(HEAD_FILE):
        raise ConfigError(
            f"serving.engine={config.engine} cannot serve {model_path}: its reward head is in "
            f"{HEAD_FILE}, since {facts.get('model_type')} has no sequence classification class.",
            "Set serving.engine=torch.",
        )
    longest = facts.get("max_position_embeddings")
    if isinstance(longest, int) and config.max_model_len > longest:
        raise ConfigError(
            f"serving.max_model_len={config.max_model_len} exceeds the {longest} positions of the "
            f"model in {model_path}.",
            f"Set serving.max_model_len={longest} or less.",
        )
    return facts


def suited(config: ServingConfig, model_path: str) -> ServingConfig:
    """`config` with what suits the model, where it does not say itself: the model's own template
    if ours is not recorded beside it, and no more positions than it has.
    """
    store = model_store(model_path)
    if not store.exists(CONFIG_FILE):
        return config  # refused by `require_model`
    changes: dict[str, Any] = {}
    if "template" not in config.model_fields_set and not store.exists(TEMPLATE_FILE):
        changes["template"] = "own"
    longest = _facts(store).get("max_position_embeddings")
    if "max_model_len" not in config.model_fields_set and isinstance(longest, int):
        changes["max_model_len"] = min(longest, config.max_model_len)
    return config.model_copy(update=changes)


def _facts(store: Store) -> dict[str, Any]:
    try:
        return json.loads(store.read_bytes(CONFIG_FILE).decode())
    except ValueError as error:
        raise InputError(f"{store.locate(CONFIG_FILE)} cannot be read: {error}.") from error
