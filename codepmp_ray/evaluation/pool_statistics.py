"""`codepmp eval pools`: every figure of a pool that is there, for the rewards that are there;
as JSON and on a terminal.
"""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from codepmp_ray.analysis.text import terminal_table
from codepmp_ray.config.base import fingerprint
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.content_digests import content_digests
from codepmp_ray.evaluation import statistics
from codepmp_ray.evaluation.pool_files import load_labelled_pool
from codepmp_ray.evaluation.pool_report import MAIN, Settings, measure_pools
from codepmp_ray.json_records import record_bytes
from codepmp_ray.runs import run_manifest
from codepmp_ray.storage import open_store

RESULTS_FILE = "pool_statistics.json"
# Goes up when the code computes something else from equal settings.
_VERSION = 2
_TITLES = {
    "random": "random",
    "length": "longest",
    "shortest": "shortest",
    "model_prior": "model prior",
    "majority": "majority",
    "oracle": "oracle",
}


def folder_of(recipe: Recipe) -> str:
    """Name of the folder in the run directory, by settings and the files' contents."""
    config, settings = recipe.pool_statistics, recipe.evaluation
    paths = [config.path, config.grades_path, *(item.path for item in config.rewards)]
    figures = [settings.confidence, settings.num_bootstrap, settings.seed]
    identity = fingerprint("pool-statistics", _VERSION, config, figures, content_digests(paths))
    return f"pool-statistics-{identity}"


def measure_pool_file(recipe: Recipe) -> dict[str, Any]:
    """Measure `recipe.pool_statistics` and write pool_statistics.json; returns its content.

    Raises what `load_labelled_pool` raises, and InputError for a k beyond the pools' size.
    """
    config, settings = recipe.pool_statistics, recipe.evaluation
    store = open_store(recipe.run_dir).sub(folder_of(recipe))
    store.require_ready()
    pool = load_labelled_pool(config)
    names = [item.name for item in config.rewards]
    arrays = pool.arrays(names)
    found = measure_pools(
        arrays,
        sorted(set(config.ks)) or None,
        Settings(
            settings.confidence,
            settings.num_bootstrap,
            settings.seed,
            config.num_vote_draws,
            config.nan_scores,
        ),
    )
    if config.stop is not None:
        fitting = statistics.StopSettings(
            **config.stop.model_dump(),
            **settings.model_dump(include={"confidence", "num_bootstrap", "seed"}),
            nan_scores=config.nan_scores,
        )
        found["stop"] = {
            name: statistics.fit_threshold(scores, arrays.passed, arrays.present, fitting)
            for name, scores in arrays.scores.items()
        }
    results = {
        "pool": config.path,
        "models": names,
        **found,
        "length_unit": pool.length_unit,
        "num_unused": pool.num_unused,
        "rejected": pool.reject_counts,
        "folder": store.uri,
        "manifest": run_manifest(recipe),
    }
    store.put(RESULTS_FILE, record_bytes(results, indent=2))
    return results


def print_pool_statistics(results: dict[str, Any], console: Console | None = None) -> None:
    """Models, baselines and comparisons, in %. Default: standard output."""
    screen = console or Console(highlight=False)
    models = results["models"]
    sizes = f"{results['num_problems']:,} problems, up to {results['num_candidates']} candidates"
    interval = f"{100 * results['confidence']:g} % interval over problems"
    votes = {name: _vote_of(results, name) for name in models}
    if models:
        picks = {name: results["series"][name] for name in models}
        title = f"Best of k by each model on {sizes}: accuracy in % ({interval})"
        screen.print(title, _by_k(results["k"], picks, "one draw", "one_draw_sd"), sep="\n")
    if any(votes.values()):
        found = {name: results["series"][vote] for name, vote in votes.items() if vote}
        title = f"Majority among k, votes weighted by each model: accuracy in % ({interval})"
        weighted = _by_k(results["k"], found, "Monte Carlo", "monte_carlo_error")
        screen.print(title, weighted, sep="\n")
    shown = {*models, *votes.values()}
    rules = [name for name in results["series"] if name not in shown]
    screen.print(f"Without a model on {sizes}: accuracy in %", _by_rule(results, rules), sep="\n")
    if results["comparisons"]:
        k = results["comparisons"][0]["k"]
        screen.print(f"Paired differences at k={k}, in points", _comparisons(results), sep="\n")
        screen.print(results["note"])
    for name, fitted in results.get("stop", {}).items():
        screen.print(_stop_line(name, fitted))
    for line in _remarks(results):
        screen.print(line)
    screen.print(results["folder"], soft_wrap=True)


