"""Take repositories or files out of a run's snippets and pairs, for example after an opt-out.

Those of a purged source become rejected rows without texts (reason `purged`). The request is
recorded: later stages of the run leave the names out, the same command finishes a purge that was
killed, and changes nothing when run again. A name that matches nothing is an error, at the end.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from codepmp_ray.config.recipe import Recipe
from codepmp_ray.corpus.filters.opt_out import read_entries
from codepmp_ray.errors import ConfigError
from codepmp_ray.runs import Stage, open_stage
from jobs._cli import run_job

# Option -> what it names; its file has one per line.
_NAMES = {
    "repo": "repositories",
    "path": "files, as REPO:PATH",
    "blob-id": "files by git blob id",
    "source-id": "files (column source_id)",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for name, what in _NAMES.items():
        parser.add_argument(
            f"--{name}", action="append", default=[], metavar="X", help=f"{what}, repeatable"
        )
        parser.add_argument(
            f"--{name}-file", type=Path, metavar="FILE", help=f"a text file of {what}, one per line"
        )


def body(recipe: Recipe, arguments: argparse.Namespace) -> None:
    from codepmp_ray.analysis.card import write_card
    from codepmp_ray.analysis.diversity_report import remove_diversity
    from codepmp_ray.synthesis.constructions import all_hops
    from codepmp_ray.synthesis.prompts import prompt_texts
    from codepmp_ray.synthesis.purge import PurgeRequest, purge_run

    request = PurgeRequest(
        repos=_named(arguments, "repo"),
        paths=_named(arguments, "path"),
        blob_ids=frozenset(name.lower() for name in _named(arguments, "blob_id")),
        source_ids=_named(arguments, "source_id"),
    )
    if not any(request.lists.values()):
        options = ", ".join(f"--{name}" for name in _NAMES)
        raise ConfigError("Nothing to purge was named.", f"Give {options} or a file.")
    if wrong := sorted(path for path in request.paths if ":" not in path):
        raise ConfigError(
            f"--path {wrong[0]!r} names no repository.",
            "Write REPO:PATH with the values of the columns repo and path; :PATH if repo is null.",
        )
    own = open_stage(recipe, "synthesis")

    def tell(stage: Stage, record: dict[str, Any]) -> None:
        what = "snippets" if stage.name == "corpus" else "pairs"
        print(
            f"purge {record['purge_id']}: {record[f'num_{what}']} {what} and "
            f"{record['num_rejected']} rejected rows purged in {record['num_shards']} shards of "
            f"{stage.uri}"
        )
        if stage.name == "synthesis":
            remove_diversity(stage)
        if stage.uri == own.uri:
            write_card(recipe, prompt_texts(all_hops(recipe.synthesis)))

    purge_run(recipe, request, tell)
    trained = open_stage(recipe, "pretraining")
    if trained.exists:
        print(f"{trained.uri} was made before: remove it to train without the purged pairs.")


def _named(arguments: argparse.Namespace, option: str) -> frozenset[str]:
    given = frozenset(getattr(arguments, option))
    return given | _listed(getattr(arguments, f"{option}_file"))


def _listed(file: Path | None) -> frozenset[str]:
    if file is None:
        return frozenset()
    try:
        return read_entries(file)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{file} cannot be read: {error}.", "Name a UTF-8 text file with one name per line."
        ) from error


if __name__ == "__main__":
    run_job(__doc__, body, add_arguments)
