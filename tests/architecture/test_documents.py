"""The documents keep up with the code."""

from __future__ import annotations

import re
import typing
from pathlib import Path
from xml.etree import ElementTree

import pyarrow as pa
import pytest

from codepmp_ray import __version__, records
from codepmp_ray.command import groups  # noqa: F401 - fills the registry
from codepmp_ray.command.registry import COMMANDS, commands_of_jobs
from codepmp_ray.config.data import Kind
from codepmp_ray.evaluation.finetuning_pairs import FINETUNING_PAIR
from codepmp_ray.evaluation.tasks.registry import PREFERENCE_TASKS, PROBLEM_TASKS
from codepmp_ray.preference.sources import SOURCES
from codepmp_ray.records import Outcome
from codepmp_ray.reject_reasons import RejectReason
from codepmp_ray.runs import SIDE_JOBS, STAGE_JOBS
from codepmp_ray.training.token_shards import USED
from scripts import readme

ROOT = Path(__file__).resolve().parents[2]
DATA_FORMAT = (ROOT / "docs/data-format.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SCHEMAS = {name: value for name, value in vars(records).items() if isinstance(value, pa.Schema)}
SCHEMAS |= {"FINETUNING_PAIR": FINETUNING_PAIR, "USED": USED}


def _section(schema: str) -> str:
    """The text below the heading that names the schema, up to the next heading."""
    match = re.search(rf"^#+ .*`{schema}`.*?$(.*?)(?=^#|\Z)", DATA_FORMAT, re.MULTILINE | re.DOTALL)
    assert match, f"docs/data-format.md has no heading with `{schema}`"
    return match.group(1)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_column_is_explained_with_its_type_and_no_other(schema: str) -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([\w<: ]+>?) \| (.+) \|$", _section(schema), re.MULTILINE)
    documented = {name: kind for name, kind, _ in rows}
    assert documented == {field.name: str(field.type) for field in SCHEMAS[schema]}


def test_every_reason_is_explained_and_no_other() -> None:
    section = DATA_FORMAT.split("## Rejected reasons", 1)[1].split("\n## ", 1)[0]
    documented = set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
    assert documented == {reason.value for reason in RejectReason}


def test_every_outcome_is_explained_and_no_other() -> None:
    table = DATA_FORMAT.split("| outcome | meaning |", 1)[1].split("\n\n", 1)[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(map(str, Outcome))


def test_every_task_is_listed_and_no_other() -> None:
    text = (ROOT / "docs/evaluation.md").read_text(encoding="utf-8")
    table = text.split("| task | kind |", 1)[1].split("\n\n", 1)[0]
    first = re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE)
    listed = {name for cell in first for name in re.findall(r"`(\w+)`", cell)}
    assert listed == {*PROBLEM_TASKS, *PREFERENCE_TASKS}


def test_every_kind_of_training_source_is_shown_and_no_other() -> None:
    section = DATA_FORMAT.split("## Training sources", 1)[1]
    documented = re.findall(r"^\| `(\w+)` \| `\{", section, re.MULTILINE)
    assert sorted(documented) == sorted(SOURCES) == sorted(typing.get_args(Kind))


@pytest.mark.parametrize("stage", STAGE_JOBS | SIDE_JOBS)
def test_every_stage_folder_is_described(stage: str) -> None:
    assert re.search(rf"^#+ .*`{stage}-<fingerprint>/`", DATA_FORMAT, re.MULTILINE)


def test_the_readme_names_every_command_and_no_other() -> None:
    table = README.split("| command | does |", 1)[1].split("\n\n", 1)[0]
    listed: list[str] = []
    for cell in re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE):
        group, _, names = cell.partition(" {")
        listed += [f"{group} {name}" for name in names.rstrip("}").split(", ")] if names else [cell]
    assert listed == list(COMMANDS)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: file.name)
def test_documents_name_commands_and_jobs_that_there_are(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    named = re.findall(r"(?:`|\$ |bin/)codepmp ([a-z]+)(?: ([a-z]+))?", text)
    assert [words for words in named if not {words[0], " ".join(words)} & COMMANDS.keys()] == []
    jobs = set(re.findall(r"(?:python -m |`)jobs\.(\w+)", text)) - {"NAME"}
    assert jobs <= set(commands_of_jobs())


@pytest.mark.parametrize(
    "document",
    [
        "README.md",
        "CONTRIBUTING.md",
        "docs/architecture.md",
        "docs/operations.md",
        "docs/kubernetes.md",
    ],
)
def test_links_inside_the_tree_lead_somewhere(document: str) -> None:
    file = ROOT / document
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", file.read_text(encoding="utf-8"))
    assert [link for link in links if not (file.parent / link).exists()] == []


def test_the_readme_shows_what_its_record_holds() -> None:
    record = readme.read_record()
    assert readme.with_block(README, record) == README
    assert ("demo.svg" in README) == readme.PICTURE.exists() == bool(record)
    if record:
        assert readme.PICTURE.read_text(encoding="utf-8") == readme.picture(record) + "\n"


def test_the_readme_block_and_picture_are_those_of_a_record() -> None:
    command = {"command": "make demo", "output": "Best of 8 ...", "seconds": 1}
    around = "a\n<!-- demo-output: begin -->\nold\n<!-- demo-output: end -->\nb"
    record = {
        "commands": [command],
        "rules": [["reward_model", [0.3, 0.2, 0.4], [0.1, 0.05, 0.15]]],
        "date": "2026-01-01",
        "commit": "c" * 40,
        "hardware": "2 cores",
    }
    text = readme.with_block(around, record)
    assert "old" not in text and "$ make demo\nBest of 8 ..." in text and text.endswith("b")
    assert readme.with_block(text, {}) == around.replace("old\n", "")
    picture = ElementTree.fromstring(readme.picture(record))
    assert picture.find("{http://www.w3.org/2000/svg}style") is not None


def test_the_changelog_knows_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{__version__}]" in changelog
