"""`codepmp eval pairs`: pairs scored through the service, accuracies with intervals, a row per
pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from rich.console import Console

from codepmp_ray.analysis.text import ranged, terminal_table
from codepmp_ray.client import CandidateScore, RewardClient
from codepmp_ray.config.accuracy import AccuracyConfig
from codepmp_ray.config.base import fingerprint
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.content_digests import content_digests
from codepmp_ray.errors import ConfigError
from codepmp_ray.evaluation.pairwise.accuracy import (
    Bootstrap,
    Outcomes,
    accuracy_by_section,
    calibration,
    pair_accuracy,
)
from codepmp_ray.evaluation.pairwise.official import BENCHMARKS, official
from codepmp_ray.evaluation.pairwise.pairs import LoadedPairs, Pair, by_prompt
from codepmp_ray.evaluation.pairwise.process_bench import (
    process_figures,
    read_solutions,
    request_of,
)
from codepmp_ray.evaluation.scored_shards import Request, score_in_shards
from codepmp_ray.evaluation.tasks.registry import preference_task
from codepmp_ray.json_records import record_bytes
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.records import PAIR_SCORE, STEP_SCORE
from codepmp_ray.runs import model_identity, run_manifest
from codepmp_ray.scoring.calibration import fit_temperature, write_temperature
from codepmp_ray.storage import open_store

RESULTS_FILE = "accuracy.json"
# Goes up when the code computes something else from equal settings.
_VERSION = 4


def folder_of(recipe: Recipe) -> str:
    """Name of the folder in the run directory, by sets, settings and model."""
    config, settings = recipe.accuracy, recipe.evaluation
    paths = [item.path for item in (*config.tasks, *config.data)]
    digests = content_digests([*paths, config.process_bench])
    figures = [settings.confidence, settings.num_bootstrap, settings.seed]
    identity = model_identity(recipe)
    return f"accuracy-{fingerprint('accuracy', _VERSION, config, figures, digests, identity)}"


def measure_accuracy(
    recipe: Recipe, loaded: LoadedPairs, client: RewardClient, model: str
) -> dict[str, Any]:
    """Score what is not scored yet and write accuracy.json; returns its content.

    `loaded` are the pairs of `recipe.accuracy`. Raises what `RewardClient.score` raises, and
    ConfigError or InputError for a temperature that cannot be kept or fitted.
    """
    if recipe.accuracy.calibrate and recipe.evaluation.endpoint:
        raise ConfigError(
            "accuracy.calibrate keeps a temperature beside the weights that were measured, and "
            "those behind evaluation.endpoint are not here.",
            "Leave out one of the two.",
        )
    store = open_store(recipe.run_dir).sub(folder_of(recipe))
    path, per_shard = recipe.accuracy.process_bench, recipe.accuracy.prompts_per_shard
    solutions = [] if path is None else read_solutions(path)
    requests = [_request(group) for group in by_prompt(loaded.pairs)]
    rows = score_in_shards(
        ShardLedger(store),
        client,
        requests,
        per_shard,
        "pair_scores",
        PAIR_SCORE,
    )
    results = summarise(rows, recipe) | {
        "model": model,
        "num_copies": loaded.num_copies,
        "rejected": loaded.rejected,
        "folder": store.uri,
        "manifest": run_manifest(recipe),
    }
    if solutions:
        steps = score_in_shards(
            ShardLedger(store.sub("steps")),
            client,
            [*map(request_of, solutions)],
            per_shard,
            "step_scores",
            STEP_SCORE,
        )
        results["process_bench"] = process_figures(solutions, steps, _bootstrap(recipe))
    if recipe.accuracy.calibrate:
        found = fit_temperature(*_sides(rows), [row["problem_id"] for row in rows])
        write_temperature(open_store(model), found)
        results["temperature"] = asdict(found) | {"is_kept": found.is_kept}
    store.put(RESULTS_FILE, record_bytes(results, indent=2))
    return results


def _bootstrap(recipe: Recipe) -> Bootstrap:
    settings = recipe.evaluation
    return Bootstrap(settings.confidence, settings.num_bootstrap, settings.seed)


def _sides(rows: Sequence[dict[str, Any]]) -> tuple[list[float], list[float]]:
    return [row["chosen_score"] for row in rows], [row["rejected_score"] for row in rows]


def summarise(rows: Sequence[dict[str, Any]], recipe: Recipe) -> dict[str, Any]:
    """Accuracies of PAIR_SCORE rows: all together, by section, and as the benchmarks weigh them."""
    config, settings = recipe.accuracy, recipe.evaluation
    bootstrap = _bootstrap(recipe)
    chosen, rejected = _sides(rows)
    prompts = [row["problem_id"] for row in rows]
    sections = [row["section"] for row in rows]
    outcomes = Outcomes.of(chosen, rejected, prompts, [_tie(row["source"], config) for row in rows])
    chosen_lengths, rejected_lengths = (
        [row[f"{side}_num_tokens"] for row in rows] for side in ("chosen", "rejected")
    )
    results: dict[str, Any] = {
        "confidence": settings.confidence,
        "num_truncated": sum(row["chosen_truncated"] + row["rejected_truncated"] for row in rows),
        "all": asdict(pair_accuracy(outcomes, bootstrap)),
        "sections": {
            name: asdict(found)
            for name, found in accuracy_by_section(outcomes, sections, bootstrap).items()
        },
        "calibration": calibration(chosen, rejected, prompts, bootstrap),
        # The null baseline: the longer answer is the chosen one (half for equal lengths).
        "longer_rule": {
            name: asdict(found)
            for name, found in accuracy_by_section(
                Outcomes.of(chosen_lengths, rejected_lengths, prompts), sections, bootstrap
            ).items()
        },
    }
    return results | _official(rows, config, bootstrap)


def _tie(source: str, config: AccuracyConfig) -> float:
    """What equal rewards count."""
    if source in config.task_names and source in BENCHMARKS:
        return 0.0
    return 0.0 if config.weights == "reward_bench" or config.ties == "wrong" else 0.5


def _official(
    rows: Sequence[dict[str, Any]], config: AccuracyConfig, bootstrap: Bootstrap
) -> dict[str, Any]:
    """Figures as the benchmarks themselves make them, by the benchmark's name."""
    of_tasks = {name: [row for row in rows if row["source"] == name] for name in config.task_names}
    if config.weights == "reward_bench":
        of_tasks["reward_bench"] = [row for row in rows if row["source"] not in config.task_names]
    made = {name: official(name, found, bootstrap) for name, found in of_tasks.items()}
    return {name: values for name, values in made.items() if values is not None}


