"""A recipe as text in an environment variable: how it travels with a job that is sent to a cluster.

A path or a name would mean another file there, or none. `--config env:CODEPMP_RECIPE` reads it.
"""

from __future__ import annotations

import json
import os
from typing import Any

from codepmp_ray.config.base import Section
from codepmp_ray.errors import ConfigError

SCHEME = "env:"
VARIABLE = "CODEPMP_RECIPE"
NAME = f"{SCHEME}{VARIABLE}"
# KubeRay hands the environment to a shell inside double quotes, where these two are commands.
_ESCAPED = {"$": "\\u0024", "`": "\\u0060"}


def as_text(section: Section) -> str:
    """What was set in `section`, as JSON in printable ASCII without `$` and backquotes."""
    text = json.dumps(section.model_dump(mode="json", exclude_unset=True))
    for character, escape in _ESCAPED.items():
        text = text.replace(character, escape)
    return text


def read_carried(name: str) -> Any:
    """The sections in the variable that `name`, `env:VARIABLE`, names. Raises ConfigError."""
    variable = name.removeprefix(SCHEME)
    text = os.environ.get(variable)
    if text is None:
        raise ConfigError(
            f"The recipe {name}: the variable {variable} is not set.",
            "`codepmp cluster submit` sets it for the jobs that it sends.",
        )
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigError(f"The recipe {name} is not JSON: {error}.") from error
