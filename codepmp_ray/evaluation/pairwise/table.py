"""accuracy.json on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from codepmp_ray.evaluation.pairwise.official import BENCHMARKS
from codepmp_ray.evaluation.tasks.registry import preference_task


def print_accuracy(results: dict[str, Any], console: Console | None = None) -> None:
    """Accuracy by section beside the rule "the longer is chosen". Default: standard output."""
    screen = console or Console()
    table = Table(
        title=f"Accuracy on pairs in % ({100 * results['confidence']:g} % interval over prompts)",
        title_justify="left",
    )
    for heading in ("section", "pairs", "prompts", "reward model", "longer answer"):
        table.add_column(
            heading, justify="left" if heading == "section" else "right", overflow="fold"
        )
    for name, found in results["sections"].items():
        rule = results["longer_rule"][name]
        table.add_row(
            name,
            f"{found['num_pairs']:,}",
            f"{found['num_prompts']:,}",
            shown(found),
            shown(rule),
        )
    if len(results["sections"]) > 1:
        found = results["all"]
        table.add_row(
            "all", f"{found['num_pairs']:,}", f"{found['num_prompts']:,}", shown(found), ""
        )
    screen.print(table)
    values = results["calibration"]
    screen.print(
        f"AUC {shown(values['auc'])} %, log-loss {_plain(values['log_loss'])}, calibration error "
        f"{_plain(values['ece'])}; as many calibrated pairs show {_plain(values['ece_by_chance'])}"
    )
    if (found := results.get("temperature")) is not None:
        kept = "kept" if found["is_kept"] else "not kept: it does not lower both beyond chance"
        screen.print(
            f"Temperature {found['temperature']:.3g}: on {found['num_checked']:,} other pairs "
            f"log-loss {found['log_loss'][0]:.3f} to {found['log_loss'][1]:.3f}, calibration error "
            f"{found['ece'][0]:.3f} to {found['ece'][1]:.3f}: {kept}"
        )
    for task in [name for name in BENCHMARKS if name in results]:
        title, made = preference_task(task).title, results[task]
        for name, part in {**made["parts"], **made["sections"]}.items():
            screen.print(f"{title} {name}: {shown(part)}")
        if made["missing"]:
            screen.print(f"Not complete: {title}'s {', '.join(made['missing'])} are not there.")
    if (made := results.get("process_bench")) is not None:
        for name, part in {**made["parts"], **made["sections"]}.items():
            screen.print(f"ProcessBench {name}, F1 of the first wrong step: {shown(part)}")
        if made["missing"]:
            screen.print(
                f"Not complete: ProcessBench's {', '.join(made['missing'])} are not there."
            )
    screen.print(results["folder"], soft_wrap=True, highlight=False)


def _plain(found: dict[str, Any]) -> str:
    return f"{found['mean']:.3f} ({found['low']:.3f}-{found['high']:.3f})"


def shown(found: dict[str, Any]) -> str:
    mean, low, high = (100 * found[name] for name in ("mean", "low", "high"))
    return f"{mean:.1f} ({low:.1f}-{high:.1f})"
