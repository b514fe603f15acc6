"""How often the graders and the labels of pools disagree, in answers per thousand.

    python -m benchmarks.grading_agreement gsm8k=pool.jsonl.zst math=other.jsonl

Each argument is a task and a file as `candidates.pool_path` names it, with a question, a reference
and labels in its rows; CODEPMP_LABELLED_POOLS holds the same, separated by spaces. Every
disagreement is written to a file, to be read by a person. Those where the label is the wrong one
are listed in data/grading_label_errors.jsonl with the reason, and left out; more than 0.5 % of all
answers is refused, since a list of that length would hide what it should show.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks._results import conclude, one_result, options
from codepmp_ray.config.evaluation import GraderConfig
from codepmp_ray.evaluation.graders.pool import GradingPool, Job
from codepmp_ray.evaluation.pool_files import file_label, load_pool
from codepmp_ray.evaluation.tasks.base import TextProblem
from codepmp_ray.evaluation.tasks.registry import problem_task

_LABEL_ERRORS = Path(__file__).parent / "data" / "grading_label_errors.jsonl"
_MAX_LABEL_ERRORS = 0.005
_GOAL = 2.0  # per thousand, of each kind
_SHOWN_CHARS = 600


def labelled_jobs(task: str, path: str) -> Iterator[tuple[str, Job, bool]]:
    """(name of the answer, what is graded, its label) of every labelled answer of a file."""
    pool = load_pool(task, path, None)
    grader = problem_task(task).grader
    if grader == "code":
        raise SystemExit(f"{task}: answers that are executed have no references to compare.")
    for question in pool:
        problem = question.problem
        assert isinstance(problem, TextProblem)
        for index, answer in enumerate(question.answers):
            if answer.label is not None:
                job = (grader, problem.reference, answer.text)
                yield f"{question.name}#{index}", job, answer.label


def known_label_errors(path: Path = _LABEL_ERRORS) -> set[tuple[str, str]]:
    """(file of the pool, name of the answer) of labels that a person found to be wrong."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {(row["pool"], name) for row in map(json.loads, lines) for name in row["answers"]}


def compare(
    task: str, path: str, graders: GradingPool, wrong_labels: set[tuple[str, str]]
) -> tuple[Counter[str], list[dict[str, Any]]]:
    """Counts of agreements and disagreements, and a row for each of the latter."""
    pool = file_label(path)
    answers = list(labelled_jobs(task, path))
    used = [answer for answer in answers if (pool, answer[0]) not in wrong_labels]
    counts = Counter(answers=len(used), left_out=len(answers) - len(used))
    rows = []
    verdicts = graders.grade([job for _, job, _ in used])
    for (name, (_, reference, text), label), verdict in zip(used, verdicts, strict=True):
        if bool(verdict.passed) == label:
            continue
        kind = "false_fails" if label else "false_passes"
        counts[kind] += 1
        found = {
            "answer": name,
            "kind": kind,
            "reference": reference.answer,
            "found": verdict.answer,
        }
        rows.append(
            {"pool": pool, **found, "outcome": verdict.outcome, "text": text[-_SHOWN_CHARS:]}
        )
    return counts, rows


def main() -> None:
    parser = options(__doc__, disagreements="grading_disagreements.jsonl")
    parser.add_argument("pools", nargs="*", help="TASK=PATH of a file of labelled answers")
    arguments = parser.parse_args()
    pools = arguments.pools or os.environ.get("CODEPMP_LABELLED_POOLS", "").split()
    if not pools:
        parser.error("no pools: name TASK=PATH, or set CODEPMP_LABELLED_POOLS")
    graders = GradingPool(GraderConfig())
    wrong_labels = known_label_errors()
    total: Counter[str] = Counter()
    by_pool = {}
    with open(arguments.disagreements, "w") as file:
        for task, _, path in (pool.partition("=") for pool in pools):
            counts, rows = compare(task, path, graders, wrong_labels)
            total += counts
            by_pool[file_label(path)] = dict(counts)
            file.writelines(json.dumps(row) + "\n" for row in rows)
    graders.close()
    num_left_out, num_labels = total["left_out"], total["answers"] + total["left_out"]
    if num_left_out > _MAX_LABEL_ERRORS * num_labels:
        raise SystemExit(f"{num_left_out} of {num_labels} labels are listed as wrong.")
    results = []
    for metric in ("false_passes", "false_fails"):
        value = round(1000 * total[metric] / max(1, total["answers"]), 3)
        result = one_result(
            metric,
            value,
            "per thousand answers",
            f"<= {_GOAL:g}",
            met=value <= _GOAL,
            pools=by_pool,
        )
        command = "python -m benchmarks.grading_agreement TASK=POOL ..."
        results.append({**result, "label_errors": num_left_out, "command": command})
    conclude("grading_agreement", results)


if __name__ == "__main__":
    main()
