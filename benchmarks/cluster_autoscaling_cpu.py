"""Nodes without engines come with a corpus and with grading, and go after each: 0 -> 4 -> 0.

As cluster_autoscaling, with one type of 2 CPUs of which there may be 4. The head has 1 CPU, and a
selector sends the tasks to the others. The corpus is the standard library's; what is graded are the
canonical solutions of HumanEval, all of which have to pass.

    python -m benchmarks.cluster_autoscaling_cpu [--files 400] [--idle 10]
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from benchmarks._namespaces import run_in_own_namespaces
from benchmarks._results import conclude, one_result, options
from benchmarks.cluster_autoscaling import LABEL, autoscaling_head, watched
from codepmp_ray.config.recipe import Recipe, parse_recipe
from codepmp_ray.records import CANDIDATE, REJECTED, table_from_rows
from codepmp_ray.runs import open_stage

TYPES = {"cpu": 4}
GOAL = "0 -> 4 -> 0"
_PER_SHARD = 4


def make_recipe(run_dir: Path, num_files: int) -> Recipe:
    where = {LABEL: "cpu"}
    corpus = {"max_files": num_files, "files_per_task": 4, "label_selector": where}
    evaluation = {"grader": {"label_selector": where}}
    return parse_recipe(
        {"run_dir": str(run_dir), "corpus": corpus, "evaluation": evaluation}, "benchmark"
    )


def write_candidates(recipe: Recipe) -> int:
    """One answer to each problem, its own solution; returns how many."""
    from codepmp_ray.evaluation.problems import configured_problems

    stage = open_stage(recipe, "candidates")
    stage.start()
    problems = list(configured_problems(recipe.candidates).values())
    rows = [
        {
            "candidate_id": problem.problem_id,
            "problem_id": problem.problem_id,
            "split": "eval",
            "sample_index": 0,
            "prompt": problem.prompt,
            "completion": problem.canonical_answer,
            "finish_reason": "stop",
            "model": "canonical",
        }
        for problem in problems
    ]
    for shard, start in enumerate(range(0, len(rows), _PER_SHARD)):
        part = table_from_rows(rows[start : start + _PER_SHARD], CANDIDATE)
        tables = {"candidates": part, "rejected": table_from_rows([], REJECTED)}
        stage.ledger.commit(shard, part.num_rows, tables)
    stage.complete({})
    return len(rows)


def measure(num_files: int, idle_s: float) -> list[dict[str, Any]]:
    from codepmp_ray.cluster.connect import connect
    from codepmp_ray.cluster.corpus import build_corpus
    from codepmp_ray.cluster.grading import grade

    folder = Path(tempfile.mkdtemp(prefix="cac", dir="/tmp"))  # sockets lie below it
    recipe = make_recipe(folder / "run", num_files)
    num_answers = write_candidates(recipe)
    with autoscaling_head(folder, idle_s, TYPES), connect():
        corpus, made = watched("corpus_", GOAL, lambda: build_corpus(recipe))
        grades, graded = watched("grades_", GOAL, lambda: grade(recipe))
    passed = graded["outcomes"].get("passed", 0)
    found = [
        *(of.nodes | {"job_s": round(of.done_s, 1)} for of in (corpus, grades)),
        one_result(
            "canonical_solutions_that_pass",
            passed,
            f"of {num_answers} answers",
            num_answers,
            met=passed == num_answers,
        ),
        one_result("snippets", made["num_snippets"], "snippets"),
    ]
    if all(figure.get("met", True) for figure in found):
        shutil.rmtree(folder, ignore_errors=True)
    return found


def main() -> None:
    arguments = options(__doc__, files=400, idle=10.0).parse_args()
    run_in_own_namespaces("benchmarks.cluster_autoscaling_cpu")
    conclude("cluster_autoscaling_cpu", measure(arguments.files, arguments.idle))


if __name__ == "__main__":
    main()
