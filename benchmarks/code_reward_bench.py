"""What released scores of reward models on CodeRewardBench say: a row of figures for each model.

Accuracy of all pairs together as the authors count it (ties are wrong), by criterion and by
language, with intervals; whether the best model is better than this one (McNemar, Holm over
models); AUC, log-loss, calibration error, and a temperature fitted on one half of the pairs and
held against the other. FOLDER has a Parquet file for each model with `id`, `language`, `aspect`,
`chosen_score`, `rejected_score`, such as iNeil77/Themis (commit ddd7934) has under
`Evaluation/Evaluation_Runs`. Nothing is scored.

    python -m benchmarks.code_reward_bench FOLDER [--num-bootstrap 1000]
"""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks._results import one_result, options, write_results
from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.pairwise.accuracy import Bootstrap, calibration
from codepmp_ray.evaluation.pairwise.official import TOTAL, official
from codepmp_ray.evaluation.statistics import compare, holm
from codepmp_ray.scoring.calibration import fit_temperature

# The authors' table where it was seen to differ from their own files, in per cent.
AUTHORS = {"Themis-RM-1.7B": 83.04, "Themis-RM-0.6B": 79.26}
SWAPPED = ("Athene-RM-70B", "Llama-3.3-Nemotron-70B-Reward")  # it has each in the other's row
_COLUMNS = ["id", "language", "aspect", "chosen_score", "rejected_score"]


def read_scores(file: Path) -> list[dict[str, Any]]:
    """A model's file as PAIR_SCORE rows, in the order of ids; each pair is a question of its own.

    A pair without one of its scores counts as wrong, as in the authors' column `correct`.

    Raises InputError for an id that stands twice.
    """
    table = pq.read_table(file, columns=_COLUMNS).sort_by("id").to_pylist()
    if len({row["id"] for row in table}) < len(table):
        raise InputError(f"{file.name} has two rows of one id.")
    found = []
    for row in table:
        scores = [row["chosen_score"], row["rejected_score"]]
        is_scored = None not in scores
        chosen, rejected = scores if is_scored else (0.0, 0.0)  # as wrong as a tie
        found.append({
            "problem_id": str(row["id"]), "is_scored": is_scored,
            "section": f"code_reward_bench/{row['aspect']}/{row['language']}",
            "chosen_score": chosen, "rejected_score": rejected,
        })  # fmt: skip
    return found


def figures(rows: list[dict[str, Any]], bootstrap: Bootstrap) -> dict[str, Any]:
    """Of one model; `total` is its accuracy with the interval. Chances are of scored pairs."""
    scored = [row for row in rows if row["is_scored"]]
    chosen, rejected = ([row[f"{side}_score"] for row in scored] for side in ("chosen", "rejected"))
    prompts = [row["problem_id"] for row in scored]
    made = official("code_reward_bench", rows, bootstrap)
    assert made is not None, "the set has figures of its own"
    found = fit_temperature(chosen, rejected, prompts)
    return {
        "total": made["sections"][TOTAL],
        "parts": {name: _points(value) for name, value in made["parts"].items()},
        "unscored": len(rows) - len(scored),
        "ties": made["sections"][TOTAL]["num_ties"],
        **{
            name: [round(value[end], 4) for end in ("mean", "low", "high")]
            for name, value in calibration(chosen, rejected, prompts, bootstrap).items()
        },
        "temperature": round(found.temperature, 4),
        "log_loss_without_and_with": [round(value, 4) for value in found.log_loss],
        "ece_without_and_with": [round(value, 4) for value in found.ece],
        "temperature_kept": found.is_kept,
    }


def of_file(file: Path, bootstrap: Bootstrap) -> tuple[list[str], np.ndarray, dict[str, Any]]:
    """(pairs, which of them are right, figures) of a model's file."""
    rows = read_scores(file)
    right = np.array([row["chosen_score"] > row["rejected_score"] for row in rows])
    return [row["problem_id"] for row in rows], right, figures(rows, bootstrap)


def against_best(right: dict[str, np.ndarray], bootstrap: Bootstrap) -> tuple[str, dict[str, Any]]:
    """The best model, and of every other one the difference from it with p by Holm.

    The best one was chosen by the same pairs, which makes its lead a little too large.
    """
    best = max(right, key=lambda name: right[name].mean())
    others = [name for name in right if name != best]
    found = [
        compare(right[best], right[name], bootstrap.confidence, bootstrap.num_bootstrap)
        for name in others
    ]
    adjusted = holm([one.test_p_value for one in found])
    return best, {
        name: {"best_minus_this": _points(vars(one)), "p_holm": float(f"{p:.2g}")}
        for name, one, p in zip(others, found, adjusted, strict=True)
    }


def _points(value: dict[str, Any]) -> list[float]:
    return [round(100 * value[end], 2) for end in ("mean", "low", "high")]


def results(folder: Path, bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """A result for each file. Raises InputError where files are of other pairs than the first."""
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise InputError(f"{folder} holds no .parquet file of scores.")
    made, right, pairs = {}, {}, None
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), spawn) as processes:
        all_made = processes.map(partial(of_file, bootstrap=bootstrap), files)
        for file, (names, is_right, of) in zip(files, all_made, strict=True):
            pairs = pairs or names
            if pairs != names:
                raise InputError(f"{file.name} holds other pairs than {files[0].name}.")
            made[file.stem], right[file.stem] = of, is_right
            print(f"{file.stem}: {_points(of['total'])}", flush=True)
    _, compared = against_best(right, bootstrap)
    return [
        one_result(
            f"accuracy_{name}",
            _points(of["total"])[0],
            "%",
            spread=_points(of["total"])[1:],
            num_pairs=len(pairs or ()),
            authors_table=AUTHORS.get(name),
            swapped_in_authors_table=name in SWAPPED,
            **{key: value for key, value in of.items() if key != "total"},
            **compared.get(name, {"best_minus_this": None, "p_holm": None}),
        )
        for name, of in sorted(made.items(), key=lambda item: -item[1]["total"]["mean"])
    ]


def main() -> None:
    parser = options(__doc__, num_bootstrap=1_000)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    bootstrap = Bootstrap(num_bootstrap=arguments.num_bootstrap)
    write_results("code_reward_bench", results(arguments.folder, bootstrap))


if __name__ == "__main__":
    main()
