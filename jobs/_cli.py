"""What every job shares: the command line, one-line errors with exit codes, clean interruption."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

from codepmp_ray import errors
from codepmp_ray.config.recipe import load_recipe
from codepmp_ray.errors import CodePMPError

DEFAULT_RECIPE = "jobs/recipes/laptop.yaml"
_EXIT_INTERRUPTED = 130


def run_job(
    description: str | None,
    body: Callable[..., None],
    add_arguments: Callable[[argparse.ArgumentParser], None] | None = None,
) -> None:
    """Parse the command line, run `body` and exit: 0, or the error's exit code with one line.

    `body` gets the recipe and, where `add_arguments` adds options, what was given for them.

    SIGTERM (sent by `ray job stop`) is treated like Ctrl-C, so that both clean up.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {_module_name()}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", default=DEFAULT_RECIPE, help="recipe (default: %(default)s)")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="YAML values")
    if add_arguments:
        add_arguments(parser)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        recipe = load_recipe(arguments.config, arguments.overrides)
        body(recipe, arguments) if add_arguments else body(recipe)
    except KeyboardInterrupt:
        print("Interrupted. Run the same command again to resume.", file=sys.stderr)
        _exit(_EXIT_INTERRUPTED)
    except BrokenPipeError:
        _exit(0)
    except Exception as error:
        known = find_known_error(error)
        if known is None:
            raise
        print(f"Error: {known}", file=sys.stderr)
        _exit(known.exit_code)
    _exit(0)


def find_known_error(error: BaseException) -> CodePMPError | None:
    """The CodePMPError in a chain of causes: Ray wraps what its workers raise.

    What Ray Data's tasks raise arrives without its cause, as a traceback in the error's text.
    """
    seen: set[int] = set()
    queue: list[BaseException | None] = [error]
    while queue:
        current = queue.pop(0)
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, CodePMPError):
            return current
        queue += [getattr(current, "cause", None), current.__cause__, current.__context__]
        failures = getattr(current, "worker_failures", None)
        if isinstance(failures, dict):
            queue += list(failures.values())
    for line in str(error).splitlines():
        name, separator, text = line.partition(": ")
        kind = getattr(errors, name.removeprefix(f"{errors.__name__}."), None)
        if separator and name.startswith(f"{errors.__name__}.") and kind is not None:
            return kind(text)
    return None


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _module_name() -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name if spec else "jobs"


def _exit(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    # Interpreter teardown after Ray and torch can hang in their threads; everything is flushed.
    os._exit(code)
