"""How often the "chosen" label is wrong: what `jobs.label_noise` measured, as a result file.

The job makes the answers and runs them (minutes to hours, it resumes); this takes its figures from
the run directory. The spread is the interval over problems.

    python -m jobs.label_noise --config RECIPE candidates.task=humaneval
    python -m benchmarks.label_noise RUN_DIR
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks._results import write_results

METRICS = {
    "noise": "label_noise",
    "strong_accuracy": "strong_model_passes",
    "weak_accuracy": "weak_model_passes",
    "right": "only_the_strong_answer_passes",
    "wrong": "only_the_weak_answer_passes",
    "both_pass": "both_pass",
    "both_fail": "both_fail",
}


def results_of(record: dict[str, Any]) -> list[dict[str, Any]]:
    """One result per figure of a stored record; label noise is blank where the models agree."""
    candidates = record["manifest"]["recipe"]["candidates"]
    task = record["task"]
    context = {
        "goal": None,
        "runs": record["num_samples"],
        "unit": "share of the problems that only one model solves",
        "task": task,
        "num_problems": record["num_problems"],
        "confidence": record["confidence"],
        "strong_model": Path(record["strong_model"]).name,
        "weak_model": Path(record["weak_model"]).name,
        "command": f"python -m jobs.label_noise --config RECIPE candidates.task={task} "
        f"candidates.num_eval_problems={candidates['num_eval_problems']}",
        "commit": record["manifest"]["commit"],
        "date": record["manifest"]["written"][:10],
    }
    results = []
    for name, metric in METRICS.items():
        found = record[name]
        value = None if found is None else round(found["mean"], 4)
        spread = None if found is None else [round(found[end], 4) for end in ("low", "high")]
        results.append(context | {"metric": f"{metric}_{task}", "value": value, "spread": spread})
        context["unit"] = "share of all problems"
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_dir", type=Path)
    arguments = parser.parse_args()
    files = sorted(arguments.run_dir.glob("label-noise-*.json"))
    if not files:
        raise SystemExit(f"{arguments.run_dir} holds no label-noise-*.json; run jobs.label_noise.")
    records = [json.loads(file.read_text()) for file in files]
    write_results("label_noise", [row for record in records for row in results_of(record)])


if __name__ == "__main__":
    main()
