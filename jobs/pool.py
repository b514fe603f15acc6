"""Write the graded answers of a run as a pool: JSON lines of questions with labelled candidates.

Such a file is what studies and `candidates.pool_path` read. Needs jobs.sample and jobs.grade.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from codepmp_ray.config.recipe import Recipe
from codepmp_ray.errors import ConfigError
from jobs._cli import run_job


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", required=True, help="file to write, .jsonl")
    parser.add_argument("--split", choices=("eval", "train"), default="eval")


def body(recipe: Recipe, arguments: argparse.Namespace) -> None:
    from codepmp_ray.evaluation.pool_export import graded_pool
    from codepmp_ray.storage import LocalStore, is_uri

    if is_uri(arguments.output):
        raise ConfigError(
            f"--output={arguments.output} is not a path of this machine.",
            "Write to a local file and copy it.",
        )
    rows, counts = graded_pool(recipe, arguments.split)
    file = Path(arguments.output).absolute()
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    LocalStore(file.parent).put(file.name, "".join(lines).encode())
    print(
        f"{file}: {len(rows)} questions, {counts['num_used']} answers; left out: "
        f"{counts['num_without_grade']} without a grade, {counts['num_empty']} empty"
    )


if __name__ == "__main__":
    run_job(__doc__, body, add_arguments)
