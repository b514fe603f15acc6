"""Take repositories or files out of finished pairs, for example after an opt-out.

Pairs of a purged source become rejected rows without texts (reason `purged`). The request is
recorded; the same command finishes a purge that was killed, and changes nothing when run again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from codepmp_ray.config.recipe import Recipe
from codepmp_ray.corpus.filters.opt_out import read_entries
from codepmp_ray.errors import ConfigError
from codepmp_ray.runs import open_stage
from jobs._cli import run_job


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for name, what in (("repo", "repositories"), ("source-id", "files (column source_id)")):
        parser.add_argument(
            f"--{name}", action="append", default=[], metavar="X", help=f"{what}, repeatable"
        )
        parser.add_argument(
            f"--{name}-file", type=Path, metavar="FILE", help=f"a text file of {what}, one per line"
        )


def body(recipe: Recipe, arguments: argparse.Namespace) -> None:
    from codepmp_ray.analysis.card import write_card
    from codepmp_ray.synthesis.constructions import all_hops
    from codepmp_ray.synthesis.prompts import prompt_texts
    from codepmp_ray.synthesis.purge import PurgeRequest, purge

    request = PurgeRequest(
        repos=frozenset(arguments.repo) | _listed(arguments.repo_file),
        source_ids=frozenset(arguments.source_id) | _listed(arguments.source_id_file),
    )
    if not request.repos | request.source_ids:
        raise ConfigError("Nothing to purge was named.", "Give --repo, --source-id or a file.")
    stage = open_stage(recipe, "synthesis")
    record = purge(stage, request)
    write_card(recipe, prompt_texts(all_hops(recipe.synthesis)))
    print(
        f"purge {record['purge_id']}: {record['num_pairs']} pairs and {record['num_rejected']} "
        f"rejected rows purged in {record['num_shards']} shards of {stage.uri}"
    )
    if not record["num_pairs"] + record["num_rejected"]:
        print("No row has these names: they are compared with the columns repo and source_id.")
    trained = open_stage(recipe, "pretraining")
    if record["num_pairs"] and trained.exists:
        print(f"{trained.uri} was made before: remove it to train without the purged pairs.")


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
