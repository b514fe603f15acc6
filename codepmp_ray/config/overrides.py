"""Overrides of the command line, `section.key=value`: each changes the key that it names, alone."""

from __future__ import annotations

import re
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel

from codepmp_ray.config.base import Section, explicit_fields
from codepmp_ray.errors import ConfigError


def with_override(kind: type[BaseModel], data: dict[str, Any], override: str) -> dict[str, Any]:
    """The sections `data` of a `kind` with `override` applied; its value is YAML.

    `data` stays as it is: YAML aliases and merges make several places of it one object, and a
    change in place would be a change of all of them.
    """
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(
            f"{override!r} is not an override.", "Write section.key=value, for example seed=1."
        )
    for blank in re.finditer(r"\s#", text):
        if _parsed(text) == _parsed(text[: blank.start()]):
            raise ConfigError(
                f"{override!r}: what begins with # is a comment of YAML and would be left out.",
                f"Quote it: {key}='{text}' inside of the shell's own quotes.",
            )
    try:
        # YAML reads 1e-5 as a string; pydantic turns it into a number where one is expected.
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{override!r}: the value is not valid YAML.") from error
    return _changed(data, kind, key, value, override)


def _parsed(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        return str(error)  # of the whole: the caller says so


def section_type(annotation: Any) -> type[BaseModel] | None:
    """The section that a field of this type holds: alone, or null, or as entries."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(section_type, get_args(annotation))), None)


def _changed(
    node: dict[str, Any], annotation: Any, key: str, value: Any, override: str
) -> dict[str, Any]:
    name, rest = _split(node, key)
    if rest:
        inner, default = _below(annotation, name)
        child = node.get(name)
        if child is None:
            child = default
        if isinstance(child, Section):
            child = explicit_fields(child)
        if not isinstance(child, dict):
            whole = override.partition("=")[0].removesuffix(f".{rest}")
            raise ConfigError(
                f"{override!r}: {name} holds a value, not a section.",
                f"Replace it as a whole: {whole}=value.",
            )
        value = _changed(child, inner, rest, value, override)
    return {**node, name: value}


def _split(node: dict[str, Any], key: str) -> tuple[str, str]:
    """The first part of `key` and what follows; names of entries (qwen2-1.5b) may hold dots."""
    known = [name for name in node if isinstance(name, str) and f"{key}.".startswith(f"{name}.")]
    name = max(known, key=len, default=key.partition(".")[0])
    return name, key[len(name) + 1 :]


def _below(annotation: Any, name: str) -> tuple[Any, Any]:
    """Type of what is called `name` in a value of type `annotation`, and what it is by default."""
    if get_origin(annotation) is dict:
        return get_args(annotation)[1], {}
    section = section_type(annotation)
    field = section.model_fields.get(name) if section else None
    if field is None:
        return None, {}
    # A map begins with its default's entries: `models.small.seed=1` adds a model to them. What is
    # left out of a section follows when it is validated.
    return field.annotation, field.default if isinstance(field.default, dict) else {}
