"""Exactly once: whatever races, dies or comes back, every input row ends in one committed row."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codepmp_ray.errors import StorageError
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.storage import LocalStore
from tests.processes import PATIENCE_S

TABLES = ("pairs", "rejected")


class Crash(BaseException):
    """Stands for the death of the process: nothing catches it, nothing after it runs."""


class FaultyStore(LocalStore):
    """Runs `before[i]` before the i-th write (tables first, then the marker)."""

    def __init__(self, root: Path, before: dict[int, object]) -> None:
        super().__init__(root)
        self.before = before
        self.num_writes = 0

    def _act(self) -> None:
        action = self.before.get(self.num_writes)
        self.num_writes += 1
        if callable(action):
            action()

    def put(self, name: str, data: bytes) -> None:
        self._act()
        super().put(name, data)

    def put_exclusive(self, name: str, data: bytes) -> bool:
        self._act()
        return super().put_exclusive(name, data)


def crash() -> None:
    raise Crash


def tables(shard: int, writer: str, num_pairs: int = 2, num_rejected: int = 1) -> dict:
    def rows(kind: str, count: int) -> pa.Table:
        ids = [f"{shard}-{kind}-{i}" for i in range(count)]
        return pa.table({"id": pa.array(ids, pa.string()), "writer": [writer] * count})

    return {"pairs": rows("pair", num_pairs), "rejected": rows("rejected", num_rejected)}


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def committed_files(ledger: ShardLedger) -> set[str]:
    """Markers and what they name."""
    markers = {f"_commits/00000/{shard:08d}.json" for shard in ledger.committed_ids()}
    return markers | {name for commit in ledger.commits() for name in commit.files.values()}


def test_what_was_committed_is_read_in_shard_order(tmp_path: Path) -> None:
    ledger = ShardLedger(LocalStore(tmp_path))
    assert ledger.missing_ids(3) == [0, 1, 2]
    assert ledger.commit(2, 3, tables(2, "a"))
    assert ledger.commit(0, 3, tables(0, "a"))
    assert ledger.committed_ids() == {0, 2}
    assert ledger.missing_ids(3) == [1]
    assert ledger.read("pairs").column("id").to_pylist() == [
        "0-pair-0",
        "0-pair-1",
        "2-pair-0",
        "2-pair-1",
    ]
    assert ledger.read("rejected", ["id"]).to_pydict() == {"id": ["0-rejected-0", "2-rejected-0"]}
    assert [c.num_rows for c in ledger.commits()] == [{"pairs": 2, "rejected": 1}] * 2


def test_shards_of_many_groups_keep_their_order(tmp_path: Path) -> None:
    ledger = ShardLedger(LocalStore(tmp_path))
    for shard in (100_000, 99_999, 9):
        ledger.commit(shard, 3, tables(shard, "a"))
    assert [c.shard_id for c in ledger.commits()] == [9, 99_999, 100_000]
    assert ledger.sweep(TABLES) == 0


def test_an_empty_shard_is_committed_too(tmp_path: Path) -> None:
    ledger = ShardLedger(LocalStore(tmp_path))
    assert ledger.commit(0, 0, tables(0, "a", 0, 0))
    assert ledger.missing_ids(1) == []
    assert ledger.read("pairs").num_rows == 0


@pytest.mark.parametrize("num_input_rows", [0, 2, 4])
def test_a_lost_or_doubled_row_is_refused_before_anything_is_written(
    tmp_path: Path, num_input_rows: int
) -> None:
    ledger = ShardLedger(LocalStore(tmp_path))
    with pytest.raises(StorageError, match=f"Shard 7: {num_input_rows} rows went in, 3 came out"):
        ledger.commit(7, num_input_rows, tables(7, "a"))
    assert files(tmp_path) == set()


def test_racing_threads_commit_once_and_leave_only_the_winners_files(tmp_path: Path) -> None:
    ledger = ShardLedger(LocalStore(tmp_path))
    gate = threading.Barrier(6)
    winners: list[tuple[int, str]] = []

    def write(writer: str) -> None:
        for shard in range(10):
            gate.wait()
            if ledger.commit(shard, 3, tables(shard, writer)):
                winners.append((shard, writer))

    threads = [threading.Thread(target=write, args=(f"w{i}",)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(shard for shard, _ in winners) == list(range(10))
    rows = ledger.read("pairs").to_pylist()
    assert {(int(row["id"].split("-")[0]), row["writer"]) for row in rows} == set(winners)
    assert len(rows) == 20
    assert files(tmp_path) == committed_files(ledger) | {
        f"_commits/00000/{i:08d}.json" for i in range(10)
    }


_PROCESS = """
import sys, time
from pathlib import Path
import pyarrow as pa
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.storage import LocalStore

