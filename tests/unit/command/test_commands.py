"""Every command of the registry: what its help says, what it refuses, what starting it loads."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from codepmp_ray.command import app, helping, process
from codepmp_ray.command.app import execute, leaf, settings_of
from codepmp_ray.command.registry import COMMANDS, Command, commands_of_jobs
from codepmp_ray.config.synthesis import ConstructionName
from codepmp_ray.errors import ConfigError
from codepmp_ray.runs import SIDE_JOBS, STAGE_COMMANDS, STAGE_JOBS

ROOT = Path(__file__).resolve().parents[3]
# What no command may load before its body runs, and what not even its help may.
HEAVY = {"datasets", "matplotlib", "numpy", "pyarrow", "ray", "torch", "transformers", "vllm"}
WITH_SETTINGS = [path for path, spec in COMMANDS.items() if spec.settings]
REQUIRED = {"answers export": ["--output", "x.jsonl"]}


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands raise SystemExit instead of ending this process."""

    def leave(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(process, "_exit", leave)
    monkeypatch.setattr(process.signal, "signal", lambda *given: None)  # ours stay


def code_of(spec: Command, *words: str) -> int:
    with pytest.raises(SystemExit) as end:
        leaf(spec).main([*REQUIRED.get(spec.path, []), *words], prog_name="codepmp")
    assert isinstance(end.value.code, int)
    return end.value.code


def help_of(spec: Command) -> str:
    command = leaf(spec)
    return command.get_help(command.make_context(spec.path, [], resilient_parsing=True))


def plain(text: str) -> str:
    """On one line, also where a line ended at a hyphen."""
    return " ".join(text.split()).replace("- ", "-")


@pytest.mark.parametrize("path", COMMANDS)
def test_help_says_what_is_needed_and_written_with_two_examples_and_all_keys(path: str) -> None:
    spec, text = COMMANDS[path], help_of(COMMANDS[path])
    first = plain((spec.body.__doc__ or "").partition("\n\n")[0])
    for words in (first, "Needs:", plain(spec.needs), "Writes:", plain(spec.writes)):
        assert words in plain(text)
    lines = [line.strip() for line in text.splitlines()]
    assert len(set(spec.examples)) == 2
    assert {f"$ codepmp {example}" for example in spec.examples} <= set(lines)
    assert not spec.job or f"python -m jobs.{spec.job}" in text
    keys = [key for section in spec.sections for key in helping.keys_below(spec, section)]
    assert bool(keys) == bool(spec.sections)
    if len(keys) > helping._MOST_KEYS:
        assert all(section in text for section in spec.sections)
    else:
        assert {key.shown for key in keys} <= set(lines)
    for section in spec.sections:
        assert list(helping.keys_below(spec, section)), f"{path}: {section} is no section"


@pytest.mark.parametrize("path", COMMANDS)
def test_examples_are_command_lines_that_are_understood(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)  # one names deploy/placement.args
    spec = COMMANDS[path]
    for example in spec.examples:
        words = shlex.split(example.partition(" > ")[0])
        assert words[: len(path.split())] == path.split()
        given = leaf(spec).make_context(path, words[len(path.split()) :]).params
        settings, others = settings_of(spec, given)
        assert (settings is not None) == bool(spec.settings)
        assert bool(others) <= ("words" in spec.parameters)


@pytest.mark.parametrize("path", WITH_SETTINGS)
def test_a_mistyped_section_key_or_option_is_refused_with_what_was_meant(
    path: str, ended: None, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = COMMANDS[path]
    is_recipe = spec.settings == "recipe"
    for wrong, meant in (
        ("synthesi.describer=weak", "did you mean synthesis?"),
        ("synthesis.descriver=weak", "did you mean describer?"),
    ) if is_recipe else (
        ("modles.x.seed=1", "did you mean models?"),
        ("scoring.egine=torch", "did you mean engine?"),
    ):  # fmt: skip
        assert code_of(spec, wrong) == ConfigError.exit_code
        error = capsys.readouterr().err
        assert meant in error and error.count("\n") == 1, error
    assert code_of(spec, "--confg", "laptop") == 2
    assert "--config" in capsys.readouterr().err
    assert code_of(spec, "--config", "laptp") == ConfigError.exit_code
    assert "did you mean laptop?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pairz"], "Did you mean 'pairs'"),
        (["pairs", "mkae"], "Did you mean 'make'?"),
        (["config", "keys", "synthesis.descriver"], "did you mean synthesis.describer?"),
        (["status", "--reuse", "corpsu"], "did you mean corpus?"),
        (["paper", "run"], "0 studies are named"),
        (["paper", "run", "table2", "table3", "--plan"], "2 studies are named"),
        (["score", "model"], "Give MODEL and FILE"),
        (["score", "--output", "x.jsonl", "run_dir=x"], "--output=x.jsonl is for MODEL and FILE"),
        (["config", "diff", "laptop"], "Give two"),
        (["answers", "export"], "--output"),
        (["train", "plan", "--stage", "synthesis"], "pretraining"),
        (["cluster", "submit", "corpsu"], "did you mean corpus?"),
    ],
)
def test_what_is_not_understood_ends_with_exit_code_2(
    words: list[str], said: str, ended: None, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        app._root().main(words, prog_name="codepmp")
    assert end.value.code == 2
    assert said in plain(capsys.readouterr().err)


def test_every_job_is_a_thin_file_and_every_file_a_job() -> None:
    jobs = commands_of_jobs()
    files = {file.stem: file for file in (ROOT / "jobs").glob("[a-z]*.py")}
    assert files.keys() == jobs.keys()
    for name, file in files.items():
        text = file.read_text(encoding="utf-8")
        assert text.startswith(f'"""`codepmp {jobs[name].path}` as a job."""\n')
        assert text.endswith(f'if __name__ == "__main__":\n    run_job("{name}")\n')
        assert len(text.splitlines()) == 6
    assert {*STAGE_JOBS.values(), *SIDE_JOBS.values()} <= jobs.keys()


@pytest.mark.parametrize("stage", STAGE_JOBS)
def test_a_stage_is_made_by_the_command_that_errors_name(stage: str) -> None:
    spec = COMMANDS[STAGE_COMMANDS[stage]]
    assert (spec.makes, spec.job) == ((stage,), STAGE_JOBS[stage])
    assert COMMANDS["run"].makes == COMMANDS["demo"].makes == tuple(STAGE_JOBS)


def modules_after(script: str) -> set[str]:
    script += "; import json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


def test_starting_loads_neither_a_heavy_library_nor_the_configuration() -> None:
    loaded = modules_after("from codepmp_ray.command import app; app._root()")
    assert loaded & (HEAVY | {"pydantic", "yaml", "rich"}) == set()


def test_help_and_a_recipe_load_no_heavy_library() -> None:
    script = (
        "from codepmp_ray.command import app, registry; spec = registry.COMMANDS['pairs make']; "
        "leaf = app.leaf(spec); context = leaf.make_context('x', ['a.b=1'], resilient_parsing=True)"
        "; leaf.get_help(context); app.settings_of(spec, {'config': 'laptop'})"
    )
    assert modules_after(script) & HEAVY == set()


def test_json_is_all_that_standard_output_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def given(**options: Any) -> dict[str, Any]:
        common = {"overrides": [f"run_dir={tmp_path}"], "config": None, "reuse": None}
        return common | {"dry_run": False, "json": True} | options

    for path, key in (("status", "stages"), ("config show", "synthesis")):
        execute(COMMANDS[path], given())
        shown = capsys.readouterr()
        assert key in json.loads(shown.out) and key.rstrip("s") in shown.err
    execute(COMMANDS["config keys"], {"overrides": ["synthesis.gates"], "json": True})
    keys = json.loads(capsys.readouterr().out)
    assert keys["synthesis.gates.refusals"]["default"] is True
    assert "instead of answering" in keys["synthesis.gates.refusals"]["about"]
    execute(COMMANDS["paper list"], {"json": True})
    assert json.loads(capsys.readouterr().out)["table3"]["title"]


def test_a_dry_run_says_what_would_be_made_and_makes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"overrides": [f"run_dir={tmp_path}/run"], "config": None, "reuse": None}
    for path in ("run", "pairs make"):
        execute(COMMANDS[path], {**options, "dry_run": True, "json": False})
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines] == list(COMMANDS[path].makes)
        assert all(f"{tmp_path}/run/{line.split()[0]}-" in line for line in lines)
    assert lines[0].endswith("; needs corpus first")
    for construction in get_args(ConstructionName):
        own = [f"synthesis.construction={construction}", "synthesis.threads.path=/threads"]
        source = ["corpus.source.kind=folder", "corpus.source.path=/code"]
        source += ["engines.weak={kind: fake, model_name_or_path: another}"]
        given = {**options, "overrides": [*options["overrides"], *own, *source]}
        execute(COMMANDS["pairs make"], {**given, "dry_run": True, "json": False})
        needs = "needs corpus" in capsys.readouterr().out
        assert needs == (construction not in ("web_pairs", "commits")), construction
    execute(COMMANDS["run"], {**options, "dry_run": True, "json": False, "compare": True})
    *both, finetuned, evaluated = capsys.readouterr().out.splitlines()
    assert len(both) == len(COMMANDS["run"].makes)
    for line, name in ((finetuned, "finetuning"), (evaluated, "evaluation")):
        assert line.startswith(name) and line.endswith(" without PMP")
        assert line.split()[2] not in " ".join(both)
    assert list(tmp_path.iterdir()) == []


