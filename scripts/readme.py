"""The README's output block and picture, made of the record of real commands.

    python scripts/readme.py record "make demo" "codepmp score ..."
    python scripts/readme.py write

`record` runs the commands in a shell here and keeps what they print on standard output, with the
figures of the demonstration's run, in docs/readme.json; it fails with the first command that fails.
Both then write README and picture from that record. A test compares them with it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from codepmp_ray.analysis import plots  # noqa: E402
from codepmp_ray.analysis.closing import Rule, rules  # noqa: E402
from codepmp_ray.config.recipe import load_recipe  # noqa: E402
from codepmp_ray.evaluation.scoring_run import read_results  # noqa: E402
from codepmp_ray.versions import git_commit  # noqa: E402

README, RECORD, PICTURE = ROOT / "README.md", ROOT / "docs/readme.json", ROOT / "docs/demo.svg"
RECIPE = ROOT / "jobs/recipes/demo.yaml"
_BLOCK = re.compile(r"(<!-- demo-output: begin -->\n).*?(<!-- demo-output: end -->)", re.DOTALL)


def block(record: dict[str, Any]) -> str:
    """What stands between the README's marks; nothing without a record."""
    if not record:
        return ""
    shown = [f"$ {one['command']}\n{one['output']}".strip() for one in record["commands"]]
    return (
        "![Best of 8 against a random pick](docs/demo.svg)\n\n"
        f"```console\n{chr(10).join(shown)}\n```\n\n"
        f"Recorded on {record['date']} at commit `{record['commit'][:12]}`, {record['hardware']}.\n"
    )


def with_block(readme: str, record: dict[str, Any]) -> str:
    """The README with the block of `record`."""
    return _BLOCK.sub(lambda found: found[1] + block(record) + found[2], readme)


def picture(record: dict[str, Any]) -> str:
    """The run's plot as a file of its own, in the page's colours, light or dark."""
    css = (ROOT / "codepmp_ray/analysis/templates/report.css").read_text(encoding="utf-8")
    colours = css.partition("* {")[0]
    style = f"{colours}svg {{ background: var(--paper); font-family: system-ui, sans-serif; }}"
    svg = plots.differences_chart([_rule(one) for one in record["rules"]], "demo")
    return re.sub(r"(<svg[^>]*>)", lambda found: f"{found[1]}<style>{style}</style>", svg, count=1)


def read_record() -> dict[str, Any]:
    return json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}


def make_record(commands: list[str]) -> dict[str, Any]:
    """Run the commands; SystemExit with the code of the first that fails."""
    from benchmarks._results import hardware

    environment = {**os.environ, "COLUMNS": "80"}
    done = []
    for command in commands:
        start_s = time.monotonic()
        ran = subprocess.run(
            ["bash", "-c", command], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
        )
        if ran.returncode:
            raise SystemExit(f"{command!r} ended with {ran.returncode}; nothing was written.")
        output = ran.stdout.replace(f"{ROOT}/", "").rstrip()
        seconds = round(time.monotonic() - start_s)
        done.append({"command": command, "output": output, "seconds": seconds})
    shown = rules(read_results(load_recipe(RECIPE)), {})
    return {
        "commands": done,
        "rules": [[rule.name, rule.solved, rule.difference] for rule in shown],
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": git_commit(),
        "hardware": hardware(),
    }


def write(record: dict[str, Any]) -> None:
    README.write_text(with_block(README.read_text(encoding="utf-8"), record), encoding="utf-8")
    if record:
        PICTURE.write_text(picture(record) + "\n", encoding="utf-8")


def _rule(saved: list[Any]) -> Rule:
    name, solved, difference = saved
    return Rule(name, tuple(solved), difference and tuple(difference))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=["record", "write"])
    parser.add_argument("commands", nargs="*")
    arguments = parser.parse_args()
    if arguments.action == "record":
        record = make_record(arguments.commands)
        RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    write(read_record())


if __name__ == "__main__":
    main()
