"""What `--help` and the shell's completion say beyond what typer knows: facts, keys, recipes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from codepmp_ray.command.registry import Command

if TYPE_CHECKING:
    from codepmp_ray.config.base import Section
    from codepmp_ray.config.keys import Key

_MOST_KEYS = 150  # of a help page; beyond it only the sections are named


def write_facts(spec: Command, formatter: Any) -> None:
    """Needs, writes, examples and keys, in click's `formatter`."""
    for heading, text in (("Needs", spec.needs), ("Writes", spec.writes)):
        with formatter.section(heading):
            formatter.write_text(text)
    with formatter.section("Examples"):
        for example in spec.examples:
            formatter.write(f"  $ codepmp {example}\n")
    if spec.job:
        with formatter.section("As a job"):
            formatter.write(f"  $ ray job submit --working-dir . -- python -m jobs.{spec.job}\n")
    if not spec.sections:
        return
    keys = [key for section in spec.sections for key in keys_below(spec, section)]
    names = ", ".join(spec.sections)
    if len(keys) > _MOST_KEYS:
        with formatter.section("Keys"):
            formatter.write_text(f"Those of {names}: `codepmp config keys SECTION` lists them.")
        return
    with formatter.section(f"Keys of {names} with their defaults (codepmp config keys explains)"):
        for key in keys:
            formatter.write(f"  {key.shown}\n")


def keys_below(spec: Command, name: str) -> Iterator[Key]:
    """Every key of the section called `name` in what the command reads, with its default."""
    from codepmp_ray.config.keys import keys_of

    return (key for key in keys_of(defaults(spec)) if f"{key.name}.".startswith(f"{name}."))


def defaults(spec: Command) -> Section:
    """The command's settings without a recipe."""
    if spec.settings == "studies":
        from codepmp_ray.config.studies import StudiesConfig

        return StudiesConfig.model_construct()  # by itself it names a set that it does not have
    from codepmp_ray.config.recipe import Recipe

    return Recipe()


def complete_recipes(spec: Command) -> Callable[..., Iterator[str]]:
    """A completion of names of recipes, as typer calls it."""

    def complete(incomplete: str) -> Iterator[str]:
        from codepmp_ray.config.recipe import recipe_names

        names = recipe_names("studies" if spec.settings == "studies" else "")
        return (name for name in names if name.startswith(incomplete))

    return complete


def complete_words(spec: Command) -> Callable[..., Iterator[str]]:
    """A completion of keys, as typer calls it."""

    def complete(incomplete: str) -> Iterator[str]:
        from codepmp_ray.config.keys import keys_of

        if not spec.settings:
            return iter(())
        keys = (f"{key.name}=" for key in keys_of(defaults(spec)))
        return (key for key in keys if key.startswith(incomplete))

    return complete
