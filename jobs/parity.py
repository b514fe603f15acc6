"""Do trainer, transformers, engine and service give the same scores? Fails if they do not.

The same ids of HumanEval problems and solutions go through the trainer's forward of packed pairs,
AutoModelForSequenceClassification on the export, the serving engine and POST /v1/bon. In fp32 the
largest difference may be 1e-4; in bf16 it may be 25 % of the range of the scores, 10 % in the mean.
The best candidate has to be the same everywhere.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from codepmp_ray.config.recipe import Recipe
from codepmp_ray.runs import reward_model
from jobs._cli import run_job


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--questions", type=int, default=16)
    parser.add_argument("--candidates", type=int, default=4, help="of each question")


def body(recipe: Recipe, arguments: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    from codepmp_ray.evaluation.parity import compare, humaneval_questions
    from codepmp_ray.evaluation.parity_ways import torch_rewards
    from codepmp_ray.modeling.sources import resolve_model
    from codepmp_ray.preference.tokenization import Encoder
    from codepmp_ray.scoring.exported_model import require_model
    from codepmp_ray.serve.parity import service_rewards

    config, model = recipe.serving, reward_model(recipe)
    require_model(config, model)
    folder = Path(resolve_model(model))
    questions = humaneval_questions(
        Encoder.load(folder), config.max_model_len, arguments.questions, arguments.candidates
    )
    ways = torch_rewards(folder, config.dtype, questions)
    ways |= service_rewards(recipe, model, questions)
    found = compare(ways, config.dtype)
    title = (
        f"{arguments.questions} questions x {arguments.candidates}, {config.dtype}: "
        f"rewards over a range of {found.spread:.3g}, tolerance {found.tolerance:.2g}"
    )
    columns = ("ways", "largest difference", "mean", "same winner")
    table = Table(*columns, title=title, title_justify="left")
    for item in found.differences:
        table.add_row(
            f"{item.left} - {item.right}",
            f"{item.largest:.2g}",
            f"{item.mean:.2g}",
            f"{item.num_same_winners} of {found.num_questions}",
            style="" if found.agrees(item) else "bold red",
        )
    Console().print(table)
    found.require()


if __name__ == "__main__":
    run_job(__doc__, body, add_arguments)
