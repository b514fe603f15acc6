"""Other weights for a service that runs: which may be loaded, and what is refused before they are.

A training that changes its reward model every few steps asks `POST /admin/weights`. Each replica
loads them in place; the shapes have to be those of the model that the service was started with.
"""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from codepmp_ray.errors import InputError
from codepmp_ray.modeling.checkpoint_files import read_headers
from codepmp_ray.modeling.sources import CONFIG_FILE
from codepmp_ray.storage import is_uri, open_store
from codepmp_ray.weights_digest import weights_digest

# What an export's configuration says of its origin only.
_OF_ORIGIN = {"_name_or_path", "transformers_version", "torch_dtype", "dtype"}


@dataclass(frozen=True)
class Weights:
    """Attributes:
    version: grows with each change; 0 is what the service was started with.
    path: folder or URI, as every replica can read it.
    digest: of `weights_digest`; None of what the service was started with.
    base: digest of what it was started with. Another version of the service does not take them.
    """

    version: int
    path: str = ""
    digest: str | None = None
    base: str | None = None


class WeightsRequest(BaseModel):
    """`POST /admin/weights`."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    path: str = Field(min_length=1, max_length=4096, description="A folder or its URI.")
    model: str | None = Field(None, description="Which one; null: the first of the service.")
    weights_digest: str = Field(
        pattern="^[0-9a-f]{64}$", description="As /v1/models tells it of a service that has them."
    )


class WeightsAnswer(BaseModel):
    weights_digest: str = Field(description="What answers from now on.")
    load_s: float


def allowed_place(path: str, roots: Iterable[str]) -> str:
    """The path of a place below one of `roots`, links followed. Raises InputError."""
    if is_uri(path):
        scheme, _, rest = path.partition("://")
        place = f"{scheme}://{posixpath.normpath(rest)}"
        below = [root.rstrip("/") for root in roots if is_uri(root)]
        if any(place.startswith(f"{root}/") for root in below):
            return place
    elif os.path.isabs(path):
        place = os.path.realpath(path)
        folders = [os.path.realpath(root) for root in roots if not is_uri(root)]
        if any(Path(place).is_relative_to(folder) for folder in folders):
            return place
    raise InputError(
        "path is not below any of serving.weight_roots.",
        "Give a path from the root, or a URI, below one of them.",
    )


def require_same_shape(served: str, folder: str, digest: str | None) -> None:
    """Raises InputError unless the export in `folder` has `digest` and is `served` with other
    values: nothing else can be loaded in place.
    """
    found = weights_digest(folder)
    if found != digest:
        raise InputError(
            f"The weights there have the digest {found}, not {digest}.",
            "Send the digest of what lies there, when it is written to the end.",
        )
    old, new = _config(served), _config(folder)
    if changed := sorted(key for key in old | new if old.get(key) != new.get(key)):
        raise InputError(
            f"The configurations differ in {', '.join(changed[:3])}.",
            "Deploy another model as a new version of the service.",
        )
    if _shapes(served) != _shapes(folder):
        raise InputError(
            "Names or shapes of the tensors differ from those of the served model.",
            "Deploy another model as a new version of the service.",
        )


def _config(folder: str) -> dict[str, Any]:
    facts = json.loads((Path(folder) / CONFIG_FILE).read_text(encoding="utf-8"))
    return {key: value for key, value in facts.items() if key not in _OF_ORIGIN}


def _shapes(folder: str) -> dict[str, tuple[int, ...]]:
    tensors = read_headers(open_store(folder), folder).tensors
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
