"""Replay rounds: what is taken up, and folding in exactly once wherever it is killed."""

from pathlib import Path
from typing import Any

import pytest

from codepmp_ray.config.recipe import parse_recipe
from codepmp_ray.errors import ConfigError, StorageError
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.records import PAIR, REJECTED, SNIPPET, table_from_rows
from codepmp_ray.runs import Stage, open_stage
from codepmp_ray.storage import LocalStore
from codepmp_ray.synthesis.purge import PurgeRequest, purge
from codepmp_ray.synthesis.replay import (
    check_reasons,
    finish_round,
    fold_in,
    open_round,
    rows_to_replay,
    unfinished_round,
)
from tests.unit.synthesis.kills import killed_at

REASONS = ("engine_error",)
# Per shard: what each snippet is before the replay.
BEFORE = {0: ["pair", "engine_error", "chosen_cut_off", "engine_error"], 1: ["pair"], 2: []}
# Files of a round that changes one shard: two tables and a marker written, two files deleted.
NUM_WRITES = 5


def rows_of(shard: int, states: list[str], text: str) -> dict[str, Any]:
    pairs, rejected = [], []
    for i, state in enumerate(states):
        if state == "pair":
            pairs.append({"snippet_id": f"{shard}-{i}", "chosen": text})
        elif state:
            rejected.append({"row_id": f"{shard}-{i}", "reason": state, "detail": text})
    return {"pairs": table_from_rows(pairs, PAIR), "rejected": table_from_rows(rejected, REJECTED)}


def make_stage(tmp_path: Path) -> Stage:
    stage = open_stage(parse_recipe({"run_dir": str(tmp_path / "run")}, "test"), "synthesis")
    stage.start()
    for shard, states in BEFORE.items():
        stage.ledger.commit(shard, len(states), rows_of(shard, states, "before"))
    stage.complete({"num_pairs": 2})
    return stage


def replayed(stage: Stage) -> LocalStore:
    """A round whose work is done: one row became a pair, the other failed otherwise."""
    store = open_round(stage, REASONS)
    ledger = ShardLedger(store)
    ledger.commit(0, 2, rows_of(0, ["", "pair", "", "chosen_empty"], "again"))
    for shard in (1, 2):
        ledger.commit(shard, 0, rows_of(shard, [], ""))
    return store


def states(stage: Stage) -> dict[str, str]:
    pairs = stage.ledger.read("pairs").to_pylist()
    found = {row["snippet_id"]: f"pair {row['chosen']}" for row in pairs}
    for row in stage.ledger.read("rejected").to_pylist():
        assert row["row_id"] not in found
        found[row["row_id"]] = f"{row['reason']} {row['detail']}"
    return found


AFTER = {
    "0-0": "pair before",
    "0-1": "pair again",
    "0-2": "chosen_cut_off before",
    "0-3": "chosen_empty again",
    "1-0": "pair before",
}


def test_only_rows_of_the_reasons_are_taken_up(tmp_path: Path) -> None:
    stage = make_stage(tmp_path)
    corpus = ShardLedger(LocalStore(tmp_path / "corpus"))
    for shard, snippets in BEFORE.items():
        rows = [{"snippet_id": f"{shard}-{i}", "code": "x"} for i in range(len(snippets))]
        tables = {"snippets": table_from_rows(rows, SNIPPET)}
        corpus.commit(shard, len(rows), tables)
    taken = [rows_to_replay(corpus, stage.ledger, REASONS, shard) for shard in BEFORE]
    assert [t.column("snippet_id").to_pylist() for t in taken] == [["0-1", "0-3"], [], []]


def test_replayed_rows_take_the_place_of_the_rejected_ones(tmp_path: Path) -> None:
    stage = make_stage(tmp_path)
    untouched = list(stage.ledger.commits())[1:]
    store = replayed(stage)
    record = fold_in(stage, store)
    assert states(stage) == AFTER and list(stage.ledger.commits())[1:] == untouched
    assert record == {"num_rows": 2, "num_pairs": 1, "rejected_by_reason": {"chosen_empty": 1}}
    assert fold_in(stage, store) == record and states(stage) == AFTER
    finish_round(store, record)
    assert unfinished_round(stage) is None and store.list("pairs") == []
    store.put("pairs/00000.left.parquet", b"of a process that died before it was deleted")
    assert open_round(stage, ("chosen_empty",)).root.name == "0001"
    assert store.list("pairs") == []


@pytest.mark.parametrize("step", range(1, NUM_WRITES + 1))
def test_killed_while_folding_the_same_command_finishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    stage = make_stage(tmp_path)
    store = replayed(stage)
    with killed_at(monkeypatch, step, ("put", "delete")):
        fold_in(stage, store)
    assert open_round(stage, REASONS).root == store.root
    fold_in(stage, store)
    assert states(stage) == AFTER
    named = [file for commit in stage.ledger.commits() for file in commit.files.values()]
    folders = [f"{name}/00000" for name in ("pairs", "rejected")]
    files = [f"{name}/{f}" for name in folders for f in stage.store.list(name)]
    assert sorted(files) == sorted(named)


def test_an_unfinished_round_comes_first(tmp_path: Path) -> None:
    stage = make_stage(tmp_path)
    replayed(stage)
    with pytest.raises(ConfigError, match="replay of engine_error is not finished"):
        open_round(stage, ("chosen_empty",))
    with pytest.raises(StorageError, match="would come back after the purge"):
        purge(stage, PurgeRequest(repos=frozenset({"r"})))


@pytest.mark.parametrize("reasons", [(), ("purged",), ("engine_eror",)])
def test_reasons_that_cannot_be_replayed_are_refused(reasons: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError):
        check_reasons(reasons)
