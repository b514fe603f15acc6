"""The file for a bug report: what is in it, what never is, and what its limits say."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from codepmp_ray.cluster import bundle as module
from codepmp_ray.cluster.bundle import ROOT, Bundle, add_run
from codepmp_ray.command.bundle import bundle as command
from codepmp_ray.config.recipe import Recipe, parse_recipe
from codepmp_ray.errors import ConfigError, InputError
from codepmp_ray.runs import open_stage

SECRETS = {"HF_TOKEN": "hf_abcdefgh12345678", "MY_API_KEY": "sk-0123456789abcdef"}
URL_SECRET = "PASSWORD-in-a-url"
ROWS = "a row of somebody's code"


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """A run with each kind of file, and secrets in each of those that are packed."""
    place = f"https://user:{URL_SECRET}@host/data"
    words = f"{SECRETS['HF_TOKEN']} {SECRETS['MY_API_KEY']} {place}?sig={URL_SECRET}\n"
    recipe = parse_recipe(
        {"run_dir": str(tmp_path / "run"), "corpus": {"source": {"kind": "jsonl", "path": place}}},
        "test",
    )
    stage = open_stage(recipe, "corpus")
    stage.start(num_shards=1)
    stage.ledger.commit(0, 1, {"snippets": pa.table({"text": [ROWS]})}, {"kept": 1})
    stage.complete({"told": words})
    stage.store.put("metrics.jsonl", json.dumps({"step": 1, "note": words}).encode())
    stage.store.put("model/model.safetensors", ROWS.encode())
    root = Path(recipe.run_dir)
    (root / "hub_models").mkdir()
    (root / "hub_models" / "a--b@main.json").write_text(words)
    (root / "logs").mkdir()
    (root / "logs" / "20261130T215301Z-corpus-0000.log").write_text(words)
    return recipe


def unpacked(path: Path) -> dict[str, str]:
    with tarfile.open(path) as archive:
        files: dict[str, Any] = {name: archive.extractfile(name) for name in archive.getnames()}
        return {name.removeprefix(f"{ROOT}/"): file.read().decode() for name, file in files.items()}


def test_all_but_rows_weights_and_secrets_is_in_it(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    outcome = command([recipe.run_dir], output=tmp_path / "b.tar.gz", no_cluster=True)
    files, stage = unpacked(tmp_path / "b.tar.gz"), open_stage(recipe, "corpus").folder
    assert {*files} == {
        *("contents.txt", "versions.json", "status.txt"),
        *(f"{stage}/{name}" for name in ("manifest.json", "complete.json", "markers.jsonl")),
        *(f"{stage}/metrics.jsonl", "hub_models/a--b@main.json"),
        "logs/20261130T215301Z-corpus-0000.log",
    }
    for name, text in files.items():
        assert not any(word in text for word in (*SECRETS.values(), URL_SECRET, ROWS)), name
    assert files["logs/20261130T215301Z-corpus-0000.log"].count("***") == 4
    assert json.loads(files[f"{stage}/manifest.json"])["recipe"]["corpus"]
    totals, marker = map(json.loads, files[f"{stage}/markers.jsonl"].splitlines())
    assert totals["num_shards"] == 1 and marker["stats"] == {"kept": 1}
    assert "corpus" in files["status.txt"] and json.loads(files["versions.json"])["code"]
    printed = capsys.readouterr().out
    assert files["contents.txt"] in printed and "--no-cluster" in printed
    assert outcome["files"] == sorted({*files} - {"contents.txt"})


def test_equal_runs_are_equal_bytes(recipe: Recipe, tmp_path: Path) -> None:
    for name in ("first", "second"):
        packed = Bundle({})
        add_run(packed, recipe.run_dir)
        packed.write(tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_what_is_beyond_a_limit_is_cut_or_left_out_and_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 100)
    monkeypatch.setattr(module, "MAX_BYTES", 300)
    packed = Bundle({})
    packed.add("long", "x" * 500 + "the end")
    packed.add("short", "y" * 100)
    packed.add("late", "z" * 300)  # itself cut, and no room is left for it
    packed.add("small", "w")  # there is room for this one
    assert {*packed.files} == {"long", "short", "small"} and packed.files["short"] == b"y" * 100
    assert packed.files["long"].endswith(b"the end") and b"last 100 of 507" in packed.files["long"]
    assert sum(map(len, packed.files.values())) <= 300
    contents = packed.contents()
    assert "long: the last 100 of 507 bytes" in contents and "late: left out" in contents


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"recipe": {"no_key": 1}}', b"\xff\xfe"])
def test_a_damaged_run_is_packed_too(recipe: Recipe, damage: bytes) -> None:
    """It is what bug reports are about."""
    stage = open_stage(recipe, "corpus")
    for name in ("manifest.json", "_commits/00000/00000000.json"):
        stage.store.put(name, damage)
    packed = Bundle({})
    assert add_run(packed, recipe.run_dir) is None
    assert f"{stage.folder}/manifest.json" in packed.files and packed.notes
    assert any(name.startswith("logs/") for name in packed.files)


def test_what_is_no_run_or_no_place_to_write_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        command([str(tmp_path / "nothing")], no_cluster=True)
    with pytest.raises(InputError, match="cannot be written"):
        command([recipe.run_dir], output=tmp_path / "no" / "b.tar.gz", no_cluster=True)
    with pytest.raises(ConfigError, match="one RUN_DIR"):
        command([], no_cluster=True)