def test_config_diff_names_the_keys_that_differ(
    ended: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code_of(COMMANDS["config diff"], "qwen2-1.5b-math", "qwen2-7b-math") == 0
    shown = capsys.readouterr().out
    assert "pretraining.learning_rate: 3e-06 -> 1e-06" in shown
    assert "corpus.min_lines" not in shown
    assert code_of(COMMANDS["config diff"], "laptop", "laptop") == 0
    assert capsys.readouterr().out == "No key differs.\n"


def test_the_schema_of_recipes_is_json() -> None:
    for option in ([], ["--studies"]):
        command = [sys.executable, "-m", "codepmp_ray.command", "config", "schema", *option]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        assert "properties" in json.loads(done.stdout)


def test_jobs_and_the_version_are_listed() -> None:
    for words, said in (
        (["jobs"], "codepmp pairs make"),
        (["codepmp_ray.command", "--version"], "0."),
    ):
        done = subprocess.run(
            [sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert said in re.sub(" +", " ", done.stdout)
        assert words != ["jobs"] or all(f"  {job} " in done.stdout for job in commands_of_jobs())


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("codepmp pai", {"pairs"}),
        ("codepmp pairs ma", {"make"}),
        ("codepmp pairs make --config lap", {"laptop"}),
        ("codepmp paper all --config seed", {"seed004-opt350m"}),
        ("codepmp pairs make synthesis.describer", {"synthesis.describer="}),
        ("codepmp pairs make --dry", {"--dry-run"}),
    ],
)
def test_the_shell_completes_commands_options_recipes_and_keys(
    line: str, completed: set[str]
) -> None:
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    done = subprocess.run(
        [sys.executable, "-m", "codepmp_ray.command"],
        cwd=ROOT,
        env={**os.environ, "_CODEPMP_COMPLETE": "complete_bash", **asked},
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(done.stdout.split()) == completed
