"""Does the demonstration show its effect? Seeds 0 to 9 of jobs/recipes/demo.yaml, once each.

A run shows it when the interval of reward model minus random pick lies above zero. All ten outcomes
are published, whatever they are. Kinds of problems and settings are chosen on other seeds:

    python -m benchmarks.demo_signal                      # seeds 0 to 9; a seed takes ten minutes
    python -m benchmarks.demo_signal --tuning             # seeds 100 to 109, nothing published
    python -m benchmarks.demo_signal --tuning finetuning.num_train_epochs=2 --seeds 100 101

A seed whose evaluation is there is not run again; one that was cut off goes on with its finished
stages, and its minutes are those of all tries. With `--tuning` overrides change the recipe; stages
that they leave alone are found again, so that a setting of the reward model costs one training and
one evaluation.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks._results import COMMIT, one_result, series_result, write_results
from codepmp_ray.config.recipe import Recipe, load_recipe
from codepmp_ray.evaluation.scoring_run import read_results
from codepmp_ray.runs import open_stage

RECIPE = "jobs/recipes/demo.yaml"
SEEDS, TUNING_SEEDS = range(10), range(100, 110)
GOAL, MAX_MINUTES = 9, 10.0


def run(seed: int, folder: Path, overrides: list[str]) -> dict[str, Any]:
    """The outcome of one seed, from its file or from a run; raises SystemExit when it fails."""
    arguments = [f"run_dir={folder / f'seed-{seed}'}", f"seed={seed}", *overrides]
    recipe = load_recipe(RECIPE, arguments)
    notes = notes_of(Path(recipe.run_dir), overrides)
    tries = json.loads(notes.read_text()) if notes.exists() else []
    for cut_off in (one for one in tries if one["minutes"] is None):
        last_s = max(file.stat().st_mtime for file in notes.parent.rglob("*"))
        cut_off["minutes"] = (last_s - cut_off["start_s"]) / 60
    if not open_stage(recipe, "evaluation").is_complete:
        print(f"seed {seed}: {recipe.run_dir}", file=sys.stderr, flush=True)
        notes.parent.mkdir(parents=True, exist_ok=True)
        tries.append({"start_s": time.time(), "minutes": None, "commit": COMMIT})
        notes.write_text(json.dumps(tries))
        command = [sys.executable, "-m", "jobs.pipeline", "--config", RECIPE, *arguments]
        code = subprocess.run(command, stdout=sys.stderr, check=False).returncode
        tries[-1]["minutes"] = (time.time() - tries[-1]["start_s"]) / 60
        notes.write_text(json.dumps(tries))
        if code:
            raise SystemExit(f"seed {seed} failed with {code}; the same command goes on with it.")
    return outcome(seed, recipe, tries)


def notes_of(run_dir: Path, overrides: list[str]) -> Path:
    """Where the minutes of each try of these settings are kept."""
    settings = hashlib.sha256(json.dumps(overrides).encode()).hexdigest()[:8]
    return run_dir / f"tries-{settings}.json"


def outcome(seed: int, recipe: Recipe, tries: list[dict[str, Any]]) -> dict[str, Any]:
    """Everything that is published of one run: figures in percent and points."""
    results = read_results(recipe)
    difference = results["difference"]
    stages = {name: open_stage(recipe, name).summary() for name in ("pretraining", "finetuning")}
    return {
        "seed": seed,
        "shows_the_effect": difference["low"] > 0,
        "minutes": round(sum(one["minutes"] for one in tries), 2),
        "tries": len(tries),
        "commits": sorted({one["commit"] for one in tries}),
        "num_problems": results["num_problems"],
        "points": {key: round(100 * difference[key], 1) for key in ("mean", "low", "high")},
        "solved": {
            name: round(100 * series["accuracy"][-1], 1)
            for name, series in results["bon"].items()
            if isinstance(series, dict)
        },
        "null_rule": results["null_rule"],
        "parts": {
            name: [part["num_problems"], round(100 * part["difference"]["mean"], 1)]
            for name, part in results["parts"].items()
        },
        "num_finetuning_pairs": stages["finetuning"]["num_pairs"],
        "pmp_held_out": [
            stages["pretraining"]["eval_num_pairs"],
            stages["pretraining"]["eval_accuracy"],
        ],
    }


def results_of(outcomes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The published metrics."""
    shown = sum(one["shows_the_effect"] for one in outcomes)
    minutes = [one["minutes"] for one in outcomes]
    return [
        one_result(
            "runs_that_show_the_effect",
            shown,
            f"of {len(outcomes)} runs, one for each seed",
            f">= {GOAL}",
            met=shown >= GOAL,
            runs=len(outcomes),
            effect="the 95 % interval of best of 8 by the reward model minus a random pick, "
            "paired over problems, lies above zero",
            recipe=RECIPE,
            outcomes=outcomes,
        ),
        series_result("demo_minutes", minutes, "minutes", f"<= {MAX_MINUTES:g}", digits=1),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dir", type=Path, default=Path("runs/demo-signal"))
    parser.add_argument("--tuning", action="store_true", help="seeds 100 to 109, nothing published")
    parser.add_argument("--seeds", type=int, nargs="+", help="some of them; nothing published")
    parser.add_argument("overrides", nargs="*", help="of the recipe, with --tuning")
    arguments = parser.parse_args()
    if arguments.overrides and not arguments.tuning:
        raise SystemExit("Published seeds run the recipe as it is: overrides need --tuning.")
    known = TUNING_SEEDS if arguments.tuning else SEEDS
    seeds = arguments.seeds or list(known)
    if strange := sorted(set(seeds) - set(known)):
        raise SystemExit(f"Seeds {strange} are not among {known.start} to {known.stop - 1}.")
    outcomes = []
    for seed in seeds:
        outcomes.append(run(seed, arguments.dir, arguments.overrides))
        print(json.dumps(outcomes[-1]), flush=True)
    if not arguments.tuning and set(seeds) == set(SEEDS):
        write_results("demo_signal", results_of(outcomes))
    else:
        print(f"{sum(one['shows_the_effect'] for one in outcomes)} of {len(outcomes)} show it.")


if __name__ == "__main__":
    main()
