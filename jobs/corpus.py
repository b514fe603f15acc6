"""Make the corpus: take functions and classes out of code files.

Standard library of this Python by default; any folder, Parquet or JSONL by corpus.source.*.
"""

from __future__ import annotations

from codepmp_ray.config.recipe import Recipe
from codepmp_ray.runs import open_stage
from jobs._cli import run_job


def body(recipe: Recipe) -> None:
    from codepmp_ray.cluster.corpus import build_corpus

    summary = build_corpus(recipe)
    reasons = ", ".join(f"{reason} {num}" for reason, num in summary["rejected"].items())
    print(
        f"corpus: {summary['num_files']} files ({summary['num_files_not_sampled']} more not "
        f"sampled) -> {summary['num_snippets']} snippets in {summary['num_shards']} shards\n"
        f"rejected: {summary['num_rejected']} rows ({reasons or 'none'})\n"
        f"{open_stage(recipe, 'corpus').uri}"
    )


if __name__ == "__main__":
    run_job(__doc__, body)
