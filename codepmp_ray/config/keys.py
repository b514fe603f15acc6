"""Every key of a recipe by its dotted name: value, what its section says of it, differences."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from codepmp_ray.config.base import Section, attributes_of, is_operational
from codepmp_ray.redaction import redacted, redacted_values

_ABSENT = object()
_MAX_CHARS = 60
_MODULE = re.compile(r"\b(?:typing|codepmp_ray\.[\w.]*)\.")


@dataclass(frozen=True)
class Key:
    """One key of a section that is there.

    Attributes:
        value: as JSON has it; of a recipe without settings its default.
        changes_result: false for what only says how the work is run.
    """

    name: str
    value: Any
    kind: str
    about: str
    changes_result: bool

    @property
    def shown(self) -> str:
        """`key=value` as an override has it."""
        return f"{self.name}={in_short(self.value)}"


def keys_of(section: Section, prefix: str = "", changes_result: bool = True) -> Iterator[Key]:
    """All keys below `section`, in their order."""
    plain = section.model_dump(mode="json")
    about = attributes_of(type(section))
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        decides = changes_result and not is_operational(info)
        if isinstance(value, Section):
            yield from keys_of(value, f"{prefix}{name}.", decides)
            continue
        kind = re.sub(_MODULE, "", inspect.formatannotation(info.annotation))
        words = about.get(name, "")
        yield Key(f"{prefix}{name}", plain[name], kind, words, decides)


def differences(
    old: Mapping[str, Any], new: Section, prefixes: tuple[str, ...] = ()
) -> dict[str, tuple[Any, Any]]:
    """Key -> (old value, new value), for the keys that change a result and begin with a prefix.

    `old` is the JSON of a section like `new`, perhaps of another version: a key that it does not
    have had the default that it has now.
    """
    defaults = {key.name: key.value for key in keys_of(type(new).model_construct())}
    found = {}
    for key in keys_of(new):
        if not key.changes_result or not _begins(key.name, prefixes):
            continue
        before = _dig(old, key.name)
        if before is _ABSENT:
            before = defaults.get(key.name)
        if before != key.value and before != redacted_values(key.value):  # as manifests have it
            found[key.name] = (before, key.value)
    return found


def in_short(value: Any) -> str:
    """A value in one short line, without credentials of URLs."""
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    text = redacted(" ".join(text.split()))
    return text if len(text) <= _MAX_CHARS else f"{text[: _MAX_CHARS - 3]}..."


def shown_differences(found: Mapping[str, tuple[Any, Any]], most: int = 6) -> str:
    """`corpus.max_files 96 -> 200, ...`, at most `most` of them."""
    parts = [f"{name} {in_short(old)} -> {in_short(new)}" for name, (old, new) in found.items()]
    more = [f"and {len(parts) - most} more"] if len(parts) > most else []
    return ", ".join([*parts[:most], *more])


def _begins(name: str, prefixes: tuple[str, ...]) -> bool:
    return not prefixes or any(f"{name}.".startswith(f"{prefix}.") for prefix in prefixes)


def _dig(data: Any, name: str) -> Any:
    for part in name.split("."):
        if not isinstance(data, Mapping) or part not in data:
            return _ABSENT
        data = data[part]
    return data
