"""The whole road: corpus, synthesis, PMP, candidates, grades, RM finetuning, best-of-N, report.

Each stage is a job of its own (jobs/*.py). Finished stages are not done again, so the same command
resumes after any interruption. With --compare a reward model without PMP is finetuned and evaluated
beside it.
"""

import argparse
import sys
import time

from codepmp_ray.config.recipe import Recipe
from codepmp_ray.runs import STAGE_JOBS, open_stage
from jobs._cli import run_job

Work = list[tuple[Recipe, str]]  # stages, each with the recipe that makes it


def body(recipe: Recipe, arguments: argparse.Namespace) -> None:
    other: Recipe | None = None
    work: Work = [(recipe, name) for name in STAGE_JOBS]
    if arguments.compare:
        from codepmp_ray.evaluation.without_pmp import recipe_without_pmp

        other = recipe_without_pmp(recipe)
        work += [(other, name) for name in ("finetuning", "evaluation")]
    _announce(recipe)
    if any(not open_stage(*item).is_complete for item in work):
        _run_stages(work)
    from codepmp_ray.analysis.report import write_report
    from codepmp_ray.analysis.summary import print_summary

    if other is not None:
        from codepmp_ray.evaluation.without_pmp import compare_with

        compare_with(recipe, other)
    write_report(recipe)
    print_summary(recipe)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--compare", action="store_true", help="add the arm without PMP")


def _run_stages(work: Work) -> None:
    from codepmp_ray.cluster.connect import connect
    from codepmp_ray.evaluation.problems import require_problems

    start_s = time.monotonic()
    require_problems(work[0][0].candidates)
    stages = _stages()
    with connect() as others:
        for number, (recipe, name) in enumerate(work, start=1):
            waits = not open_stage(recipe, name).is_complete
            elapsed = f"{time.monotonic() - start_s:.0f} s"
            arm = "" if recipe is work[0][0] else " without PMP"
            state = "running" if waits else "done before"
            print(f"[{number}/{len(work)}] {name}{arm}: {state} ({elapsed})", file=sys.stderr)
            if waits:
                stages[name](recipe)
    if others and others.exists():
        print(f"What Ray and other libraries said: {others}", file=sys.stderr)


def _stages():
    """Stage name -> its function, in order. Imported here so that --help stays quick."""
    from codepmp_ray.cluster.corpus import build_corpus
    from codepmp_ray.cluster.grading import grade
    from codepmp_ray.cluster.sampling import sample_candidates
    from codepmp_ray.cluster.synthesis import synthesize
    from codepmp_ray.cluster.training import finetune, pretrain
    from jobs.evaluate import measure as evaluate

    return {
        "corpus": build_corpus,
        "synthesis": synthesize,
        "pretraining": pretrain,
        "candidates": sample_candidates,
        "grades": grade,
        "finetuning": finetune,
        "evaluation": evaluate,
    }


def _announce(recipe: Recipe) -> None:
    """What this run is going to do, before it costs anything."""
    from codepmp_ray.evaluation.given_candidates import are_given
    from codepmp_ray.synthesis.constructions import all_hops

    synthesis, candidates = recipe.synthesis, recipe.candidates
    num_snippets = recipe.corpus.max_snippets or "all"
    hops = all_hops(synthesis)
    per_snippet = sum(getattr(synthesis, hop).max_tokens for hop in hops)
    num_answers = (
        candidates.num_train_problems * candidates.num_train_samples
        + candidates.num_eval_problems * candidates.num_eval_samples
    )
    answers = f"{candidates.sampling.max_tokens} for each of {num_answers} answers"
    if are_given(candidates):
        answers = "none for the answers"
    waiting = [name for name in STAGE_JOBS if not open_stage(recipe, name).is_complete]
    print(
        f"Recipe {recipe.name} in {recipe.run_dir}: {len(waiting)} of {len(STAGE_JOBS)} stages to "
        f"run.\n  strong {recipe.engines.strong.model_name_or_path}, "
        f"weak {recipe.engines.weak.model_name_or_path}\n"
        f"  at most {per_snippet} generated tokens for each of {num_snippets} snippets, "
        f"{answers} to {candidates.task} problems",
        file=sys.stderr,
    )
    models = [
        getattr(recipe.engines, hops[side]).model_name_or_path
        for side in ("chosen", "rejected")
        if side in hops
    ]
    if len(models) == 2 and len(set(models)) == 1:
        print(
            "  One model plays strong and weak: a demonstration pair, not a dataset to train on.",
            file=sys.stderr,
        )


if __name__ == "__main__":
    run_job(__doc__, body, _options)
