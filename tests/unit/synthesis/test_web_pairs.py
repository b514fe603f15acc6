"""Threads with scored answers -> pairs: choice, typed rejects, files of every kind."""

import json
import os
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codepmp_ray.config.corpus import DecontaminationConfig
from codepmp_ray.config.synthesis import SynthesisConfig, ThreadsConfig
from codepmp_ray.errors import InputError
from codepmp_ray.io.parquet_rows import UnreadableRow
from codepmp_ray.io.shards import Piece
from codepmp_ray.records import table_from_rows
from codepmp_ray.reject_reasons import RejectReason
from codepmp_ray.storage import LocalStore
from codepmp_ray.synthesis.gates import Rejection
from codepmp_ray.synthesis.web.files import read_piece, stored_plan
from codepmp_ray.synthesis.web.pairs import (
    THREAD,
    Answer,
    choose_sides,
    parse_thread,
    read_threads,
    split_threads,
)

THREADS = ThreadsConfig(path="x.jsonl", site="stackoverflow.com", license="CC-BY-SA-4.0")
CONFIG = SynthesisConfig(construction="web_pairs", threads=THREADS)
PIECE = Piece("/data/x.jsonl", "x.jsonl", 1, 1, 0, 1)
GOOD = {
    "qid": 7,
    "question": "How do I sort?",
    "answers": [{"text": "Call sorted() on it.", "pm_score": 5}, {"text": "Dunno", "pm_score": 0}],
}


def outcome(raw: Any, config: SynthesisConfig = CONFIG) -> tuple[str, dict[str, Any]]:
    row = parse_thread(raw, PIECE, 0, config.threads)
    tables = split_threads(table_from_rows([row], THREAD).to_pylist(), config)
    (name,) = [name for name, table in tables.items() if table.num_rows]
    return name, tables[name].to_pylist()[0]


def test_a_thread_becomes_a_pair_in_trl_format() -> None:
    table, pair = outcome(GOOD)
    assert table == "pairs"
    assert (pair["prompt"], pair["chosen"], pair["rejected"]) == (
        "How do I sort?",
        "Call sorted() on it.",
        "Dunno",
    )
    assert (pair["repo"], pair["license"], pair["path"]) == (
        "stackoverflow.com",
        "CC-BY-SA-4.0",
        "x.jsonl#0",
    )
    assert pair["strong_model"] is None and pair["chosen_num_tokens"] is None


def answers(*scores: object, text: str = "text number {}") -> list[dict[str, object]]:
    return [
        {"text": text.replace("{}", str(i)), "pm_score": score} for i, score in enumerate(scores)
    ]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (UnreadableRow("no JSON"), "unreadable"),
        ({**GOOD, "question": None}, "unreadable"),
        ({**GOOD, "question": "half \ud800"}, "unreadable"),
        ({**GOOD, "question": " \n"}, "prompt_empty"),
        ({**GOOD, "answers": "x"}, "unreadable"),
        ({**GOOD, "answers": answers(3)}, "too_few_answers"),
        (
            {**GOOD, "answers": answers(3, "4", None, float("nan"), 10**400, True)},
            "too_few_answers",
        ),
        ({**GOOD, "answers": answers(3, 3)}, "score_gap_too_small"),
        ({**GOOD, "answers": answers(3, 2.5)}, "score_gap_too_small"),
        ({**GOOD, "answers": answers(3, 2, text="equal")}, "sides_equal"),
        ({**GOOD, "answers": answers(3, 2, text="NUL \0 {}")}, "chosen_not_text"),
        ({**GOOD, "answers": answers(3, 2, text="again and " * 500 + "{}")}, "chosen_repetitive"),
        (
            {**GOOD, "answers": [{"text": "a" * 9, "pm_score": 2}, {"text": "b", "pm_score": 1}]},
            "length_ratio",
        ),
    ],
)
def test_what_is_no_pair_has_a_reason(raw: Any, reason: str) -> None:
    table, row = outcome(raw)
    assert (table, row["reason"]) == ("rejected", reason) and row["path"] == "x.jsonl#0"


def test_columns_can_be_named_and_scores_lie_beside() -> None:
    threads = ThreadsConfig(
        path="x", question_column="history", answers_column="refs", scores_column="scores"
    )
    config = SynthesisConfig(construction="web_pairs", threads=threads)
    raw = {"history": "Q", "refs": ["worse text", "better text"], "scores": [1, 4]}
    assert outcome(raw, config)[1]["chosen"] == "better text"