def _request(group: list[Pair]) -> Request:
    texts = [text for pair in group for text in (pair.chosen, pair.rejected)]
    return Request(group[0].prompt, texts, partial(_rows, group))


def _rows(group: list[Pair], scores: list[CandidateScore]) -> list[dict[str, Any]]:
    return [
        {
            "pair_id": pair.pair_id,
            "problem_id": pair.problem_id,
            "source": pair.source,
            "section": pair.section,
            "variant": pair.variant,
            "chosen_score": chosen.score,
            "rejected_score": rejected.score,
            "chosen_num_tokens": chosen.num_tokens,
            "rejected_num_tokens": rejected.num_tokens,
            "chosen_truncated": chosen.truncated,
            "rejected_truncated": rejected.truncated,
        }
        for pair, chosen, rejected in zip(group, scores[::2], scores[1::2], strict=True)
    ]


def print_accuracy(results: dict[str, Any], console: Console | None = None) -> None:
    """Accuracy by section beside the rule "the longer is chosen". Default: standard output."""
    screen = console or Console()
    shown = partial(ranged, factor=100, digits=1, between="-")
    plain = partial(ranged, between="-")
    rules = results["longer_rule"]
    rows = [(name, of, shown(rules[name])) for name, of in results["sections"].items()]
    if len(rows) > 1:
        rows.append(("all", results["all"], ""))
    table = terminal_table(
        f"Accuracy on pairs in % ({100 * results['confidence']:g} % interval over prompts)",
        ("section", "pairs", "prompts", "reward model", "longer answer"),
        [
            (name, f"{of['num_pairs']:,}", f"{of['num_prompts']:,}", shown(of), rule)
            for name, of, rule in rows
        ],
    )
    for column in table.columns:
        column.overflow = "fold"
    screen.print(table)
    values = results["calibration"]
    screen.print(
        f"AUC {shown(values['auc'])} %, log-loss {plain(values['log_loss'])}, calibration error "
        f"{plain(values['ece'])}; as many calibrated pairs show {plain(values['ece_by_chance'])}"
    )
    if (found := results.get("temperature")) is not None:
        kept = "kept" if found["is_kept"] else "not kept: it does not lower both beyond chance"
        screen.print(
            f"Temperature {found['temperature']:.3g}: on {found['num_checked']:,} other pairs "
            f"log-loss {found['log_loss'][0]:.3f} to {found['log_loss'][1]:.3f}, calibration error "
            f"{found['ece'][0]:.3f} to {found['ece'][1]:.3f}: {kept}"
        )
    titles = {name: preference_task(name).title for name in BENCHMARKS}
    for task, title in {**titles, "process_bench": "ProcessBench"}.items():
        if (made := results.get(task)) is None:
            continue
        what = ", F1 of the first wrong step" if task == "process_bench" else ""
        for name, part in {**made["parts"], **made["sections"]}.items():
            screen.print(f"{title} {name}{what}: {shown(part)}")
        if made["missing"]:
            screen.print(f"Not complete: {title}'s {', '.join(made['missing'])} are not there.")
    screen.print(results["folder"], soft_wrap=True, highlight=False)
