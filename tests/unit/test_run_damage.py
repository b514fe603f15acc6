"""Files of a run directory that are not as they were written: named, and taken back one by one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from codepmp_ray import ledger as ledgers
from codepmp_ray.analysis.status import print_status, stage_status
from codepmp_ray.command.report import verify
from codepmp_ray.config.recipe import Recipe, parse_recipe
from codepmp_ray.errors import StorageError
from codepmp_ray.run_damage import find_damage
from codepmp_ray.runs import Stage, open_stage

NUM_SHARDS, BAD = 5, 2


def rows(shard: int) -> dict[str, pa.Table]:
    values = list(range(100 * shard, 100 * shard + 40))
    return {
        "pairs": pa.table({"x": values[:30], "text": [f"row {x}" for x in values[:30]]}),
        "rejected": pa.table({"x": values[30:], "reason": ["no"] * 10}),
    }


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A run with a finished synthesis of NUM_SHARDS shards, two groups of them rolled up."""
    monkeypatch.setattr(ledgers, "GROUP_SIZE", 2)
    monkeypatch.setattr("codepmp_ray.run_damage.GROUP_SIZE", 2)
    recipe = parse_recipe({"run_dir": str(tmp_path / "run")}, "test")
    stage = open_stage(recipe, "synthesis")
    stage.start(NUM_SHARDS)
    for shard in range(NUM_SHARDS):
        stage.ledger.commit(shard, 40, rows(shard))
    assert stage.ledger.roll_up() == 2
    stage.complete({"num_pairs": 150})
    return recipe


def table_file(stage: Stage, shard: int = BAD) -> Path:
    return Path(stage.uri) / stage.ledger.read_marker(shard).files["pairs"]


def marker_file(stage: Stage, shard: int = BAD) -> Path:
    return Path(stage.uri) / f"_commits/{shard // 2:05d}/{shard:08d}.json"


def truncate(stage: Stage) -> None:
    file = table_file(stage)
    file.write_bytes(file.read_bytes()[:-100])


