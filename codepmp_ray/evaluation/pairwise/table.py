"""accuracy.json on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from codepmp_ray.evaluation.pairwise.rm_bench import LEVELS


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
    for name, found in results.get("reward_bench", {}).get("sections", {}).items():
        screen.print(f"RewardBench {name}: {shown(found)}")
    if missing := results.get("reward_bench", {}).get("missing"):
        screen.print(f"Not complete: RewardBench's {', '.join(missing)} are not there.")
    if found := results.get("rm_bench"):
        parts = {level: found[level] for level in LEVELS} | found["domains"]
        for name, part in {**parts, "total": found["total"]}.items():
            screen.print(f"RM-Bench {name}: {shown(part)}")
        if found["missing"]:
            screen.print(f"Not complete: RM-Bench's {', '.join(found['missing'])} are not there.")
    screen.print(results["folder"], soft_wrap=True, highlight=False)


def shown(found: dict[str, Any]) -> str:
    mean, low, high = (100 * found[name] for name in ("mean", "low", "high"))
    return f"{mean:.1f} ({low:.1f}-{high:.1f})"