root, writer = Path(sys.argv[1]), sys.argv[2]
ledger = ShardLedger(LocalStore(root / "stage"))
print("ready", flush=True)
sys.stdin.readline()
for shard in range(15):
    table = pa.table({"id": [f"{shard}-{i}" for i in range(3)], "writer": [writer] * 3})
    if ledger.commit(shard, 3, {"pairs": table}):
        print(shard, flush=True)
"""


def test_racing_processes_commit_once(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _PROCESS, str(tmp_path), f"w{i}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(3)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    won = [writer.communicate("go\n", timeout=PATIENCE_S)[0].split() for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert sorted(int(shard) for shards in won for shard in shards) == list(range(15))
    ledger = ShardLedger(LocalStore(tmp_path / "stage"))
    rows = ledger.read("pairs").to_pylist()
    assert [row["id"] for row in rows] == [f"{s}-{i}" for s in range(15) for i in range(3)]
    expected = {(int(shard), f"w{i}") for i, shards in enumerate(won) for shard in shards}
    assert {(int(row["id"].split("-")[0]), row["writer"]) for row in rows} == expected


def test_a_writer_that_was_thought_dead_changes_nothing(tmp_path: Path) -> None:
    """The zombie has written its tables when a second attempt commits and the stage is swept."""
    ledger = ShardLedger(LocalStore(tmp_path))

    def second_attempt() -> None:
        assert ledger.commit(0, 3, tables(0, "second"))
        before = files(tmp_path)
        assert ledger.sweep(TABLES) == len(TABLES)
        assert files(tmp_path) < before

    zombie = ShardLedger(FaultyStore(tmp_path, {2: second_attempt}))
    assert zombie.commit(0, 3, tables(0, "zombie")) is False
    after_second = files(tmp_path)
    assert set(ledger.read("pairs").column("writer").to_pylist()) == {"second"}
    assert after_second == committed_files(ledger)


def test_a_crash_between_data_and_marker_is_resumed(tmp_path: Path) -> None:
    with pytest.raises(Crash):
        ShardLedger(FaultyStore(tmp_path, {2: crash})).commit(0, 3, tables(0, "dead"))
    ledger = ShardLedger(LocalStore(tmp_path))
    assert len(files(tmp_path)) == 2
    assert ledger.missing_ids(1) == [0]
    assert ledger.read("pairs").num_rows == 0
    assert ledger.commit(0, 3, tables(0, "new"))
    assert set(ledger.read("pairs").column("writer").to_pylist()) == {"new"}
    assert ledger.sweep(TABLES) == 2
    assert files(tmp_path) == committed_files(ledger)


def test_the_files_of_a_writer_that_may_yet_win_are_not_swept(tmp_path: Path) -> None:
    other = ShardLedger(LocalStore(tmp_path))
    other.commit(1, 3, tables(1, "other"))

    def sweep() -> None:
        assert other.sweep(TABLES) == 0

    live = ShardLedger(FaultyStore(tmp_path, {1: sweep, 2: sweep}))
    assert live.commit(0, 3, tables(0, "live")) is True
    assert other.read("pairs").num_rows == 4


def test_a_killed_process_leaves_a_shard_that_can_be_made_again(tmp_path: Path) -> None:
    """SIGKILL between the write of the marker's bytes and their appearance at the final name."""
    script = """
import os, signal, sys
import pyarrow as pa
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.storage import LocalStore
os.link = lambda *names: os.kill(os.getpid(), signal.SIGKILL)
ShardLedger(LocalStore(sys.argv[1])).commit(0, 1, {"pairs": pa.table({"id": ["dead"]})})
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    ledger = ShardLedger(LocalStore(tmp_path))
    assert ledger.committed_ids() == set()
    assert ledger.commit(0, 1, {"pairs": pa.table({"id": ["new"]})})
    assert ledger.read("pairs").to_pydict() == {"id": ["new"]}


def test_a_damaged_marker_is_named_with_the_way_out(tmp_path: Path) -> None:
    ledger = ShardLedger(LocalStore(tmp_path))
    ledger.commit(0, 3, tables(0, "a"))
    ledger.commit(1, 3, tables(1, "a"))
    (tmp_path / "_commits/00000/00000001.json").write_bytes(b'{"shard_id": 1')
    with pytest.raises(StorageError, match=r"00000001\.json.*run the stage again"):
        ledger.read("pairs")
    os.remove(tmp_path / "_commits/00000/00000001.json")
    assert ledger.missing_ids(2) == [1]


def test_markers_are_plain_json_that_other_tools_can_read(tmp_path: Path) -> None:
    ledger = ShardLedger(LocalStore(tmp_path))
    ledger.commit(3, 3, tables(3, "a"))
    marker = json.loads((tmp_path / "_commits/00000/00000003.json").read_text())
    assert marker["shard_id"] == 3
    assert marker["num_input_rows"] == 3
    assert marker["num_rows"] == {"pairs": 2, "rejected": 1}
    assert all((tmp_path / name).is_file() for name in marker["files"].values())


# Attempts at shards 0 to 2, each dying before its n-th write (2 is the marker's) or not at all.
_ATTEMPTS = st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0, 1, 2, None])), max_size=12)


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(attempts=_ATTEMPTS, num_pairs=st.integers(0, 3), num_rejected=st.integers(0, 3))
def test_any_history_of_crashes_ends_in_every_row_once(
    tmp_path_factory: pytest.TempPathFactory,
    attempts: list[tuple[int, int | None]],
    num_pairs: int,
    num_rejected: int,
) -> None:
    root = tmp_path_factory.mktemp("history")
    num_rows = num_pairs + num_rejected
    first_winner: dict[int, str] = {}
    for number, (shard, dies_before) in enumerate(attempts):
        faults = {} if dies_before is None else {dies_before: crash}
        writer = f"w{number}"
        made = tables(shard, writer, num_pairs, num_rejected)
        try:
            won = ShardLedger(FaultyStore(root, faults)).commit(shard, num_rows, made)
        except Crash:
            continue
        assert won == (shard not in first_winner)
        first_winner.setdefault(shard, writer)

    ledger = ShardLedger(LocalStore(root))
    assert ledger.missing_ids(3) == [s for s in range(3) if s not in first_winner]
    for shard in ledger.missing_ids(3):
        first_winner[shard] = "resumed"
        assert ledger.commit(shard, num_rows, tables(shard, "resumed", num_pairs, num_rejected))
    ledger.sweep(TABLES)

    for table, count in (("pairs", num_pairs), ("rejected", num_rejected)):
        rows = ledger.read(table).to_pylist()
        kind = table.removesuffix("s")
        assert rows == [
            {"id": f"{shard}-{kind}-{i}", "writer": first_winner[shard]}
            for shard in range(3)
            for i in range(count)
        ]
    assert files(root) == committed_files(ledger)


def test_roll_ups_say_what_the_markers_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codepmp_ray.ledger.GROUP_SIZE", 4)
    ledger = ShardLedger(LocalStore(tmp_path))
    for shard in (0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11):  # the groups 0 and 2 are whole
        ledger.commit(shard, 3, tables(shard, "a"), {"rejected_by_reason.empty": shard})
    commits, totals = list(ledger.commits()), ledger.totals()
    assert ledger.roll_up() == 2 and ledger.roll_up() == 0
    assert sorted(ledger.store.list("_rollups")) == ["00000.parquet", "00002.parquet"]
    # Markers are not opened any more; they stay, because one that is gone could be made again.
    for shard in (0, 1, 2, 3):
        (tmp_path / f"_commits/00000/{shard:08d}.json").write_bytes(b"not read")
    assert list(ledger.commits()) == commits and ledger.totals() == totals
    assert totals.num_shards == 11 and totals.stats["rejected_by_reason.empty"] == 62
    assert totals.num_rows == {"pairs": 22, "rejected": 11}
    assert ledger.missing_ids(13) == [4, 12]
    assert ledger.committed_ids() == {0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11}
    assert not ShardLedger(LocalStore(tmp_path)).store.put_exclusive(
        "_commits/00000/00000002.json", b"a late writer"
    )


def test_a_replaced_shard_is_not_hidden_by_its_roll_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codepmp_ray.ledger.GROUP_SIZE", 2)
    ledger = ShardLedger(LocalStore(tmp_path))
    for shard in range(4):
        ledger.commit(shard, 3, tables(shard, "a"))
    assert ledger.roll_up() == 2
    old = list(ledger.commits())[1]
    with pytest.raises(StorageError, match="3 rows went in, 2 came out"):
        ledger.replace(old, tables(1, "b", 1, 1))
    ledger.replace(old, tables(1, "b", 0, 3))
    for _ in range(2):  # without its roll-up, and with a new one
        assert ledger.totals().num_rows == {"pairs": 6, "rejected": 6}
        assert ledger.read("rejected").column("writer").to_pylist() == list("abbbaa")
        ledger.roll_up()
    assert not any((tmp_path / name).exists() for name in old.files.values())
