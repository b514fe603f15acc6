"""Run rejected snippets of chosen reasons again, with the same settings; finished pairs stay.

For what chance or a sick engine decided: engine_error, *_cut_off, *_parse_error. Other settings are
another recipe, whose stage is made anew. The same command finishes a replay that was killed.
"""

from __future__ import annotations

import argparse

from codepmp_ray.config.recipe import Recipe
from codepmp_ray.runs import open_stage
from jobs._cli import run_job


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--reason", action="append", default=[], metavar="R", help="reject reason, repeatable"
    )


def body(recipe: Recipe, arguments: argparse.Namespace) -> None:
    from codepmp_ray.analysis.card import write_card
    from codepmp_ray.analysis.diversity_report import remove_diversity
    from codepmp_ray.cluster.connect import connect
    from codepmp_ray.cluster.replay import replay
    from codepmp_ray.synthesis.constructions import all_hops
    from codepmp_ray.synthesis.prompts import prompt_texts

    with connect():
        record = replay(recipe, tuple(arguments.reason))
    remove_diversity(open_stage(recipe, "synthesis"))
    write_card(recipe, prompt_texts(all_hops(recipe.synthesis)))
    print(
        f"replay of {', '.join(record['reasons'])}: {record['num_rows']} rows again, "
        f"{record['num_pairs']} became pairs; rejected: {record['rejected_by_reason']}"
    )
    trained = open_stage(recipe, "pretraining")
    if record["num_pairs"] and trained.exists:
        print(f"{trained.uri} was made before: remove it to train with the new pairs.")


if __name__ == "__main__":
    run_job(__doc__, body, add_arguments)
