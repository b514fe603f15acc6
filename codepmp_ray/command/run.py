"""`codepmp demo` and `codepmp run`: the whole road in order."""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from codepmp_ray.command.registry import command

if TYPE_CHECKING:
    from codepmp_ray.config.recipe import Recipe

    _Work = list[tuple[Recipe, str]]  # stages, each with the recipe that makes it

DEMO_RECIPE = "demo"
# The main job in its order, as runs.STAGE_JOBS has it; that module loads the whole configuration.
STAGES = ("corpus", "synthesis", "pretraining", "candidates", "grades", "finetuning", "evaluation")
_SECTIONS = ("corpus", "engines", "synthesis", "pretraining", "candidates", "finetuning", "serving",
             "evaluation")  # fmt: skip
_Compare = Annotated[bool, Option("--compare", help="Add the arm without PMP.")]
_WRITES = "A folder for each stage in run_dir, and report.html."


@command(
    "demo",
    config=DEMO_RECIPE,
    needs="The extras cpu (or gpu) and demo; no GPU, no model hub, no configuration.",
    writes=_WRITES,
    examples=("demo", "demo --compare seed=1 run_dir=runs/mine"),
    sections=_SECTIONS,
    makes=STAGES,
)
def demo(recipe: "Recipe", compare: _Compare = False) -> None:
    """Run the whole road on this machine, with models and problems out of packages."""
    run(recipe, compare)


@command(
    "run",
    job="pipeline",
    needs="What the stages need that are not finished yet (codepmp cluster check says so).",
    writes=_WRITES,
    examples=(
        "run --config laptop",
        "run -c qwen2-1.5b-math run_dir=/mnt/codepmp/runs/first @deploy/placement.args",
    ),
    sections=_SECTIONS,
    makes=STAGES,
)
def run(recipe: "Recipe", compare: _Compare = False) -> None:
    """Run the whole road: corpus, pairs, PMP, answers, grades, RM, best of N, report.

    Each stage is a command of its own. Finished stages are not done again, so the same command
    resumes after any interruption. With --compare a reward model without PMP is finetuned and
    evaluated beside it.
    """
    from codepmp_ray.command.reusing import arms_of
    from codepmp_ray.runs import open_stage

    arms = arms_of(recipe, STAGES, compare)
    work: _Work = [(arm, name) for arm, names in arms for name in names]
    _announce(recipe)
    if any(not open_stage(*item).is_complete for item in work):
        _run_stages(work)
    from codepmp_ray.analysis.closing import print_summary
    from codepmp_ray.analysis.report import write_report

    if compare:
        from codepmp_ray.evaluation.scoring_run import compare_with

        compare_with(recipe, arms[1][0])
    write_report(recipe)
    print_summary(recipe)


def _run_stages(work: "_Work") -> None:
    from codepmp_ray.cluster.connect import connect
    from codepmp_ray.evaluation.problems import require_problems
    from codepmp_ray.runs import open_stage

    start_s = time.monotonic()
    require_problems(work[0][0].candidates)
    makers = _makers()
    with connect() as others:
        for number, (recipe, name) in enumerate(work, start=1):
            waits = not open_stage(recipe, name).is_complete
            elapsed = f"{time.monotonic() - start_s:.0f} s"
            arm = "" if recipe is work[0][0] else " without PMP"
            state = "running" if waits else "done before"
            print(f"[{number}/{len(work)}] {name}{arm}: {state} ({elapsed})", file=sys.stderr)
            if waits:
                makers[name](recipe)
    if others and others.exists():
        print(f"What Ray and other libraries said: {others}", file=sys.stderr)


def _makers() -> dict[str, Callable[["Recipe"], Any]]:
    """Stage name -> its function, in order."""
    from codepmp_ray.cluster.corpus import build_corpus
    from codepmp_ray.cluster.grading import grade
    from codepmp_ray.cluster.sampling import sample_candidates
    from codepmp_ray.cluster.synthesis import synthesize
    from codepmp_ray.cluster.training import finetune, pretrain
    from codepmp_ray.command.evaluation import measure_best_of_n

    return {
        "corpus": build_corpus,
        "synthesis": synthesize,
        "pretraining": pretrain,
        "candidates": sample_candidates,
        "grades": grade,
        "finetuning": finetune,
        "evaluation": measure_best_of_n,
    }


def _announce(recipe: "Recipe") -> None:
    """What this run is going to do, before it costs anything."""
    from codepmp_ray.evaluation.given_candidates import are_given
    from codepmp_ray.runs import STAGE_JOBS, open_stage
    from codepmp_ray.synthesis.constructions import all_hops

    synthesis, candidates = recipe.synthesis, recipe.candidates
    num_snippets = recipe.corpus.max_snippets or "all"
    hops = all_hops(synthesis)
    per_snippet = sum(synthesis.sampling(hop).max_tokens for hop in hops)
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