@given(
    st.lists(st.tuples(st.text(min_size=1), st.integers(-5, 5)), max_size=6),
    st.integers(1, 4),
    st.randoms(use_true_random=False),
)
def test_sides_depend_on_the_set_of_answers_only(pairs, gap, random) -> None:
    listed = [Answer(text, score) for text, score in pairs]
    shuffled = random.sample(listed, len(listed))
    chosen = choose_sides(listed, "t", gap)
    again = choose_sides(shuffled, "t", gap)
    if isinstance(chosen, Rejection):
        assert chosen == again
        return
    assert not isinstance(again, Rejection) and chosen == again
    assert chosen[0].score == max(answer.score for answer in listed)
    assert chosen[0].score - chosen[1].score >= gap


KEYS = st.sampled_from(["question", "answers", "text", "pm_score", "qid"])
TEXTS = st.text(st.characters(exclude_categories=()))
JSON = st.recursive(
    st.none() | st.floats() | TEXTS | st.integers(),
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner),
)


@given(JSON)
def test_any_json_object_is_a_pair_or_a_typed_reject(value: Any) -> None:
    raw = value if isinstance(value, dict) else {"question": "Q", "answers": value}
    table, row = outcome(raw)
    assert table == "pairs" or RejectReason(row["reason"])


def write_jsonl(file: Path, *lines: str) -> None:
    file.write_text("\n".join(lines), encoding="utf-8")


def test_every_row_of_every_file_is_read_once_whatever_its_kind(tmp_path: Path) -> None:
    write_jsonl(
        tmp_path / "a.jsonl", *[json.dumps({**GOOD, "qid": i}) for i in range(5)], "{", "[]"
    )
    pq.write_table(
        pa.Table.from_pylist([{**GOOD, "qid": i} for i in range(7)]),
        tmp_path / "b.parquet",
        row_group_size=4,
    )
    (tmp_path / "c.parquet").write_bytes(b"PAR1 no")
    threads = ThreadsConfig(path=str(tmp_path), rows_per_shard=3)
    store = LocalStore(tmp_path / "stage")
    pieces = stored_plan(store, threads)
    assert stored_plan(store, threads) == pieces
    rows = [row for i in range(len(pieces)) for row in read_threads(pieces, threads, i).to_pylist()]
    assert len({row["thread_id"] for row in rows}) == len(rows) == 5 + 2 + 7 + 1
    assert sum(row["problem"] is None for row in rows) == 5 + 7
    assert max(piece.stop - piece.first for piece in pieces) == 3
    (tmp_path / "a.jsonl").write_text("changed")
    with pytest.raises(InputError, match=r"a\.jsonl changed"):
        stored_plan(store, threads)


def test_damage_in_the_middle_loses_no_row(tmp_path: Path) -> None:
    file = tmp_path / "b.parquet"
    pq.write_table(pa.Table.from_pylist([GOOD] * 50), file, compression="none")
    threads = ThreadsConfig(path=str(file))
    (piece,) = stored_plan(LocalStore(tmp_path / "stage"), threads)
    data = bytearray(file.read_bytes())
    data[4:60] = b"\xff" * 56
    file.write_bytes(bytes(data))
    assert [index for index, _ in read_piece(piece, threads)] == list(range(50))


