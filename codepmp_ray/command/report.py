"""`codepmp report` and `codepmp status`: what a run has come to."""

from typing import TYPE_CHECKING, Any

from codepmp_ray.command.registry import command

if TYPE_CHECKING:
    from codepmp_ray.config.recipe import Recipe


@command(
    "report",
    job="report",
    needs="A run directory; no Ray. Stages that are missing are named in the report.",
    writes="report.html in run_dir; diversity.html and diversity.json beside finished pairs.",
    examples=("report --config laptop", "report run_dir=s3://runs/first"),
)
def report(recipe: "Recipe") -> dict[str, Any]:
    """Write the HTML report of a run, and one about the diversity of its pairs."""
    from codepmp_ray.analysis.diversity_report import write_diversity
    from codepmp_ray.analysis.report import write_report
    from codepmp_ray.analysis.status import print_others
    from codepmp_ray.runs import open_stage, require_run

    require_run(recipe)
    written = {"report": write_report(recipe)}
    print(f"Report: {written['report']}")
    if open_stage(recipe, "synthesis").is_complete:
        written["diversity"] = write_diversity(recipe)
        print(f"Diversity of the pairs: {written['diversity']}")
    print_others(recipe)
    return written


@command(
    "status",
    job="status",
    needs="A run directory; no Ray, and it may be that nothing runs.",
    writes="Nothing: it prints stages, rates, rejects and how long the rest will take.",
    examples=("status --config laptop", "status run_dir=s3://runs/first --json"),
)
def status(recipe: "Recipe") -> dict[str, Any]:
    """Show how far a run is, from its folder alone: also while nothing runs."""
    from codepmp_ray.analysis.status import print_status

    return print_status(recipe)
