"""`codepmp`: the commands of the registry as one typer application, and each as a job.

Nothing heavy is loaded before a command's body runs: help, completion and a bad recipe are answered
in a fraction of a second.
"""

# No `from __future__ import annotations`: typer reads the annotations of what it calls.
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, redirect_stdout
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from codepmp_ray.command import groups, helping
from codepmp_ray.command.process import kept_attempt, run_command
from codepmp_ray.command.registry import COMMANDS, Command, commands_of_jobs

_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_OVERRIDE = re.compile(r"[A-Za-z_][\w.-]*=")
_ABOUT = "Reward models pretrained on code (CodePMP), distributed with Ray."


def main() -> None:
    """The console script."""
    _root()(prog_name="codepmp")


def run_job(name: str) -> None:
    """`python -m jobs.NAME`: the command that makes it, with the same options."""
    leaf(commands_of_jobs()[name])(prog_name=f"python -m jobs.{name}")


def list_jobs() -> None:
    """`python -m jobs`."""
    print("python -m jobs.NAME [--config RECIPE] [section.key=value]...\n")
    for name, spec in commands_of_jobs().items():
        about = (spec.body.__doc__ or "").partition("\n\n")[0]
        print(f"  {name:<16} codepmp {spec.path:<16} {' '.join(about.split())}")


def leaf(spec: Command) -> TyperCommand:
    """The command line of `spec` alone."""
    found: Any = _root()
    for word in spec.path.split():
        found = found.commands[word]
    return found


def execute(spec: Command, given: dict[str, Any]) -> None:
    """What a command line asks for. `given` are its options; raises CodePMPError."""
    options = {name: value for name, value in given.items() if name in spec.parameters}
    settings, words = settings_of(spec, given)
    if "words" in spec.parameters:
        options["words"] = words
    if spec.settings == "recipe":
        from codepmp_ray.command.reusing import with_reused

        settings = with_reused(settings, given["reuse"] or [])
    with ExitStack() as around:
        if spec.makes:
            from codepmp_ray.command.reusing import arms_of, before_making, print_plan

            arms = arms_of(settings, spec.makes, given.get("compare", False))
            if given["dry_run"]:
                return print_plan(arms)
            around.enter_context(kept_attempt(settings.run_dir, spec.path))
            before_making(arms)
        if given.get("json"):
            around.enter_context(redirect_stdout(sys.stderr))
        outcome = spec.body(*([settings] if spec.settings else []), **options)
    if given.get("json"):
        from codepmp_ray.json_records import record_bytes

        print(record_bytes(outcome, indent=2).decode())


def settings_of(spec: Command, given: dict[str, Any]) -> tuple[Any, list[str]]:
    """The recipe (or recipe of studies) that the command line names, and its other words."""
    words = given.get("overrides") or []
    if not spec.settings:
        return None, words
    overrides = [word for word in words if not spec.words or _OVERRIDE.match(word)]
    others = [word for word in words if spec.words and not _OVERRIDE.match(word)]
    config = given["config"] or (None if spec.is_direct and others else spec.config)
    if spec.settings == "studies":
        from codepmp_ray.config.studies import load_studies

        return load_studies(config, overrides), others
    from codepmp_ray.config.recipe import load_recipe

    return load_recipe(config, overrides), others


class _Root(TyperGroup):
    """Groups and commands in one list, in the order of the road."""

    def list_commands(self, ctx: Any) -> list[str]:
        first = [path.partition(" ")[0] for path in COMMANDS]
        return sorted(self.commands, key=first.index)


class _Leaf(TyperCommand):
    """A command whose help says what the registry knows; @FILE stands for the file's lines."""

    spec: Command

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if self.spec.settings:
            args = [word for arg in args for word in _expanded(ctx, arg)]
        return super().parse_args(ctx, args)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        helping.write_facts(self.spec, formatter)


def _expanded(ctx: Any, argument: str) -> list[str]:
    if not argument.startswith("@"):
        return [argument]
    try:
        return Path(argument[1:]).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        return ctx.fail(f"{argument}: {error}.")


@cache
def _root() -> TyperGroup:
    root = typer.Typer(
        cls=_Root, help=_ABOUT, no_args_is_help=True, context_settings=_HELP, rich_markup_mode=None
    )
    root.callback()(_options)
    parts: dict[str, typer.Typer] = {}
    for spec in COMMANDS.values():
        group, _, name = spec.path.rpartition(" ")
        if group and group not in parts:
            parts[group] = typer.Typer(no_args_is_help=True, context_settings=_HELP)
            root.add_typer(parts[group], name=group, help=groups.ABOUT[group])
        own: dict[str, Any] = {**_HELP, "allow_interspersed_args": not spec.takes_rest}
        place = parts.get(group, root)
        place.command(name, cls=type("Leaf", (_Leaf,), {"spec": spec}), context_settings=own)(
            _callback(spec)
        )
    made = typer.main.get_command(root)
    assert isinstance(made, TyperGroup)
    return made


def _show_version(wanted: bool) -> None:
    if wanted:
        from codepmp_ray import __version__

        print(f"codepmp-ray {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version."),
    ] = False,
) -> None:
    """Options of `codepmp` itself."""


def _callback(spec: Command) -> Callable[..., None]:
    """A function with the command's options as parameters, for typer to read."""

    def callback(**given: Any) -> None:
        run_command(partial(execute, spec, given))

    parameters = {found.name: found for found in _common(spec)}
    own = {
        name: parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in spec.parameters.items()
        if name not in ("words", "config")
    }
    signature = inspect.Signature([*(parameters | own).values()])
    callback.__signature__ = signature  # type: ignore[attr-defined]
    callback.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    callback.__doc__ = spec.body.__doc__
    return callback


def _common(spec: Command) -> Iterator[inspect.Parameter]:
    """Options that many commands have."""
    words = [spec.words] if spec.words else []
    if spec.settings or words:
        metavar = " ".join([*words, *(["section.key=value"] if spec.settings else [])])
        about = "Overrides of the recipe; values are YAML. @FILE stands for the lines of a file."
        yield _parameter("overrides", list[str] | None, None, typer.Argument(
            metavar=metavar, help=about if spec.settings else None, show_default=False,
            autocompletion=helping.complete_words(spec)))  # fmt: skip
    if spec.settings:
        yield _parameter("config", str | None, None, typer.Option(
            "--config", "-c", metavar="RECIPE", autocompletion=helping.complete_recipes(spec),
            help=f"Path or name of a recipe (default: {spec.config})."))  # fmt: skip
    if spec.settings == "recipe":
        about = "Take what this stage made with other settings, and their section of the recipe."
        yield _parameter("reuse", list[str] | None, None, typer.Option(
            "--reuse", metavar="STAGE[=FINGERPRINT]", help=about, show_default=False))  # fmt: skip
    if spec.makes:
        about = "Only say which stages would be made, and where."
        yield _parameter("dry_run", bool, False, typer.Option("--dry-run", help=about))
    if spec.has_json:
        about = "Print the outcome as JSON; the text goes to standard error."
        yield _parameter("json", bool, False, typer.Option("--json", help=about))


def _parameter(name: str, kind: Any, default: Any, info: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info]
    )
