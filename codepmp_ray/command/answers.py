"""`codepmp answers`: sampled, graded, written to a file."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Option

from codepmp_ray.command.registry import command
from codepmp_ray.errors import ConfigError

if TYPE_CHECKING:
    from codepmp_ray.config.recipe import Recipe


@command(
    "answers sample",
    job="sample",
    needs="A generator (candidates.engine or engines) and vLLM; or candidates.pool_path; multiple "
    "choice needs neither.",
    writes="candidates-<fingerprint>/ in run_dir.",
    examples=(
        "answers sample --config laptop",
        "answers sample candidates.task=gsm8k candidates.pool_path=pool.jsonl.zst",
    ),
    sections=("candidates",),
    makes=("candidates",),
)
def sample(recipe: "Recipe") -> dict[str, Any]:
    """Make candidate answers to the training and the evaluation problems.

    Sampled by a generator; the options, where the task is multiple choice; or read from
    candidates.pool_path.
    """
    from codepmp_ray.cluster.connect import connect
    from codepmp_ray.cluster.sampling import sample_candidates
    from codepmp_ray.evaluation.given_candidates import are_given

    # What is read from files needs no cluster.
    with nullcontext() if are_given(recipe.candidates) else connect():
        summary = sample_candidates(recipe)
    print(f"{summary['num_candidates']} answers to {summary['num_problems']} problems")
    if summary.get("num_rejected") or summary.get("num_unused"):
        print(
            f"Of {recipe.candidates.pool_path}: {summary['num_rejected']} rows or answers rejected,"
            f" {summary['num_unused']} answers over num_*_samples"
        )
    return summary


@command(
    "answers grade",
    job="grade",
    needs="Sampled answers; a sandbox where answers are code.",
    writes="grades-<fingerprint>/ in run_dir: an outcome for each answer.",
    examples=("answers grade --config laptop", "answers grade evaluation.sandbox.time_limit_s=20"),
    sections=("evaluation.sandbox", "evaluation.grader"),
    makes=("grades",),
)
def grade(recipe: "Recipe") -> dict[str, Any]:
    """Say whether answers are right: compared with the reference, or executed in a sandbox."""
    from codepmp_ray.cluster.connect import connect
    from codepmp_ray.cluster.grading import grade as grade_stage

    with connect():
        summary = grade_stage(recipe)
    outcomes = ", ".join(f"{count} {name}" for name, count in summary["outcomes"].items())
    print(f"{summary['num_graded']} answers graded: {outcomes}")
    if summary["num_labelled"]:
        share = summary["num_agreeing"] / summary["num_labelled"]
        print(
            f"Labels of the file agree on {summary['num_agreeing']} of {summary['num_labelled']} "
            f"answers ({share:.2%}); right by the label only {summary['num_only_label']}, "
            f"by the grade only {summary['num_only_grade']}"
        )
    print(f"Sandbox: {summary['sandbox']}")
    for name, why in summary["not_gradable"].items():
        print(f"Not gradable here, so left out: {name}, {why}")
    for name, count in summary["missing_packages"].items():
        print(f"{count} answers need {name}: see evaluation.sandbox.packages")
    return summary


@command(
    "answers export",
    job="pool",
    needs="Sampled and graded answers.",
    writes="The file of --output: JSON lines of questions with labelled candidates.",
    examples=(
        "answers export --config laptop --output pool.jsonl",
        "answers export -c laptop --output train.jsonl --split train",
    ),
)
def export(
    recipe: "Recipe",
    output: Annotated[str, Option(metavar="FILE", help="File to write, .jsonl.")],
    split: Annotated[Literal["eval", "train"], Option(help="Whose problems.")] = "eval",
) -> dict[str, Any]:
    """Write the graded answers of a run as a pool, which studies and candidates.pool_path read."""
    import json

    from codepmp_ray.evaluation.pool_files import graded_pool
    from codepmp_ray.storage import LocalStore, is_uri

    if is_uri(output):
        raise ConfigError(
            f"--output={output} is not a path of this machine.",
            "Write to a local file and copy it.",
        )
    rows, counts = graded_pool(recipe, split)
    file = Path(output).absolute()
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    LocalStore(file.parent).put(file.name, "".join(lines).encode())
    print(
        f"{file}: {len(rows)} questions, {counts['num_used']} answers; left out: "
        f"{counts['num_without_grade']} without a grade, {counts['num_empty']} empty"
    )
    return {"file": str(file), "num_questions": len(rows), **counts}
