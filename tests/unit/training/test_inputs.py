"""Sets that a recipe names become input shards, or a message before anything starts."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codepmp_ray.config.recipe import parse_recipe
from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.finetuning_pairs import FINETUNING_PAIR
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.runs import stage_fingerprints
from codepmp_ray.storage import LocalStore
from codepmp_ray.training import inputs
from codepmp_ray.training.inputs import (
    file_inputs,
    ledger_inputs,
    prepare_evaluation_sets,
    prepare_sources,
)

Row = dict[str, Any]
ROWS = [{"prompt": f"p{i}", "chosen": f"a{i}", "rejected": f"b{i}"} for i in range(5)]


def prepare(out_dir: Path, *sources: Row, **settings: Any) -> tuple[inputs.InputShard, ...]:
    config = TrainingConfig.model_validate({"data": sources, **settings})
    return prepare_sources(LocalStore(out_dir), config)


def read(shards: tuple[inputs.InputShard, ...]) -> list[Row]:
    return [row for shard in shards for row in shard.read()]


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def zst(path: Path, data: bytes) -> None:
    with pa.output_stream(str(path), compression="zstd") as stream:
        stream.write(data)


def test_evaluation_sets_are_read_as_training_sets_are_and_their_content_is_fingerprinted(
    tmp_path: Path,
) -> None:
    train = write_lines(tmp_path / "train.jsonl", ROWS)
    hard = write_lines(tmp_path / "hard.jsonl", [*ROWS[:2], {"prompt": 3}])
    data = {
        "data": [{"path": str(train)}],
        "eval_data": [{"name": "hard", "path": f"file://{hard}"}],
    }
    config = TrainingConfig.model_validate(data)
    store = LocalStore(tmp_path / "stage")
    (own,) = prepare_sources(store, config)
    (shard,) = prepare_evaluation_sets(store, config)
    assert (own.is_evaluation, shard.is_evaluation, shard.source) == (False, True, "hard")
    reasons = [row["reason"] for row in read((shard,))]
    assert reasons[:2] == [None, None] and reasons[2]

    def fingerprint() -> str:
        return stage_fingerprints(parse_recipe({"finetuning": data}, "test"))["finetuning"]

    before = fingerprint()
    write_lines(hard, ROWS[1:3])
    assert fingerprint() != before
    without = {"finetuning": {**data, "eval_data": []}}
    none = {"finetuning": {"data": data["data"]}}
    assert (
        len({stage_fingerprints(parse_recipe(d, "t"))["finetuning"] for d in (none, without)}) == 1
    )
    empty = write_lines(tmp_path / "empty.jsonl", [{"prompt": 3}])
    sets = {"eval_data": [{"name": "empty", "path": str(empty)}]}
    with pytest.raises(InputError, match="'empty'"):
        prepare_evaluation_sets(store, TrainingConfig.model_validate(sets))


def test_every_form_of_file_gives_the_same_pairs(tmp_path: Path) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.jsonl").write_bytes(lines)
    (data / "b.txt").write_bytes(lines.replace(b"\n", b"\r\n\r\n"))
    (data / "c.jsonl.gz").write_bytes(gzip.compress(lines))
    zst(data / "d.jsonl.zst", lines)
    (data / "e.json").write_text(json.dumps(ROWS, indent=1))
    pq.write_table(pa.Table.from_pylist(ROWS), data / "f.parquet")
    found = [
        read(prepare(tmp_path / file.name, {"path": str(file)})) for file in sorted(data.iterdir())
    ]
    assert [row["prompt"] for row in found[0]] == ["p0", "p1", "p2", "p3", "p4"]
    assert all(rows == found[0] for rows in found[1:]) and len(found) == 6
    # A folder is its files in order; .txt may be anything and is read only when it is named.
    assert len(read(prepare(tmp_path / "folder", {"path": str(data)}))) == 25


def test_broken_lines_are_rejects_and_broken_files_errors(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "a.jsonl", [ROWS[0], [1], ROWS[1]])
    file.write_bytes(file.read_bytes() + b'{"half": \n\xff\xfe\n')
    rows = read(prepare(tmp_path / "out", {"path": str(file), "name": "mine"}))
    assert [(row["pair_id"], row["reason"]) for row in rows if row["reason"]] == [
        ("mine#1", "unreadable"),
        ("mine#3", "unreadable"),
        ("mine#4", "unreadable"),
    ]
    assert len(rows) == 5
    damaged = {
        "a.parquet": b"PAR1 no",
        "b.jsonl.zst": b"no zstd",
        "c.jsonl.gz": gzip.compress(b"x" * 999)[:20],
        "d.json": b'[{"prompt": ',
    }
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=rf"'preference': .*{name} cannot be read"):
            prepare(tmp_path / f"out {name}", {"path": str(tmp_path / name)})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (None, "does not exist"),
        ([], "gives no pair: 0 rows were rejected"),
        (
            [{"question": "q", "chosen": "c"}],
            "needs the columns chosen, rejected; it has chosen, q",
        ),
        ([{**ROWS[0], "chosen": 7}], r"gives no pair: 1 rows .*not_text.*row 0: chosen is int"),
    ],
)
def test_a_set_that_gives_nothing_is_refused_with_what_was_found(
    tmp_path: Path, rows: list[Row] | None, message: str
) -> None:
    file = tmp_path / "a.jsonl"
    if rows is not None:
        write_lines(file, rows)
    with pytest.raises(InputError, match=message):
        prepare(tmp_path / "out", {"path": str(file)})


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/readme.txt").write_text("nothing")
    with pytest.raises(InputError, match=r"holds no file of JSON lines.*it holds readme\.txt"):
        prepare(tmp_path / "out", {"path": str(tmp_path / "data")})


def test_conversations_under_a_plain_template_are_refused_before_the_start(tmp_path: Path) -> None:
    head = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:"
    file = write_lines(tmp_path / "a.jsonl", [{"chosen": f"{head} x", "rejected": f"{head} y"}])
    source = {"kind": "hh_rlhf", "path": str(file)}
    (row,) = read(prepare(tmp_path / "chat", source))
    assert [message["content"] for message in row["messages"]] == ["a", "b", "c"]
    with pytest.raises(InputError, match=r"1 of 1 pairs .* template=plain cannot show"):
        prepare(tmp_path / "plain", source, template="plain")


def test_sets_are_built_once_in_parts_and_up_to_their_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "ROWS_PER_SHARD", 2)
    file = write_lines(tmp_path / "a.jsonl", [*ROWS[:3], {**ROWS[3], "margin": math.nan}, ROWS[4]])
    shards = prepare(tmp_path / "out", {"path": str(file), "max_rows": 4})
    rows = read(shards)
    assert len(shards) == 2 and len({shard.digest for shard in shards}) == 2
    # Whether a margin is finite is for the encoder to say.
    assert [row["chosen"] for row in rows] == ["a0", "a1", "a2", "a3"]
    assert {row["reason"] for row in rows} == {None}
    file.unlink()
    again = prepare(tmp_path / "out", {"path": str(file), "max_rows": 4})
    assert read(again)[:3] == rows[:3] and [s.digest for s in again] == [s.digest for s in shards]


def test_hub_sets_are_asked_for_by_id_subset_and_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    def load_dataset(*args: Any, **options: Any) -> list[Row]:
        calls.append((args, options))
        if options["split"] == "none":
            raise ValueError("no such split")
        return [
            {"chosen": "\n\nHuman: a\n\nAssistant: x", "rejected": "\n\nHuman: a\n\nAssistant: y"}
        ]

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    source = {"kind": "hh_rlhf", "subset": "harmless-base", "revision": "abc"}
    (row,) = read(prepare(tmp_path / "out", source))
    assert (row["prompt"], row["chosen"], row["rejected"]) == ("a", "x", "y")
    options = {"split": "train", "revision": "abc", "data_dir": "harmless-base"}
    assert calls == [(("Anthropic/hh-rlhf",), options)]
    with pytest.raises(InputError, match=r"a/b \(split none\) cannot be loaded: no such split"):
        prepare(tmp_path / "other", {"hub_id": "a/b", "split": "none", "subset": "s"})
    assert calls[1][1]["name"] == "s"


def test_the_pairs_of_graded_answers_are_one_shard(tmp_path: Path) -> None:
    row = dict.fromkeys(FINETUNING_PAIR.names, "x") | {"problem_id": "HumanEval/1"}
    store = LocalStore(tmp_path)
    store.put_table("pairs.parquet", pa.Table.from_pylist([row], FINETUNING_PAIR))
    (shard,) = file_inputs(str(tmp_path), "pairs.parquet")
    (found,) = shard.read()
    assert (found["problem_id"], found["prompt"]) == ("HumanEval/1", "x")
    store.put_table("pairs.parquet", pa.Table.from_pylist([row, row], FINETUNING_PAIR))
    assert file_inputs(str(tmp_path), "pairs.parquet")[0].digest != shard.digest


def test_shards_of_a_stage_are_taken_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "ROWS_PER_SHARD", 4)
    ledger = ShardLedger(LocalStore(tmp_path))
    for number, num_rows in enumerate([2, 2, 0, 1, 5]):
        rows = [{**ROWS[0], "pair_id": f"{number}-{i}", "language": "x"} for i in range(num_rows)]
        ledger.commit(number, num_rows, {"pairs": pa.Table.from_pylist(rows, PAIRS)})
    shards = ledger_inputs(str(tmp_path), "pairs")
    ids = [[row["pair_id"] for row in shard.read()] for shard in shards]
    assert ids == [["0-0", "0-1", "1-0", "1-1"], ["3-0", "4-0", "4-1", "4-2", "4-3", "4-4"]]
    commit = next(ledger.commits())
    ledger.replace(commit, {"pairs": pa.Table.from_pylist([ROWS[0], ROWS[1]], PAIRS)})
    after = ledger_inputs(str(tmp_path), "pairs")
    assert after[0].digest != shards[0].digest and after[1].digest == shards[1].digest


PAIRS = pa.schema(
    [(name, pa.string()) for name in ("pair_id", "prompt", "chosen", "rejected", "language")]
)
