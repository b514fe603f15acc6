"""`codepmp cluster bundle`: one file for a bug report."""

import io
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from codepmp_ray.command.registry import command
from codepmp_ray.errors import CodePMPError, ConfigError

if TYPE_CHECKING:
    from codepmp_ray.cluster.bundle import Bundle
    from codepmp_ray.config.recipe import Recipe


@command(
    "cluster bundle",
    settings="",
    words="RUN_DIR",
    needs="A run directory; the cluster that RAY_ADDRESS names is asked, else one on this machine.",
    writes="One .tar.gz.",
    examples=(
        "cluster bundle runs/laptop",
        "cluster bundle s3://runs/first --output first.tar.gz --no-cluster",
    ),
)
def bundle(
    words: list[str],
    output: Annotated[
        Path | None, Option(metavar="FILE.tar.gz", help="Default: RUN_DIR's name-bundle.tar.gz.")
    ] = None,
    no_cluster: Annotated[
        bool, Option("--no-cluster", help="Ask no cluster: no table of nodes, no check.")
    ] = False,
) -> dict[str, Any]:
    """Pack what a bug report needs: recipes, logs of attempts, markers, status, versions, nodes and
    the output of check.

    Credentials in URLs, and the keys and tokens in this environment, are replaced by ***. There are
    no rows and no weights, but logs may quote what an error was about, and names of hosts and paths
    stay: look at it before you send it. What is inside, cut or left out is printed.
    """
    if len(words) != 1:
        raise ConfigError(
            f"cluster bundle takes one RUN_DIR, and was given {len(words)}.",
            "codepmp cluster bundle runs/laptop",
        )
    from codepmp_ray.cluster.bundle import Bundle, add_run
    from codepmp_ray.config.recipe import parse_recipe
    from codepmp_ray.runs import require_run
    from codepmp_ray.storage import absolute

    run_dir = absolute(words[0]).rstrip("/")
    path = output or Path(f"{run_dir.rpartition('/')[2]}-bundle.tar.gz")
    require_run(parse_recipe({"run_dir": run_dir}, run_dir))
    packed = Bundle()
    recipe = add_run(packed, run_dir)
    if recipe is not None:
        _add_status(packed, recipe)
    if no_cluster:
        packed.notes.append("nodes.json, check.txt: --no-cluster")
    else:
        _add_cluster(packed, recipe)
    packed.write(path)
    print(f"{packed.contents()}{path}: {path.stat().st_size:,} bytes. Look before you send it.")
    return {"file": str(path), "files": sorted(packed.files), "notes": packed.notes}


def _add_status(packed: "Bundle", recipe: "Recipe") -> None:
    from rich.console import Console

    from codepmp_ray.analysis.status import print_status

    screen = io.StringIO()
    try:
        print_status(recipe, Console(file=screen, width=160))
    except CodePMPError as error:
        screen.write(f"{error}\n")
    packed.add("status.txt", screen.getvalue())


def _add_cluster(packed: "Bundle", recipe: "Recipe | None") -> None:
    """A cluster that cannot be joined is a line of the bundle."""
    from codepmp_ray.cluster.bundle import add_nodes
    from codepmp_ray.cluster.connect import connect
    from codepmp_ray.command.cluster import check

    said = io.StringIO()
    try:
        with connect(), redirect_stdout(said):
            add_nodes(packed)
            if recipe is not None:
                check(recipe)
    except CodePMPError as error:
        said.write(f"{error}\n")
        print(f"The cluster: {error}", file=sys.stderr)
    packed.add("check.txt", said.getvalue())
