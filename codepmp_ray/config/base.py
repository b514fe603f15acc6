"""The base of every configuration section: frozen, unknown keys refused, fingerprintable."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue

# Labels that a node must have, in Ray's language: x, !x, in(x, y) or !in(x, y). Empty: any node.
LabelSelector = dict[str, str]


class Section(BaseModel):
    """A frozen section of a recipe. Fields marked `operational` do not change what is computed.

    A section given in part is its field's default with those keys changed, at every depth.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: Any, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """With what the class says of each key, which editors show beside it."""
        schema = handler.resolve_ref_schema(handler(core_schema))
        for name, about in attributes_of(cls).items():
            schema["properties"][name]["description"] = about
        schema["description"] = (inspect.getdoc(cls) or "").partition("\n\nAttributes:\n")[0]
        return schema

    @model_validator(mode="before")
    @classmethod
    def _over_the_defaults(cls, data: Any) -> Any:
        # By itself pydantic fills in the defaults of the section's class, not those of the field:
        # `finetuning: {num_workers: 1}` would be a pretraining with one worker.
        if not isinstance(data, dict):
            return data
        fields = cls.model_fields
        return {
            name: _over(fields[name].default, value) if name in fields else value
            for name, value in data.items()
        }

    def result_fields(self) -> dict[str, Any]:
        """The fields that decide the result, nested sections included, as JSON values."""
        kept: dict[str, Any] = {}
        for name, info in type(self).model_fields.items():
            extra = info.json_schema_extra
            if is_operational(info):
                continue
            value = getattr(self, name)
            if isinstance(extra, dict) and extra.get("later") and value == info.default:
                continue
            kept[name] = value.result_fields() if isinstance(value, Section) else _plain(value)
        return kept


def attributes_of(kind: type[Section]) -> dict[str, str]:
    """What the class says below `Attributes:`; several names may share an entry."""
    block = (inspect.getdoc(kind) or "").partition("Attributes:\n")[2]
    found: dict[str, str] = {}
    names: list[str] = []
    for line in block.splitlines():
        if match := re.match(r"    (\w+(?: ?[,/] ?\w+)*): (.*)", line):
            names = re.split(r" ?[,/] ?", match[1])
            found |= dict.fromkeys(names, match[2])
        elif line.startswith("     ") and names:
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
        else:
            names = []
    return found


def explicit_fields(section: Section) -> dict[str, Any]:
    """What `section` was made of, without what its class filled in."""
    return {name: getattr(section, name) for name in section.model_fields_set}


def operational(default: Any, **constraints: Any) -> Any:
    """A field that says how the work is run (workers, ports), not what it computes.

    It is left out of fingerprints, so changing it never makes finished work stale.
    """
    return Field(default=default, json_schema_extra={"operational": True}, **constraints)


def is_operational(info: FieldInfo) -> bool:
    """Whether the field was declared so."""
    extra = info.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("operational"))


def later(default: Any, **constraints: Any) -> Any:
    """A field that came after the first runs: at its default it is in no fingerprint.

    So recipes that do not set it keep the stages that they had before there was the key.
    """
    return Field(default=default, json_schema_extra={"later": True}, **constraints)


def fingerprint(*parts: Any) -> str:
    """12 hex digits that change when any part changes. Parts are JSON values or sections."""
    plain = [part.result_fields() if isinstance(part, Section) else part for part in parts]
    text = json.dumps(plain, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class _Whole(dict[str, Any]):
    """A section over the default of a field further out, which beats those further in."""


def _over(default: Any, given: Any) -> Any:
    """`given` with what it leaves out of the section `default`; anything else is as given.

    Only what `default` says itself: all the rest follows from its class, which may derive it from
    what is given (names of columns from a preset).
    """
    if not isinstance(default, Section) or not isinstance(given, dict) or isinstance(given, _Whole):
        return given
    base = explicit_fields(default)
    return _Whole(base | {name: _over(base.get(name), value) for name, value in given.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Section):
        return value.result_fields()
    return value
