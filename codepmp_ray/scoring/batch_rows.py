"""Rows of prompts and candidates: read, scored one by one, split into scored and rejected rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from codepmp_ray.config.evaluation import BatchScoringConfig
from codepmp_ray.errors import InputError
from codepmp_ray.io.parquet_rows import UnreadableRow
from codepmp_ray.io.shards import Piece, RowSource, read_piece
from codepmp_ray.preference.messages import Message
from codepmp_ray.preference.sources.rows import Unusable, checked_conversation, checked_text
from codepmp_ray.preference.tokenization import Encoder
from codepmp_ray.records import REJECTED, SCORED_ROW, table_from_rows
from codepmp_ray.reject_reasons import RejectReason
from codepmp_ray.scoring.best_of_n import (
    BestOfN,
    RequestPlan,
    ScoringRequest,
    plan_request,
    require_finite,
    require_scores,
)
from codepmp_ray.synthesis.gates import clean

Row = dict[str, Any]
# A row in flight: what was read, and what became of it. `prompt` is text or, with `is_messages`,
# the JSON of the conversation.
IN_FLIGHT = pa.schema(
    [
        pa.field("prompt", pa.string()),
        pa.field("is_messages", pa.bool_()),
        pa.field("candidates", pa.list_(pa.string())),
        pa.field("reject_reason", pa.string()),
        pa.field("reject_detail", pa.string()),
        *SCORED_ROW,
    ]
)


def row_source(config: BatchScoringConfig) -> RowSource:
    return RowSource(
        "batch_scoring",
        config.path or "",
        tuple(config.columns()),
        (
            tuple(dict.fromkeys([config.prompt_column, config.messages_column])),
            (config.candidates_column,),
        ),
        config.rows_per_shard,
        "rows.json",
    )


def read_rows(pieces: list[Piece], config: BatchScoringConfig, shard_id: int) -> pa.Table:
    """The rows of one shard, with the columns of IN_FLIGHT; runs in a task."""
    piece = pieces[shard_id]
    return table_from_rows(list(_rows(piece, config)), IN_FLIGHT)


def _rows(piece: Piece, config: BatchScoringConfig) -> Iterator[Row]:
    for index, raw in read_piece(piece, row_source(config)):
        yield parse_row(raw, piece, index, config)


def parse_row(
    raw: Row | UnreadableRow, piece: Piece, index: int, config: BatchScoringConfig
) -> Row:
    """An IN_FLIGHT row of whatever was read at that place."""
    place = clean(f"{piece.name}#{index}")
    row: Row = {"row_id": place, "place": place}
    if isinstance(raw, UnreadableRow):
        return refuse(row, RejectReason.UNREADABLE, clean(str(raw)))
    given = raw.get(config.id_column)
    if isinstance(given, str | int) and not isinstance(given, bool):
        row["row_id"] = clean(str(given))
    try:
        prompt = _prompt(raw, config)
        candidates = _candidates(raw.get(config.candidates_column), config.candidates_column)
    except Unusable as error:
        return refuse(row, error.reason, clean(str(error)))
    is_messages = not isinstance(prompt, str)
    text = json.dumps(prompt) if is_messages else prompt
    return {**row, "prompt": text, "is_messages": is_messages, "candidates": candidates}


def plan_row(row: Row, encoder: Encoder, max_model_len: int) -> RequestPlan | Row:
    """What the scorer has to compute for the row, or the row with the reason why it cannot."""
    prompt: str | list[Message] = json.loads(row["prompt"]) if row["is_messages"] else row["prompt"]
    try:
        encoder.render(prompt)
    except InputError as error:
        return refuse(row, RejectReason.PROMPT_NOT_RENDERED, clean(str(error)))
    try:
        return plan_request(encoder, max_model_len, ScoringRequest(prompt, row["candidates"]))
    except InputError as error:
        return refuse(row, RejectReason.OVER_MAX_LENGTH, clean(error.problem))


def scored(row: Row, result: BestOfN) -> Row:
    """The row with its scores. Raises EngineError unless `result` has one for every candidate."""
    require_finite(result)
    require_scores([result])
    found, best = result.candidates, result.best_index or 0
    return {
        **row,
        "num_candidates": len(found),
        "best_index": best,
        "best_candidate": row["candidates"][best],
        "scores": [item.score for item in found],
        "ranks": [item.rank for item in found],
        "prompt_num_tokens": result.num_prompt_tokens,
        "candidate_num_tokens": [item.num_tokens for item in found],
        "truncated": [item.truncated for item in found],
        "duplicate_of": [item.duplicate_of for item in found],
    }


def refuse(row: Row, reason: RejectReason, detail: str) -> Row:
    return {**row, "reject_reason": str(reason), "reject_detail": detail}


def split_rows(rows: list[Row]) -> dict[str, pa.Table]:
    """Tables "scores" and "rejected" that together hold every row once."""
    kept = [
        {name: row[name] for name in SCORED_ROW.names} for row in rows if not row["reject_reason"]
    ]
    rejected = [
        {
            "row_id": row["row_id"],
            "stage": "scoring",
            "reason": row["reject_reason"],
            "detail": row["reject_detail"],
            "path": row["place"],
        }
        for row in rows
        if row["reject_reason"]
    ]
    return {
        "scores": table_from_rows(kept, SCORED_ROW),
        "rejected": table_from_rows(rejected, REJECTED),
    }


def _prompt(raw: Row, config: BatchScoringConfig) -> str | list[Message]:
    """Text, or a conversation that an answer may follow. Raises Unusable."""
    names = dict.fromkeys([config.prompt_column, config.messages_column])
    given = {name: raw[name] for name in names if raw.get(name) is not None}
    if len(given) > 1:
        raise Unusable(RejectReason.BAD_CONVERSATION, f"both {' and '.join(given)} are given")
    for name, value in given.items():
        if isinstance(value, list):
            return _conversation(value, name)
        if text := checked_text(value, name):
            return text
    raise Unusable(RejectReason.PROMPT_EMPTY, f"no prompt in {' or '.join(names)}")


def _conversation(value: list[Any], name: str) -> list[Message]:
    messages = checked_conversation(value, name)
    if not messages:
        raise Unusable(RejectReason.PROMPT_EMPTY, f"{name} has no message")
    if messages[-1]["role"] == "assistant":
        raise Unusable(RejectReason.BAD_CONVERSATION, f"{name} ends with the assistant's turn")
    return messages


def _candidates(value: Any, name: str) -> list[str]:
    if value is not None and not isinstance(value, list):
        raise Unusable(RejectReason.UNREADABLE, f"{name} is {type(value).__name__}, not a list")
    if not value:
        raise Unusable(RejectReason.NO_CANDIDATES, f"{name} has none")
    return [checked_text(text, f"{name}[{index}]") for index, text in enumerate(value)]
