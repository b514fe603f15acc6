"""`codepmp report`, `status` and `verify`: what a run has come to, and whether it is whole."""

from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

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


@command(
    "verify",
    job="verify",
    needs="A run directory; no Ray. With --repair no job of the run may be running.",
    writes="Nothing; with --repair damaged files go, and their stages are no longer complete.",
    examples=("verify --config laptop", "verify run_dir=s3://runs/first --repair"),
)
def verify(
    recipe: "Recipe",
    repair: Annotated[
        bool, Option("--repair", help="Take back what is damaged and can be made anew.")
    ] = False,
) -> dict[str, Any]:
    """Read every file of a run's stages and compare it with what was written.

    All stages of run_dir are looked at, whatever their settings. Ends with exit code 5 while
    anything is damaged. What --repair takes back is made anew by the stage's own command: only the
    shards that were lost. Of a training the account of its pairs is looked at, not its weights.
    """
    from codepmp_ray.errors import StorageError
    from codepmp_ray.run_damage import find_damage, take_back
    from codepmp_ray.runs import require_run, stage_folders

    require_run(recipe)
    stages = stage_folders(recipe)
    damages = [damage for stage in stages for damage in find_damage(stage)]
    for damage in damages:
        print(damage.describe())
    harmful = [damage for damage in damages if not damage.is_foreign]
    done = take_back(harmful) if repair else []
    for stage in {damage.stage.folder: damage.stage for damage in done}.values():
        shards = sorted({d.shard_id for d in done if d.stage is stage and d.shard_id is not None})
        print(f"{stage.folder}: taken back; its command makes {len(shards)} shards anew.")
    left = [damage for damage in harmful if damage not in done]
    if left:
        raise StorageError(
            f"{len(left)} files of {recipe.run_dir} are damaged.",
            "They cannot be made anew by themselves: delete the folders of their stages."
            if repair
            else "codepmp verify --repair takes them back; then run the stages' commands again.",
        )
    print(f"{len(stages)} stages of {recipe.run_dir}: nothing else is damaged.")
    return {
        "num_stages": len(stages),
        "damaged": [damage.describe() for damage in harmful],
        "foreign": [damage.describe() for damage in damages if damage.is_foreign],
        "num_taken_back": len(done),
    }