def flip(stage: Stage) -> None:
    data = bytearray(table_file(stage).read_bytes())
    data[len(data) // 2] ^= 1
    table_file(stage).write_bytes(data)


def swap(stage: Stage) -> None:
    table_file(stage).write_bytes(table_file(stage, 1).read_bytes())


def lose(stage: Stage) -> None:
    table_file(stage).unlink()


def garble_marker(stage: Stage) -> None:
    marker_file(stage).write_text("{")


def empty_marker(stage: Stage) -> None:
    marker_file(stage).write_text("")


def lose_marker(stage: Stage) -> None:
    marker_file(stage).unlink()


def other_marker(stage: Stage) -> None:
    marker_file(stage).write_bytes(marker_file(stage, 1).read_bytes())


SHARD_KINDS = [truncate, flip, swap, lose, garble_marker, empty_marker, lose_marker, other_marker]


@pytest.mark.parametrize("damage", SHARD_KINDS)
def test_a_damaged_shard_costs_only_itself(
    recipe: Recipe, damage: Callable[[Stage], None], capsys: pytest.CaptureFixture[str]
) -> None:
    stage = open_stage(recipe, "synthesis")
    assert list(find_damage(stage)) == [] and verify(recipe)["damaged"] == []
    before = {file: file.stat().st_mtime_ns for file in Path(stage.uri).rglob("*.parquet")}
    damage(stage)
    with pytest.raises(StorageError, match="--repair takes them back"):
        verify(recipe)
    assert f"shard {BAD}" in capsys.readouterr().out
    assert stage.is_complete  # nothing is changed by looking

    assert verify(recipe, repair=True)["num_taken_back"] >= 1
    assert "makes 1 shards anew" in capsys.readouterr().out
    assert not stage.is_complete and stage.ledger.missing_ids(NUM_SHARDS) == [BAD]
    assert not list(Path(stage.uri).glob(f"*/*/{BAD:08d}.*"))
    others = {f: t for f, t in before.items() if f.exists() and "_rollups" not in f.parts}
    assert len(others) == 2 * (NUM_SHARDS - 1)
    assert all(file.stat().st_mtime_ns == made for file, made in others.items())

    stage.ledger.commit(BAD, 40, rows(BAD))
    stage.ledger.roll_up()
    stage.complete({"num_pairs": 150})
    assert verify(recipe)["damaged"] == []
    assert stage.ledger.read("pairs").column("x").to_pylist() == [
        x for shard in range(NUM_SHARDS) for x in rows(shard)["pairs"].column("x").to_pylist()
    ]


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff"])
@pytest.mark.parametrize("name", ["manifest.json", "complete.json"])
def test_a_damaged_record_is_one_line_and_costs_no_shard(
    recipe: Recipe, name: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = open_stage(recipe, "synthesis")
    (Path(stage.uri) / name).write_text(text, encoding="latin-1")
    read = stage.summary if name == "complete.json" else stage.num_shards
    with pytest.raises(StorageError, match=rf"{name} is no JSON record .*codepmp verify"):
        read()
    with pytest.raises(StorageError):
        verify(recipe)
    verify(recipe, repair=True)
    assert "makes 0 shards anew" in capsys.readouterr().out
    assert not stage.is_complete and stage.ledger.missing_ids(NUM_SHARDS) == []


def test_a_damaged_roll_up_goes_alone(recipe: Recipe) -> None:
    stage = open_stage(recipe, "synthesis")
    file = Path(stage.uri) / "_rollups/00001.parquet"
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(StorageError, match="not a readable Parquet file"):
        list(stage.ledger.commits())
    verify(recipe, repair=True)
    assert not file.exists() and len(list(stage.ledger.commits())) == NUM_SHARDS


def test_a_roll_up_that_says_something_else_than_the_markers_is_damage(recipe: Recipe) -> None:
    stage = open_stage(recipe, "synthesis")
    rollups = Path(stage.uri) / "_rollups"
    (rollups / "00001.parquet").write_bytes((rollups / "00000.parquet").read_bytes())
    with pytest.raises(StorageError, match="1 files"):
        verify(recipe)


@pytest.mark.parametrize(
    "name",
    ["_commits/Thumbs.db", "_commits/00000/core.12", "_rollups/x.txt", "pairs/lost+found/x",
     "pairs/00000/note.txt", "_commits/00000/readme.json"],
)  # fmt: skip
def test_what_is_not_ours_is_in_nobody_s_way(recipe: Recipe, name: str) -> None:
    stage = open_stage(recipe, "synthesis")
    foreign = Path(stage.uri) / name
    foreign.parent.mkdir(exist_ok=True)
    foreign.write_text("x")
    assert stage.ledger.committed_ids() == set(range(NUM_SHARDS))
    assert stage.ledger.totals().num_shards == NUM_SHARDS
    assert stage.ledger.sweep(("pairs", "rejected")) == 0 == stage.ledger.roll_up()
    found = verify(recipe, repair=True)
    assert found["damaged"] == [] and foreign.exists() and stage.is_complete
    assert len(found["foreign"]) == (name != "pairs/lost+found/x")


def test_shards_of_older_releases_have_no_digests_and_are_opened(recipe: Recipe) -> None:
    stage = open_stage(recipe, "synthesis")
    for shard in range(NUM_SHARDS):
        record = json.loads(marker_file(stage, shard).read_bytes())
        del record["digests"], record["num_bytes"]
        marker_file(stage, shard).write_text(json.dumps(record))
    for file in Path(stage.uri).glob("_rollups/*"):
        file.unlink()
    assert verify(recipe)["damaged"] == []
    swap(stage)  # as many rows: nothing tells them apart
    assert verify(recipe)["damaged"] == []
    truncate(stage)
    with pytest.raises(StorageError, match="1 files"):
        verify(recipe)


def test_a_finished_training_is_not_trained_again_for_its_account(tmp_path: Path) -> None:
    recipe = parse_recipe({"run_dir": str(tmp_path / "run")}, "test")
    stage = open_stage(recipe, "pretraining")
    stage.start()
    stage.ledger.commit(0, 40, {"used": rows(0)["pairs"], "rejected": rows(0)["rejected"]})
    stage.complete({})
    next(Path(stage.uri).glob("used/*/*")).write_bytes(b"PAR1")
    with pytest.raises(StorageError, match="cannot be made anew by themselves"):
        verify(recipe, repair=True)
    assert stage.is_complete


@pytest.mark.parametrize("damage", [truncate, lose, lose_marker])
def test_status_does_not_call_a_stage_complete_that_lacks_something(
    recipe: Recipe, damage: Callable[[Stage], None], capsys: pytest.CaptureFixture[str]
) -> None:
    stage = open_stage(recipe, "synthesis")
    assert stage_status(stage).state == "complete"
    if damage is lose_marker:  # a roll-up has its copy
        (Path(stage.uri) / "_rollups/00001.parquet").unlink()
    damage(stage)
    assert stage_status(stage).state == "damaged"
    print_status(recipe)
    assert "lacks files or parts of files: codepmp verify" in capsys.readouterr().out
