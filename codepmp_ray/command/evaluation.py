"""`codepmp eval`: best of N, pairs, pools, audit, parity."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from codepmp_ray.command.registry import command

if TYPE_CHECKING:
    from codepmp_ray.config.recipe import Recipe
    from codepmp_ray.evaluation.pairwise.pairs import LoadedPairs

_MODEL = "a finished reward model (or serving.model_path, or the service at evaluation.endpoint)"


@command(
    "eval bon",
    job="evaluate",
    needs=f"Graded answers, and {_MODEL}.",
    writes="evaluation-<fingerprint>/ in run_dir: a reward for each answer, results.json.",
    examples=(
        "eval bon --config laptop",
        "eval bon -c laptop evaluation.endpoint=http://127.0.0.1:9000",
    ),
    sections=("evaluation", "serving"),
    makes=("evaluation",),
)
def bon(recipe: "Recipe") -> dict[str, Any]:
    """Measure best-of-N accuracy on held-out problems, through the HTTP service.

    Uses the service at evaluation.endpoint, or starts one on the finetuned model while it runs.
    """
    from codepmp_ray.analysis.closing import print_closing
    from codepmp_ray.evaluation.scoring_run import read_results

    measure_best_of_n(recipe)
    results = read_results(recipe)
    print_closing(results)
    return results


def measure_best_of_n(recipe: "Recipe") -> None:
    """Run or resume the stage."""
    from codepmp_ray.command.endpoint import model_of, reward_client
    from codepmp_ray.evaluation.scoring_run import evaluate
    from codepmp_ray.runs import open_stage

    if open_stage(recipe, "evaluation").is_complete:
        return
    for name in ("candidates", "grades"):
        open_stage(recipe, name).require()
    model = model_of(recipe)
    with reward_client(recipe, model) as client:
        evaluate(recipe, client, model)


@command(
    "eval pairs",
    job="accuracy",
    needs=f"Preference sets (accuracy.data, accuracy.tasks), and {_MODEL}.",
    writes="accuracy-<fingerprint>/ in run_dir: accuracy.json, and a row for each pair.",
    examples=(
        "eval pairs accuracy.tasks='[rm_bench, hh_harmless]'",
        "eval pairs accuracy.data='[{path: pairs.jsonl}]' serving.model_path=runs/model",
    ),
    sections=("accuracy",),
)
def pairs(recipe: "Recipe") -> dict[str, Any]:
    """Measure accuracy on preference pairs, by section, with intervals.

    Pairs are those of accuracy.data and accuracy.tasks. Uses the service at evaluation.endpoint, or
    starts one while it runs. Rows that are scored already are not scored again.
    """
    from codepmp_ray.command.endpoint import model_of, reward_client
    from codepmp_ray.evaluation.pairwise.run import measure_accuracy, print_accuracy

    loaded = _pairs_of(recipe)  # what cannot be read is known before a model is loaded
    model = model_of(recipe)
    with reward_client(recipe, model) as client:
        results = measure_accuracy(recipe, loaded, client, model)
    print_accuracy(results)
    return results


@command(
    "eval pools",
    job="pool_statistics",
    needs="A file of labelled candidates (pool_statistics.path); rewards are columns of it or "
    "tables that `score` or `eval bon` wrote.",
    writes="pool-statistics-<fingerprint>/pool_statistics.json in run_dir.",
    examples=(
        "eval pools pool_statistics.path=pool.jsonl",
        "eval pools pool_statistics.path=p.jsonl pool_statistics.rewards='[{name: m, column: r}]'",
    ),
    sections=("pool_statistics",),
)
def pools(recipe: "Recipe") -> dict[str, Any]:
    """Measure a file of labelled candidates with the rewards of one or several models.

    Prints best of k as an exact expectation with its interval and how much one random draw varies,
    votes, baselines and paired comparisons.
    """
    from codepmp_ray.evaluation.pool_statistics import measure_pool_file, print_pool_statistics

    results = measure_pool_file(recipe)
    print_pool_statistics(results)
    return results


@command(
    "eval audit",
    job="audit",
    needs=f"Preference sets (accuracy.data, accuracy.tasks), and {_MODEL}.",
    writes="audit-<fingerprint>/ in run_dir: audit.json, audit.html.",
    examples=(
        "eval audit accuracy.tasks='[hh_harmless]'",
        "eval audit -c laptop accuracy.data='[{path: pairs.jsonl}]' audit.pools='[pool.jsonl]'",
    ),
    sections=("audit",),
)
def audit(recipe: "Recipe") -> dict[str, Any]:
    """Audit what the reward follows besides quality: length, format, edits, who wrote an answer.

    The pairs are those of accuracy.data and accuracy.tasks; edited answers are scored beside them.
    Labelled pools (audit.pools, and the candidates of this recipe's evaluation where it is
    finished) show who wrote an answer and whether accuracy falls with k. The limits of the gate are
    in the section audit; serving.require_audit refuses to serve a model without a passed and
    complete audit.
    """
    from codepmp_ray.command.endpoint import model_of, reward_client
    from codepmp_ray.evaluation.audit.pools import load_audit_pools
    from codepmp_ray.evaluation.audit.report import print_audit
    from codepmp_ray.evaluation.audit.run import audit as audit_model

    # What cannot be read is known before a model is loaded.
    loaded, found = _pairs_of(recipe), load_audit_pools(recipe.audit)
    model = model_of(recipe)
    with reward_client(recipe, model) as client:
        results = audit_model(recipe, loaded, found, client, model)
    print_audit(results)
    return results


@command(
    "eval parity",
    job="parity",
    needs="A finished reward model or serving.model_path.",
    writes="Nothing: it prints a table, and ends with exit code 10 where two ways differ.",
    examples=(
        "eval parity --config laptop",
        "eval parity serving.model_path=runs/model --questions 4 --candidates 2",
    ),
    sections=("serving",),
)
def parity(
    recipe: "Recipe",
    questions: Annotated[int, Option(help="How many.")] = 16,
    candidates: Annotated[int, Option(help="Of each question.")] = 4,
) -> dict[str, Any]:
    """Compare the scores of trainer, transformers, engine and service; fails if they differ.

    The same ids of HumanEval problems and solutions go through the trainer's forward of packed
    pairs, AutoModelForSequenceClassification on the export, the serving engine and POST /v1/bon. In
    fp32 the largest difference may be 1e-4; in bf16 it may be 25 % of the range of the scores, 10 %
    in the mean. The best candidate has to be the same everywhere.
    """
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table

    from codepmp_ray.command.extras import require_engine
    from codepmp_ray.evaluation.parity import compare, humaneval_questions, torch_rewards
    from codepmp_ray.modeling.sources import resolve_model
    from codepmp_ray.preference.tokenization import Encoder
    from codepmp_ray.runs import reward_model
    from codepmp_ray.scoring.exported_model import require_model
    from codepmp_ray.serve.parity import service_rewards

    config, model = recipe.serving, reward_model(recipe)
    require_engine("serving.engine", config.engine)
    require_model(config, model)
    folder = Path(resolve_model(model))
    asked = humaneval_questions(Encoder.load(folder), config.max_model_len, questions, candidates)
    ways = torch_rewards(folder, config.dtype, asked)
    ways |= service_rewards(recipe, model, asked)
    found = compare(ways, config.dtype)
    title = (
        f"{questions} questions x {candidates}, {config.dtype}: "
        f"rewards over a range of {found.spread:.3g}, tolerance {found.tolerance:.2g}"
    )
    columns = ("ways", "largest difference", "mean", "same winner")
    table = Table(*columns, title=title, title_justify="left")
    for item in found.differences:
        table.add_row(
            f"{item.left} - {item.right}",
            f"{item.largest:.2g}",
            f"{item.mean:.2g}",
            f"{item.num_same_winners} of {found.num_questions}",
            style="" if found.agrees(item) else "bold red",
        )
    Console().print(table)
    found.require()
    return {"tolerance": found.tolerance, "differences": [asdict(d) for d in found.differences]}


def _pairs_of(recipe: "Recipe") -> "LoadedPairs":
    """The pairs of `accuracy`; says which columns were read."""
    from codepmp_ray.evaluation.pairwise.pairs import load_pairs

    loaded = load_pairs(recipe.accuracy)
    for line in loaded.columns:
        print(line, file=sys.stderr)
    return loaded
