"""accuracy.json on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from codepmp_ray.evaluation.pairwise.rm_bench import LEVELS

_TITLES = {
    "reward_bench_2": "RewardBench 2", "judge_bench": "JudgeBench", "ppe_human": "PPE human",
    "ppe_correctness": "PPE correctness", "code_reward_bench": "CodeRewardBench",
}  # fmt: skip


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
        f"{_plain(values['ece'])} ({values['num_bins']} equally full bins)"
    )
    if (found := results.get("temperature")) is not None:
        kept = "kept" if found["is_kept"] else "not kept: it does not lower both"
        (loss, loss_with), (ece, ece_with) = found["log_loss"], found["ece"]
        screen.print(
            f"Temperature {found['temperature']:.3g} on {found['num_checked']:,} other pairs: "
            f"log-loss {loss:.3f} to {loss_with:.3f}, calibration error {ece:.3f} to "
            f"{ece_with:.3f}: {kept}"
        )
    for task, title in _TITLES.items():
        made = results.get(task, {})
        for name, part in made.get("parts", {}).items():
            screen.print(f"{title} {name}: {shown(part)}")
        if made:
            screen.print(f"{title} total: {shown(made['total'])}")
        if made.get("missing"):
            screen.print(f"Not complete: {title}'s {', '.join(made['missing'])} are not there.")
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


def _plain(found: dict[str, Any]) -> str:
    return f"{found['mean']:.3f} ({found['low']:.3f}-{found['high']:.3f})"


def shown(found: dict[str, Any]) -> str:
    mean, low, high = (100 * found[name] for name in ("mean", "low", "high"))
    return f"{mean:.1f} ({low:.1f}-{high:.1f})"