def test_sources_without_threads_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        stored_plan(LocalStore(tmp_path), ThreadsConfig(path=str(tmp_path / "none")))
    with pytest.raises(InputError, match="holds no file of JSON lines"):
        stored_plan(LocalStore(tmp_path), ThreadsConfig(path=str(tmp_path)))
    pq.write_table(pa.table({"q": ["x"]}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match="no column answers, question"):
        stored_plan(LocalStore(tmp_path), ThreadsConfig(path=str(tmp_path)))


def read_all(path: Path, tmp_path: Path, **threads: Any) -> list[dict[str, Any]]:
    config = ThreadsConfig(path=str(path), **threads)
    pieces = stored_plan(LocalStore(tmp_path / "stage"), config)
    return [row for i in range(len(pieces)) for row in read_threads(pieces, config, i).to_pylist()]


def test_a_cell_that_python_cannot_hold_costs_its_row_only(tmp_path: Path) -> None:
    bad_utf8 = pa.array([b"Q", b"\xff", b"Q", b"Q"])
    questions = pa.Array.from_buffers(pa.string(), 4, bad_utf8.buffers())
    dates = pa.array([1, 1, 2**30, 1], pa.date32())
    answers = pa.array([GOOD["answers"]] * 4)
    table = pa.table({"question": questions, "answers": answers, "qid": dates})
    pq.write_table(table, tmp_path / "x.parquet")
    rows = read_all(tmp_path / "x.parquet", tmp_path)
    assert [row["problem"] is None for row in rows] == [True, False, False, True]
    assert "'question'" in rows[1]["problem"] and "'qid'" in rows[2]["problem"]


def test_rows_that_are_gone_since_the_plan_are_accounted_for(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    write_jsonl(file, *[json.dumps(GOOD)] * 5)
    threads = ThreadsConfig(path=str(file))
    pieces = stored_plan(LocalStore(tmp_path / "stage"), threads)
    write_jsonl(file, *[json.dumps(GOOD)] * 3)
    problems = [row["problem"] for row in read_threads(pieces, threads, 0).to_pylist()]
    assert problems == [None] * 3 + ["the file has fewer rows than when it was listed"] * 2


def test_pipes_folders_and_ambiguous_columns_are_one_bad_row_each(tmp_path: Path) -> None:
    root = tmp_path / "threads"
    (root / "spark.parquet").mkdir(parents=True)
    write_jsonl(root / "spark.parquet" / "part.jsonl", json.dumps(GOOD))
    os.mkfifo(root / "pipe.jsonl")
    os.mkfifo(root / "pipe.parquet")
    (root / "zero.jsonl").symlink_to("/dev/zero")
    (root / "gone.parquet").symlink_to(root / "nowhere")
    columns = [pa.array(["Q"]), pa.array(["Q"]), pa.array([GOOD["answers"]])]
    twice = pa.Table.from_arrays(columns, ["question", "question", "answers"])
    pq.write_table(twice, root / "twice.parquet")
    problems = {row["place"]: row["problem"] for row in read_all(root, tmp_path)}
    assert problems == {
        "spark.parquet/part.jsonl#0": None,
        "pipe.jsonl#0": "not a plain file",
        "pipe.parquet#0": "not a plain file",
        "zero.jsonl#0": "not a plain file",
        "gone.parquet#0": "cannot be read (No such file or directory)",
        "twice.parquet#0": "more than one column 'question'",
    }


def test_threads_at_a_uri_are_planned_once_and_must_not_change(
    s3_bucket: str, tmp_path: Path
) -> None:
    fs = fsspec.filesystem("s3")
    lines = [json.dumps({**GOOD, "qid": i}) for i in range(3)]
    fs.pipe_file(f"{s3_bucket}/threads/a.jsonl", "\n".join(lines).encode())
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([GOOD]), sink)
    fs.pipe_file(f"{s3_bucket}/threads/b.parquet", sink.getvalue().to_pybytes())
    threads = ThreadsConfig(path=f"{s3_bucket}/threads", rows_per_shard=2)
    store = LocalStore(tmp_path)
    pieces = stored_plan(store, threads)
    rows = [row for piece in pieces for _, row in read_piece(piece, threads)]
    assert not [str(row) for row in rows if not isinstance(row, dict)]
    assert [row["qid"] for row in rows] == [0, 1, 2, 7]
    assert stored_plan(store, threads) == pieces
    fs.pipe_file(f"{s3_bucket}/threads/a.jsonl", b"")
    with pytest.raises(InputError, match=r"a\.jsonl changed"):
        stored_plan(store, threads)


@pytest.mark.parametrize("side", ["description", "chosen", "rejected"])
def test_questions_and_answers_are_held_against_evaluation_sets(side: str) -> None:
    leak = "def truncate_number(number): return number % 1.0"
    good = GOOD["answers"]
    raw = {
        "description": {**GOOD, "question": f"What does {leak} do?"},
        "chosen": {**GOOD, "answers": [{"text": leak, "pm_score": 9}, *good]},
        "rejected": {**GOOD, "answers": [good[0], {"text": leak, "pm_score": 0}]},
    }[side]
    row = table_from_rows([parse_thread(raw, PIECE, 0, THREADS)], THREAD).to_pylist()
    tables = split_threads(row, CONFIG, DecontaminationConfig())
    (rejected,) = tables["rejected"].to_pylist()
    assert rejected["reason"] == "contaminated"
    assert rejected["detail"] == f"humaneval: {side}: a function called truncate_number"
