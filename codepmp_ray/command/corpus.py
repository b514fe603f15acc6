"""`codepmp corpus`."""

from typing import TYPE_CHECKING, Any

from codepmp_ray.command.registry import command

if TYPE_CHECKING:
    from codepmp_ray.config.recipe import Recipe


@command(
    "corpus",
    job="corpus",
    needs="Code: the standard library of this Python, a folder, Parquet, JSON lines or a data set "
    "of the hub, as corpus.source says.",
    writes="corpus-<fingerprint>/ in run_dir: snippets/, and rejected/ with a reason for each row.",
    examples=(
        "corpus --config laptop",
        "corpus corpus.source.kind=folder corpus.source.path=src corpus.source.license=MIT",
    ),
    sections=("corpus",),
    makes=("corpus",),
)
def corpus(recipe: "Recipe") -> dict[str, Any]:
    """Make the corpus: take functions and classes out of code files."""
    from codepmp_ray.cluster.corpus import build_corpus
    from codepmp_ray.runs import open_stage

    summary = build_corpus(recipe)
    reasons = ", ".join(f"{reason} {num}" for reason, num in summary["rejected"].items())
    print(
        f"corpus: {summary['num_files']} files ({summary['num_files_not_sampled']} more not "
        f"sampled) -> {summary['num_snippets']} snippets in {summary['num_shards']} shards\n"
        f"rejected: {summary['num_rejected']} rows ({reasons or 'none'})\n"
        f"{open_stage(recipe, 'corpus').uri}"
    )
    return summary
