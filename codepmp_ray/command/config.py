"""`codepmp config`: recipes and their keys."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from codepmp_ray.command.registry import command
from codepmp_ray.errors import ConfigError

if TYPE_CHECKING:
    from codepmp_ray.config.base import Section
    from codepmp_ray.config.recipe import Recipe

_Studies = Annotated[bool, Option("--studies", help="Of recipes of studies.")]
_NOTHING = "Nothing."


@command(
    "config show",
    needs="A recipe.",
    writes=_NOTHING,
    examples=("config show --config laptop", "config show -c qwen2-1.5b-math --json"),
)
def show(recipe: "Recipe") -> dict[str, Any]:
    """Show a recipe as it is read: its own keys, overrides and every default."""
    import yaml

    values = recipe.model_dump(mode="json")
    print(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), end="")
    return values


@command(
    "config keys",
    settings="",
    words="SECTION",
    needs=_NOTHING,
    writes=_NOTHING,
    examples=("config keys synthesis", "config keys pretraining.learning_rate --json"),
)
def keys(words: list[str], studies: _Studies = False) -> dict[str, Any]:
    """List keys with default and meaning: all of them, or those of sections.

    Keys marked with * only say how the work is run: changing them makes nothing anew.
    """
    from codepmp_ray.config.keys import keys_of
    from codepmp_ray.config.recipe import did_you_mean

    every = list(keys_of(_kind(studies).model_construct()))
    sections = {key.name.rsplit(".", n)[0] for key in every for n in range(key.name.count(".") + 1)}
    for word in words:
        if word not in sections:
            raise ConfigError(f"There is no key {word} ({did_you_mean(word, sections, 'keys')}).")
    wanted = tuple(f"{word}." for word in words)
    found = [key for key in every if not wanted or f"{key.name}.".startswith(wanted)]
    for key in found:
        mark = "" if key.changes_result else " *"
        about = f"\n    {key.about}" if key.about else ""
        print(f"{key.shown}  ({key.kind}){mark}{about}")
    return {
        key.name: {
            "default": key.value,
            "type": key.kind,
            "about": key.about,
            "changes_result": key.changes_result,
        }
        for key in found
    }


@command(
    "config schema",
    settings="",
    needs=_NOTHING,
    writes=_NOTHING,
    examples=("config schema > recipe.schema.json", "config schema --studies"),
)
def schema(studies: _Studies = False) -> None:
    """Print the JSON schema of recipes, for editors."""
    print(json.dumps(_kind(studies).model_json_schema(), indent=2))


@command(
    "config diff",
    settings="",
    words="OLD NEW",
    needs="Two of these: a recipe's path or name, or the folder of a stage (its manifest.json).",
    writes=_NOTHING,
    examples=(
        "config diff laptop qwen2-1.5b-math",
        "config diff runs/laptop/corpus-0123456789ab laptop",
    ),
)
def diff(words: list[str]) -> dict[str, Any]:
    """Say which keys differ between two recipes, or between a recipe and what made a stage."""
    from codepmp_ray.config.keys import in_short, keys_of

    if len(words) != 2:
        raise ConfigError(f"{len(words)} recipes are given.", "Give two: OLD NEW.")
    old, new = ({key.name: key.value for key in keys_of(_recipe(word))} for word in words)
    found = {
        name: {"old": old.get(name), "new": new.get(name)}
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    }
    for name, values in found.items():
        print(f"{name}: {in_short(values['old'])} -> {in_short(values['new'])}")
    if not found:
        print("No key differs.")
    return found


def _kind(studies: bool) -> "type[Section]":
    from codepmp_ray.config.recipe import Recipe
    from codepmp_ray.config.studies import StudiesConfig

    return StudiesConfig if studies else Recipe


def _recipe(word: str) -> "Recipe":
    from codepmp_ray.config.recipe import load_recipe, parse_recipe

    manifest = Path(word) / "manifest.json"
    if not manifest.is_file():
        return load_recipe(word)
    try:
        return parse_recipe(json.loads(manifest.read_bytes())["recipe"], str(manifest))
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{manifest} is no stage's manifest ({error!r}).") from error
