"""Credentials in URLs reach nothing that is recorded, printed or sent on."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml

from codepmp_ray.analysis.report import render_report
from codepmp_ray.analysis.rundata import load_run
from codepmp_ray.config.keys import differences, shown_differences
from codepmp_ray.config.recipe import load_recipe
from codepmp_ray.errors import CodePMPError, InputError
from codepmp_ray.redaction import redacted, redacted_values, with_credentials
from codepmp_ray.runs import open_stage
from codepmp_ray.storage import LocalStore
from codepmp_ray.training import trackers

SECRET = "PASS-WORD"
SOURCE = f"https://user:{SECRET}@data.example/x.parquet?X-Amz-Signature={SECRET}&part=1"
ENDPOINT = f"http://any:{SECRET}@host:9000"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ENDPOINT, "http://***@host:9000"),
        (f"http://{SECRET}@host/v1", "http://***@host/v1"),
        (f"http://:{SECRET}@host/v1", "http://***@host/v1"),
        (f"s3://id:{SECRET}@bucket/run", "s3://***@bucket/run"),
        (f"http://u:p@{SECRET}@host", "http://***@host"),
        (f"HTTPS://u:{SECRET}@[::1]:9/x", "HTTPS://***@[::1]:9/x"),
        (f"a=http://u:{SECRET}@h b=https://v:{SECRET}@i", "a=http://***@h b=https://***@i"),
        (f"https://a/x?sig={SECRET}&sv=2", "https://a/x?sig=***&sv=2"),
        (f"https://a/x?n=1&X-Amz-Credential={SECRET}", "https://a/x?n=1&X-Amz-Credential=***"),
        (f"https://a/x?X-Amz-Security-Token={SECRET}", "https://a/x?X-Amz-Security-Token=***"),
        (f"https://a/x?access_token={SECRET}#b", "https://a/x?access_token=***#b"),
        (f"('https://a/x?api_key={SECRET}')", "('https://a/x?api_key=***')"),
        (f"https://a/x?AWSAccessKeyId={SECRET}", "https://a/x?AWSAccessKeyId=***"),
    ],
)
def test_credentials_are_hidden_and_the_rest_is_left(text: str, expected: str) -> None:
    assert redacted(text) == expected
    assert redacted(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "hf://org/name@main",
        "abfs://container@account.dfs.core.windows.net/run",
        "s3://bucket/run?versionId=abc",
        "https://a/x?max_tokens=64&keyword=b",
        "write to user@example.org",
        "which key=value; or ?token=x, in a prompt without an address",
        "ssh host, then a@b",
    ],
)
def test_what_is_no_credential_stays(text: str) -> None:
    assert redacted(text) == text


def test_settings_are_hidden_at_every_depth_and_named() -> None:
    values = {"a": {"b": [ENDPOINT, 1]}, "c": "plain", ENDPOINT: None}
    assert SECRET not in json.dumps(redacted_values(values))
    assert list(with_credentials(values)) == ["a.b.0"]


@pytest.fixture
def recipe(tmp_path: Path) -> Any:
    source = f"corpus.source={{kind: parquet, path: '{SOURCE}'}}"
    return load_recipe(None, [f"run_dir={tmp_path}", source, f"evaluation.endpoint={ENDPOINT}"])


def test_manifest_and_report_of_a_run_hold_none(
    recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["corpus.py", f"corpus.source.path={SOURCE}"])
    open_stage(recipe, "corpus").start(models={"reward": ENDPOINT})
    text = (next(tmp_path.glob("corpus-*")) / "manifest.json").read_text()
    manifest = json.loads(text)
    assert SECRET not in text and "***" in manifest["command"]
    assert manifest["recipe"]["evaluation"]["endpoint"] == "http://***@host:9000"
    report = render_report(load_run(recipe))
    assert SECRET not in report and "data.example" in report
    # What was hidden does not count as another setting.
    assert differences(manifest["recipe"], recipe) == {}


def test_an_error_shows_none_wherever_it_was_made() -> None:
    for kind in [CodePMPError, *CodePMPError.__subclasses__()]:
        error = pickle.loads(pickle.dumps(kind(f"{SOURCE} holds no file.", f"Ask {ENDPOINT}.")))
        assert SECRET not in str(error) and "data.example" in str(error)


def test_differing_settings_and_trackers_show_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert SECRET not in shown_differences({"evaluation.endpoint": (None, ENDPOINT)})
    told: list[Any] = []
    monkeypatch.setitem(trackers._TRACKERS, "tensorboard", lambda *given: told.append(given[-1]))
    monkeypatch.setattr(trackers, "require_trackers", lambda names: None)
    trackers.open_trackers(["tensorboard"], LocalStore(tmp_path), 0, {"data": [{"path": SOURCE}]})
    assert told and SECRET not in yaml.safe_dump(told)


def test_what_nobody_foresaw_ends_as_a_traceback_without_them(tmp_path: Path) -> None:
    import subprocess
    import sys

    script = (
        "from codepmp_ray.command.process import run_command\n"
        f"def body(): raise LookupError({SOURCE!r})\nrun_command(body)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" in done.stderr and "LookupError" in done.stderr
    assert SECRET not in done.stderr and InputError.__name__ not in done.stderr
