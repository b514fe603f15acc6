"""Rows of prompts and candidates: what is read of them, and a typed reason for what cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codepmp_ray.config.evaluation import BatchScoringConfig
from codepmp_ray.errors import InputError
from codepmp_ray.io.parquet_rows import UnreadableRow
from codepmp_ray.io.shards import Piece, stored_plan
from codepmp_ray.preference.tokenization import Encoder, PromptTemplate
from codepmp_ray.records import table_from_rows
from codepmp_ray.reject_reasons import RejectReason
from codepmp_ray.scoring.batch_rows import (
    IN_FLIGHT,
    parse_row,
    plan_row,
    read_rows,
    row_source,
    scored,
    split_rows,
)
from codepmp_ray.scoring.best_of_n import RequestPlan, rank
from codepmp_ray.scoring.protocol import Scores
from codepmp_ray.shard_stats import shard_stats
from codepmp_ray.storage import LocalStore
from tests.tiny_models import tiny_tokenizer

CONFIG = BatchScoringConfig(path="x")
PIECE = Piece("/data/x.jsonl", "x.jsonl", 1, 1, 0, 1)
GOOD = {"id": "q1", "prompt": "Add one.", "candidates": ["x + 1", "x", "x + 1"]}
TALK = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
ENCODER = Encoder(
    tiny_tokenizer(), PromptTemplate.from_tokenizer(tiny_tokenizer(), "chat", append_eos=True)
)


def in_flight(raw: Any, config: BatchScoringConfig = CONFIG) -> dict[str, Any]:
    """The row as an actor gets it."""
    row = parse_row(raw, PIECE, 7, config)
    return table_from_rows([row], IN_FLIGHT).to_pylist()[0]


def outcome(raw: Any, config: BatchScoringConfig = CONFIG) -> tuple[str, dict[str, Any]]:
    """Table and row that `raw` ends in, with rewards by length."""
    row = in_flight(raw, config)
    if not row["reject_reason"]:
        plan = plan_row(row, ENCODER, 128)
        if isinstance(plan, RequestPlan):
            rewards: list[float | None] = [float(len(ids)) for ids in plan.response_ids]
            row = scored(row, rank(plan, Scores(rewards)))
        else:
            row = plan
    tables = split_rows([row])
    (name,) = [name for name, table in tables.items() if table.num_rows]
    return name, tables[name].to_pylist()[0]


def test_a_row_keeps_its_name_and_gets_one_value_per_candidate() -> None:
    table, row = outcome(GOOD)
    assert table == "scores"
    assert row == {
        "row_id": "q1",
        "place": "x.jsonl#7",
        "num_candidates": 3,
        "best_index": 0,
        "best_candidate": "x + 1",
        "scores": [6.0, 2.0, 6.0],  # a token per byte, and EOS
        "ranks": [1, 3, 2],
        "prompt_num_tokens": len(ENCODER.prompt_ids("Add one.")),
        "candidate_num_tokens": [6, 2, 6],
        "truncated": [False, False, False],
        "duplicate_of": [None, None, 0],
    }


PROMPT = "prompt_not_rendered"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (UnreadableRow("no JSON"), "unreadable"),
        ({**GOOD, "candidates": "x"}, "unreadable"),
        ({**GOOD, "candidates": []}, "no_candidates"),
        ({**GOOD, "candidates": None}, "no_candidates"),
        ({"prompt": "p"}, "no_candidates"),
        ({**GOOD, "candidates": ["a", None]}, "not_text"),
        ({**GOOD, "candidates": ["a", 3]}, "not_text"),
        ({**GOOD, "candidates": ["half \ud800"]}, "not_text"),
        ({**GOOD, "prompt": "half \ud800"}, "not_text"),
        ({**GOOD, "prompt": 7}, "not_text"),
        ({**GOOD, "prompt": ""}, "prompt_empty"),
        ({**GOOD, "prompt": None}, "prompt_empty"),
        ({**GOOD, "prompt": []}, "prompt_empty"),
        ({**GOOD, "messages": TALK}, "bad_conversation"),
        ({**GOOD, "prompt": ["a"]}, "bad_conversation"),
        ({**GOOD, "prompt": [{"role": "assistant", "content": "a"}]}, "bad_conversation"),
        ({**GOOD, "prompt": [{"role": "user", "content": None}]}, "bad_conversation"),
        ({**GOOD, "prompt": [{"role": "user", "content": 7}]}, "not_text"),
        ({**GOOD, "prompt": [{"role": "user", "content": "a", "name": "Ann"}]}, PROMPT),
        ({**GOOD, "prompt": "p" * 200}, "over_max_length"),
    ],
)
def test_what_cannot_be_scored_has_a_reason(raw: Any, reason: str) -> None:
    table, row = outcome(raw)
    assert (table, row["reason"]) == ("rejected", reason)
    assert (row["stage"], row["path"]) == ("scoring", "x.jsonl#7") and row["detail"]


def test_messages_that_the_template_refuses_are_told_from_long_ones() -> None:
    plain = Encoder(tiny_tokenizer(), PromptTemplate("plain", "", "", True, None))
    row = plan_row(in_flight({**GOOD, "prompt": TALK}), plain, 128)
    assert not isinstance(row, RequestPlan) and row["reject_reason"] == "prompt_not_rendered"


def test_conversations_come_in_either_column_and_columns_can_be_named() -> None:
    expected = len(ENCODER.prompt_ids(TALK))
    for raw in ({**GOOD, "prompt": TALK}, {**GOOD, "prompt": None, "messages": TALK}):
        assert outcome(raw)[1]["prompt_num_tokens"] == expected
    named = BatchScoringConfig(
        path="x", id_column="n", prompt_column="q", messages_column="q", candidates_column="a"
    )
    assert named.columns() == ["n", "q", "a"]
    row = outcome({"n": 12, "q": "Q", "a": ["x"]}, named)[1]
    assert (row["row_id"], row["best_candidate"]) == ("12", "x")


@pytest.mark.parametrize(("given", "name"), [(None, "x.jsonl#7"), (True, "x.jsonl#7"), (5, "5")])
def test_rows_without_a_name_are_called_after_their_place(given: Any, name: str) -> None:
    assert outcome({**GOOD, "id": given})[1]["row_id"] == name


TEXTS = st.text(st.characters(exclude_categories=()))
JSON = st.recursive(
    st.none() | st.floats() | TEXTS | st.integers(),
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
)
_TURN = st.fixed_dictionaries({"role": TEXTS, "content": JSON})


@pytest.mark.slow
@pytest.mark.slow
@given(JSON, JSON | st.lists(_TURN), JSON | st.lists(TEXTS))
def test_any_row_is_scored_or_rejected_with_a_reason(name: Any, prompt: Any, texts: Any) -> None:
    table, row = outcome({"id": name, "prompt": prompt, "candidates": texts})
    assert table == "scores" or RejectReason(row["reason"])


def test_files_of_both_kinds_become_shards(tmp_path: Path) -> None:
    source = tmp_path / "rows"
    source.mkdir()
    lines = [json.dumps({**GOOD, "id": i}) for i in range(3)]
    (source / "a.jsonl").write_text("\n".join([*lines, "{"]))
    pq.write_table(
        pa.Table.from_pylist([{**GOOD, "id": 10 + i} for i in range(3)]), source / "b.parquet"
    )
    talks = [{"messages": TALK, "candidates": ["a"]}]
    pq.write_table(pa.Table.from_pylist(talks), source / "c.parquet")
    config = BatchScoringConfig(path=str(source), rows_per_shard=2)
    pieces = stored_plan(LocalStore(tmp_path / "stage"), row_source(config))
    tables = [read_rows(pieces, config, i) for i in range(len(pieces))]
    assert [table.num_rows for table in tables] == [2, 2, 2, 1, 1]
    rows = pa.concat_tables(tables).to_pylist()
    assert [row["row_id"] for row in rows if not row["reject_reason"]] == [
        *("0", "1", "2", "10", "11", "12", "c.parquet#0")
    ]
    pq.write_table(pa.table({"prompt": ["x"]}), source / "b.parquet")
    with pytest.raises(InputError, match=r"b\.parquet changed since this stage began"):
        stored_plan(LocalStore(tmp_path / "stage"), row_source(config))
    for name in ("a.jsonl", "c.parquet"):
        (source / name).unlink()
    with pytest.raises(InputError, match=r"batch_scoring can be read.*no column candidates"):
        stored_plan(LocalStore(tmp_path / "other"), row_source(config))


def test_token_counts_of_lists_are_added_up() -> None:
    rows = [in_flight({**GOOD, "candidates": ["x"] * n}) for n in (1, 2)]
    plans = [plan_row(row, ENCODER, 128) for row in rows]
    done = [
        scored(row, rank(plan, Scores([1.0])))
        for row, plan in zip(rows, plans, strict=True)
        if isinstance(plan, RequestPlan)
    ]
    stats = shard_stats(split_rows(done))
    assert stats["num_tokens.candidate_num_tokens"] == 3 * 2
    assert stats["num_tokens.prompt_num_tokens"] == 2 * len(ENCODER.prompt_ids("Add one."))