def _vote_of(results: dict[str, Any], model: str) -> str | None:
    """The series of votes that the model weighs; None without final answers."""
    names = (f"weighted_majority:{model}", "weighted_majority" if model == MAIN else "")
    return next((name for name in names if name in results["series"]), None)


def _by_k(ks: list[int], parts: dict[str, dict[str, Any]], heading: str, error: str) -> Table:
    """A row for each k; of each model accuracy, interval and `error`, called `heading`."""
    headings = ["k", *(title for name in parts for title in (name, heading))]
    rows = [[str(k)] for k in ks]
    for index, row in enumerate(rows):
        for series in parts.values():
            row += [_cell(series, index), _error(series[error][index])]
    return terminal_table("", headings, rows, left=())


def _by_rule(results: dict[str, Any], rules: list[str]) -> Table:
    """A column for each rule: accuracy by k, then what is known of it beside."""
    ks, middle = results["k"], len(results["k"]) // 2
    table = terminal_table("", ["k", *(_TITLES[name] for name in rules)], [])
    parts = [results["series"][name] for name in rules]
    for index, k in enumerate(ks):
        last = index == len(ks) - 1
        row = (f"{100 * part['accuracy'][index]:.1f}" for part in parts)
        table.add_row(str(k), *row, end_section=last)
    for side in ("low", "high"):
        table.add_row(f"{ks[-1]}, {side}", *(f"{100 * part[side][-1]:.1f}" for part in parts))
    sds = (_error(p["one_draw_sd"][middle]) if "one_draw_sd" in p else "" for p in parts)
    table.add_row(f"{ks[middle]}, one draw", *sds)
    table.add_row("Monte Carlo", *(_monte_carlo(part.get("monte_carlo_error")) for part in parts))
    return table


def _comparisons(results: dict[str, Any]) -> Table:
    rows = []
    for item in results["comparisons"]:
        mean, low, high = (100 * item[name] for name in ("mean", "low", "high"))
        cells = (
            f"{item['left']} - {item['right']}",
            f"{mean:+.1f} ({low:+.1f} to {high:+.1f})",
            f"{item['test_p_value']:.2g}",
            f"{item['holm_p_value']:.2g}",
            "" if item["detectable"] is None else f"{100 * item['detectable']:.1f}",
        )
        rows.append(cells)
    return terminal_table("", ("compared", "difference", "p", "p (Holm)", "detectable"), rows)


def _stop_line(name: str, fitted: dict[str, Any]) -> str:
    start = f"Stopping best of {fitted['num_candidates']} early by {name}"
    if fitted["why_not"]:
        return f"{start}: no threshold, because {fitted['why_not']}."
    saved, lost = (fitted[key] for key in ("saved", "loss"))
    mean, low, high = (100 * saved[key] for key in ("mean", "low", "high"))
    return (
        f"{start} at a reward of {fitted['threshold']:g}, {fitted['at_once']} at once: "
        f"{mean:.0f} % of the answers saved ({low:.0f}-{high:.0f}), {100 * lost['mean']:.2f} "
        f"points lost ({100 * lost['upper']:.1f} at most), on {fitted['num_held_out']:,} problems "
        "that it was not chosen on."
    )


def _remarks(results: dict[str, Any]) -> list[str]:
    counted = {
        "problems have fewer candidates than others and are judged by all they have": results[
            "num_short_pools"
        ],
        "rewards are missing and rank last": results["num_nan_scores"],
        "candidates are beyond num_problems or num_candidates": results["num_unused"],
    }
    lines = [f"Lengths are in {results['length_unit']}."]
    lines += [f"{num:,} {words}." for words, num in counted.items() if num]
    rejected = [f"{num:,} {reason}" for reason, num in results["rejected"].items()]
    return lines + ([f"Rejected: {', '.join(rejected)}."] if rejected else [])


def _cell(series: dict[str, Any], index: int) -> str:
    accuracy, low, high = (100 * series[name][index] for name in ("accuracy", "low", "high"))
    return f"{accuracy:.1f} ({low:.1f}-{high:.1f})"


def _error(share: float) -> str:
    return f"±{100 * share:.2f}"


def _monte_carlo(errors: list[float] | None) -> str:
    """The largest over k; rules without one are exact by construction."""
    if errors is None or not any(errors):
        return "exact"
    return _error(max(errors))
