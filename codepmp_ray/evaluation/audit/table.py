"""audit.json on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def print_audit(results: dict[str, Any], console: Console | None = None) -> None:
    """Checks of the gate, what was not measured, the verdict, where the page lies.

    Default: standard output.
    """
    screen = console or Console()
    confidence = f"{100 * results['confidence']:g} % interval"
    table = Table(title=f"Audit on {results['num_pairs']:,} pairs", title_justify="left")
    for heading in ("check", "figure", confidence, "limit", ""):
        table.add_column(heading, justify="left" if heading in ("check", "") else "right")
    for check in results["gate"]["checks"]:
        figure = check["figure"]
        doubt = "" if check["is_sure"] else ", not surely"
        table.add_row(
            check["name"],
            f"{figure['mean']:.3f}",
            f"{figure['low']:.3f} to {figure['high']:.3f}",
            f"{check['rule']} {check['limit']:g}",
            ("kept" if check["passed"] else "broken") + doubt,
        )
    screen.print(table)
    if missing := results["gate"]["not_measured"]:
        screen.print(f"Not measured: {', '.join(missing)}.")
    screen.print("The model passes." if results["passed"] else "The model does not pass.")
    screen.print(results["page"], soft_wrap=True, highlight=False)
