"""The commands: each is named once, by the decorator of its body."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar

# Ray sets it in every job that its jobs API has started.
SUBMITTED_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"

Body = TypeVar("Body", bound=Callable[..., Any])


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        path: its words after `codepmp`.
        body: what it does. It is given the settings first, then its options by name; of these
            `words` are what stands on the command line beside overrides, and `config` the recipe's
            name. What it returns is what `--json` prints; annotated with None there is no `--json`.
        needs / writes: for people.
        examples: two command lines, without `codepmp`.
        job: NAME of `python -m jobs.NAME`; "" where there is nothing to submit.
        settings: what it reads: a recipe, a recipe of studies, or "" for nothing.
        config: the recipe without `--config`.
        is_direct: with words it takes no recipe unless one is named.
        sections: dotted names of the sections whose keys it reads.
        makes: stages that it makes.
        words: how the help calls `words`.
        takes_rest: what follows the first word is not for this command, options included.
    """

    path: str
    body: Callable[..., Any]
    needs: str
    writes: str
    examples: tuple[str, str]
    job: str = ""
    settings: Literal["recipe", "studies", ""] = "recipe"
    config: str = "laptop"
    is_direct: bool = False
    sections: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()
    words: str = ""
    takes_rest: bool = False

    @cached_property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """Of the body, without the settings."""
        found = list(inspect.signature(self.body).parameters.items())
        return dict(found[bool(self.settings) :])

    @property
    def has_json(self) -> bool:
        return inspect.signature(self.body).return_annotation not in (None, "None")


COMMANDS: dict[str, Command] = {}  # by path, in the order of the road


def command(path: str, **facts: Any) -> Callable[[Body], Body]:
    """Registers the body below it as `codepmp PATH`; `facts` are fields of Command."""

    def register(body: Body) -> Body:
        COMMANDS[path] = Command(path, body, **facts)
        return body

    return register


def commands_of_jobs() -> dict[str, Command]:
    """Job -> its command."""
    return {spec.job: spec for spec in COMMANDS.values() if spec.job}
