"""Every job as a RayJob: the operator's rules, and its command in real shells with a stub `ray`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from codepmp_ray.cluster.ray_job import rayjob_manifest
from codepmp_ray.cluster.submit import Submission
from codepmp_ray.command import groups  # noqa: F401 - fills the registry
from codepmp_ray.command.registry import commands_of_jobs
from codepmp_ray.command.submitting import Asked, resolve
from codepmp_ray.config.carried import VARIABLE
from codepmp_ray.config.recipe import load_recipe
from codepmp_ray.config.studies import load_studies
from codepmp_ray.errors import ConfigError
from tests.kuberay_rules import problems, submitter_command

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = (ROOT / "deploy/kuberay/job.yaml").read_text(encoding="utf-8")
JOBS = sorted(commands_of_jobs().keys() - {"submit"})
NEEDED = {"pool": ["--output", "/mnt/pool.jsonl"], "study": ["table2"], "purge": ["--repo", "a/b"]}
ADDRESS = "http://codepmp-head-svc:8265"

# `ray job` as far as KubeRay calls it. What it is given to run it joins and starts as Ray does.
_RAY = """
import json, os, subprocess, sys
words = sys.argv[2:]
known = os.path.join({folder!r}, "submitted")
if words[0] == "status":
    sys.exit(not os.path.exists(known))
if words[0] == "submit":
    open(known, "w").close()
    at = words.index("--")
    env = json.loads(words[words.index("--runtime-env-json") + 1])["env_vars"]
    entrypoint = subprocess.list2cmdline(words[at + 1 :])
    env = dict(os.environ, PLACE="head", **env)
    sys.exit(subprocess.call(entrypoint, shell=True, env=env) * 0)
"""
_PYTHON = """
import json, os, sys
if sys.argv[1] != "-c":
    place = os.environ.get("PLACE", "submitter")
    with open(os.path.join({folder!r}, place + ".json"), "a") as file:
        file.write(json.dumps([sys.argv[1:], dict(os.environ)]) + "\\n")
    sys.exit(3)  # the job fails
"""


def manifest(job: str, *arguments: str, **env_vars: str) -> tuple[Asked, dict[str, Any]]:
    asked = resolve([job, *NEEDED.get(job, []), "run_dir=/mnt/codepmp/a b", *arguments])
    submission = Submission(
        job, asked.arguments, asked.identity, None, {**env_vars, **asked.env_vars}, line=asked.line
    )
    return asked, yaml.safe_load(rayjob_manifest(submission, TEMPLATE))


def stubs(folder: Path) -> dict[str, str]:
    for name, text in {"ray": _RAY, "python": _PYTHON}.items():
        file = folder / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!{sys.executable}{text.format(folder=str(folder))}")
        file.chmod(0o755)
    return {"PATH": f"{folder / 'bin'}:{os.defpath}"}


@pytest.mark.parametrize("job", JOBS)
def test_the_operator_takes_it_and_runs_the_job_on_the_head_once(job: str, tmp_path: Path) -> None:
    token = """a"b\\c d'e!f<g>&h;i|j{k,l}*?~#%"""
    asked, made = manifest(job, TOKEN=token)
    assert problems(made) == []
    environment = stubs(tmp_path)
    command = submitter_command(made, ADDRESS, "id-1")
    for _ in range(2):  # the submitter's pod is started again
        assert subprocess.run(command, env=environment, capture_output=True).returncode == 0
    assert not (tmp_path / "submitter.json").exists()
    (ran,) = map(json.loads, (tmp_path / "head.json").read_text().splitlines())
    assert ran[0] == ["-m", f"jobs.{job}", *asked.arguments]
    assert ran[1]["TOKEN"] == token
    text = ran[1][VARIABLE]
    assert asked.env_vars == {VARIABLE: text} and json.loads(text)["run_dir"] == "/mnt/codepmp/a b"


@pytest.mark.parametrize("job", JOBS)
def test_what_travels_is_the_recipe_that_was_resolved(
    job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, _ = manifest(job, "name=$(id) `id` \u00e9")
    (variable,) = asked.env_vars
    assert asked.env_vars[variable].isascii() and not set(asked.env_vars[variable]) & set("$`")
    monkeypatch.setenv(variable, asked.env_vars[variable])
    load = load_studies if commands_of_jobs()[job].settings == "studies" else load_recipe
    named = asked.arguments[asked.arguments.index("--config") + 1]
    assert load(named) == asked.settings and load(named).name == "$(id) `id` \u00e9"


def test_its_name_follows_from_the_work() -> None:
    names = [manifest("corpus", *more)[1]["metadata"]["name"] for more in ([], [], ["name=x"])]
    assert names[0] == names[1] != names[2]
    submission = Submission("corpus", (), 1)
    given = rayjob_manifest(submission, TEMPLATE, "mine")
    assert yaml.safe_load(given)["metadata"]["name"] == "mine"
    for name in ("Mine", "a_b", "a" * 48, "1a", "a-"):
        with pytest.raises(ConfigError, match="no name of a RayJob"):
            rayjob_manifest(submission, TEMPLATE, name)


@pytest.mark.parametrize(
    "word", ["a b", "a&&b", "a;b", "$(id)", "`id`", "a'b", 'a"b', "a>b", "{a,b}", ""]
)
def test_a_word_that_a_shell_would_read_is_refused(word: str) -> None:
    with pytest.raises(ConfigError, match="shells read"):
        rayjob_manifest(Submission("purge", ("--path", word), 1), TEMPLATE)


@pytest.mark.parametrize("value", ["a$b", "a`b", "a\nb", "\u00e9"])
def test_a_value_that_would_not_arrive_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match=r"--env TOKEN.*secret"):
        rayjob_manifest(Submission("corpus", (), 1, None, {"TOKEN": value}), TEMPLATE)


@pytest.mark.skipif(shutil.which("bash") is None, reason="KubeRay's submitter runs bash")
def test_the_stub_shows_what_an_operator_in_an_entrypoint_does(tmp_path: Path) -> None:
    """So that the test above can fail: of this form the submitter itself runs the second half."""
    _, made = manifest("corpus")
    made["spec"]["entrypoint"] = f"cd /tmp && {made['spec']['entrypoint']}"
    command = submitter_command(made, ADDRESS, "id-1")
    subprocess.run(command, env=stubs(tmp_path), capture_output=True)
    assert (tmp_path / "submitter.json").exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"ttlSecondsAfterFinished": 60}, "shutdownAfterJobFinishes"),
        ({"clusterSelector": {}}, "names no cluster"),
        ({"suspend": True}, "suspended"),
        ({"backoffLimit": 1}, "backoffLimit"),
        ({"submissionMode": "SidecarMode"}, "SidecarMode"),
    ],
)
def test_the_rules_can_refuse(changed: dict[str, Any], said: str) -> None:
    _, made = manifest("corpus")
    made["spec"] |= changed
    assert re.search(said, "; ".join(problems(made)))
