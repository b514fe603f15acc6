"""Where a recipe points to: keys whose values are files, folders, URIs or models.

A recipe that is sent to a cluster may hold none that only means something in this folder.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codepmp_ray.config.audit import AuditConfig
from codepmp_ray.config.base import Section
from codepmp_ray.config.corpus import SourceConfig
from codepmp_ray.config.engines import EngineConfig
from codepmp_ray.config.study_materials import PoolConfig, SetConfig
from codepmp_ray.errors import ConfigError
from codepmp_ray.hub_models import is_hub_id
from codepmp_ray.storage.uris import is_uri, strip_file_scheme

# Keys that name a place; so do those that end like this.
NAMES = frozenset(
    {"run_dir", "data_dir", "keep_dir", "path", "content_uri"}
    | {"earlier", "process_bench", "weight_roots"}
)
ENDINGS = ("_path", "_file")
# A folder, a URI, a model that comes with a package, or a name of the hub.
MODELS = frozenset({"model_name_or_path", "model_path", "tokenizer", "scorer"})
_BUILTIN = "builtin:"
_ALMOST_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/(?!/)")


@dataclass(frozen=True)
class Place:
    """One value that names a place; `may_be_hub_name` where owner/name is a model or set there."""

    key: str
    value: str
    may_be_hub_name: bool = False

    @property
    def is_relative(self) -> bool:
        """Whether it depends on the folder, or on the home, of whoever reads it."""
        value = self.value
        if is_uri(value) or value.startswith(_BUILTIN):
            return False
        if Path(strip_file_scheme(value)).is_absolute():
            return False
        # A name without an owner is an old one of the hub, unless it is a folder here.
        is_name = is_hub_id(value) or not (set(value) & set("/~") or Path(value).exists())
        return not (self.may_be_hub_name and is_name)


def places_of(section: Section, prefix: str = "") -> Iterator[Place]:
    """Every place that is set in `section` or below it.

    Files of sets and pools of studies are not among them: they lie below data_dir.
    """
    for name in type(section).model_fields:
        yield from _below(section, name, getattr(section, name), f"{prefix}{name}")


def require_common_places(section: Section, but: Collection[str] = ()) -> None:
    """`require_common` for the places of a recipe, all `but` these keys."""
    require_common([place for place in places_of(section) if place.key not in but])


def require_common(places: Sequence[Place]) -> None:
    """Raise ConfigError, with every key, for places that other machines would look for in vain."""
    found = [place for place in places if place.is_relative]
    if not found:
        return
    shown = ", ".join(f"{place.key}={place.value}" for place in found)
    verb = "is" if len(found) == 1 else "are"
    raise ConfigError(
        f"{shown} {verb} relative: on a cluster that is a temporary folder of one node.",
        f"Name storage that all nodes share: {found[0].key}=/mnt/... or s3://bucket/....",
    )


def require_whole_schemes(section: Section) -> None:
    """Raise ConfigError for `s3:/bucket`, which would be a folder called `s3:`."""
    for place in places_of(section):
        if _ALMOST_URI.match(place.value):
            scheme, _, rest = place.value.partition(":/")
            raise ConfigError(
                f"{place.key}={place.value} is neither a path nor a URI.",
                f"Write {scheme}://{rest}, or ./{place.value} for a folder of that name.",
            )


def _below(section: Section, name: str, value: Any, key: str) -> Iterator[Place]:
    if isinstance(value, SetConfig | PoolConfig):
        return
    if isinstance(value, Section):
        yield from places_of(value, f"{key}.")
    elif isinstance(value, Mapping):
        for entry, item in value.items():
            if isinstance(item, Section):
                yield from _below(section, name, item, f"{key}.{entry}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _below(section, name, item, f"{key}.{index}")
    elif isinstance(value, str) and value and _is_place(section, name):
        yield Place(key, value, name in MODELS or _is_hub_set(section))


def _is_place(section: Section, name: str) -> bool:
    if isinstance(section, EngineConfig):
        if name == "chat_template":  # a file, or the text itself
            return section.template_file is not None
        if section.kind == "fake":
            return False
    if name == "pools":  # elsewhere these are names
        return isinstance(section, AuditConfig)
    return name in NAMES or name in MODELS or name.endswith(ENDINGS)


def _is_hub_set(section: Section) -> bool:
    return isinstance(section, SourceConfig) and section.kind == "huggingface"
