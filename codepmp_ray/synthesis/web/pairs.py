"""A thread -> one pair: the answer with the highest score against one that scored clearly less."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from codepmp_ray.config.corpus import DecontaminationConfig
from codepmp_ray.config.synthesis import SynthesisConfig, ThreadsConfig
from codepmp_ray.corpus.decontamination import EvaluationIndex, load_evaluation_index
from codepmp_ray.io.parquet_rows import UnreadableRow
from codepmp_ray.io.shards import Piece
from codepmp_ray.records import stable_id, table_from_rows
from codepmp_ray.reject_reasons import RejectReason
from codepmp_ray.synthesis.gates import Rejection, clean, contaminated, judge_sides
from codepmp_ray.synthesis.rows import tables_of
from codepmp_ray.synthesis.web.files import read_piece

Row = dict[str, Any]
_ANSWER = pa.struct([("text", pa.string()), ("score", pa.float64())])
# A thread in flight. `problem` says why the row is no thread.
THREAD = pa.schema(
    [
        pa.field("thread_id", pa.string()),
        pa.field("place", pa.string()),
        pa.field("question", pa.string()),
        pa.field("answers", pa.list_(_ANSWER)),
        pa.field("num_answers", pa.int64()),
        pa.field("problem", pa.string()),
    ]
)


@dataclass(frozen=True)
class Answer:
    text: str
    score: float


def read_threads(pieces: list[Piece], threads: ThreadsConfig, shard_id: int) -> pa.Table:
    """The rows of one shard, with the columns of THREAD."""
    piece = pieces[shard_id]
    rows = [parse_thread(row, piece, i, threads) for i, row in read_piece(piece, threads)]
    return table_from_rows(rows, THREAD)


def parse_thread(raw: Row | UnreadableRow, piece: Piece, index: int, threads: ThreadsConfig) -> Row:
    """A THREAD row of whatever was read at that place."""
    place = f"{piece.name}#{index}"
    row: Row = {"place": clean(place)}
    own_id = raw.get(threads.id_column) if isinstance(raw, dict) else None
    row["thread_id"] = stable_id("thread", threads.site or "", place, str(own_id))
    if isinstance(raw, UnreadableRow):
        return {**row, "problem": clean(str(raw))}
    question = raw.get(threads.question_column)
    if not isinstance(question, str) or clean(question) != question or "\0" in question:
        return {**row, "problem": f"no text in column {threads.question_column!r}"}
    listed = raw.get(threads.answers_column)
    if not isinstance(listed, list):
        return {**row, "problem": f"no list in column {threads.answers_column!r}"}
    if threads.scores_column:
        scores = raw.get(threads.scores_column)
        scores = scores if isinstance(scores, list) else []
        found = [_answer(text, score) for text, score in zip(listed, scores, strict=False)]
    else:
        found = [
            _answer(item.get(threads.text_field), item.get(threads.score_field))
            for item in listed
            if isinstance(item, dict)
        ]
    usable = [vars(answer) for answer in found if answer]
    return {**row, "question": question, "answers": usable, "num_answers": len(listed)}


def choose_sides(
    answers: list[Answer], thread_id: str, min_score_gap: float
) -> tuple[Answer, Answer] | Rejection:
    """(chosen, rejected), the same whatever order the answers come in.

    Chosen has the highest score. Rejected is drawn by a hash from those that score at least
    `min_score_gap` less: always taking the worst one would pair with spam only.
    """

    def draw(side: str, answer: Answer) -> str:
        return stable_id(side, thread_id, answer.text, repr(answer.score))

    if len(answers) < 2:
        return Rejection(RejectReason.TOO_FEW_ANSWERS, f"{len(answers)} with text and score")
    top = max(answer.score for answer in answers)
    best = [answer for answer in answers if answer.score == top]
    lower = [answer for answer in answers if answer.score <= top - min_score_gap]
    if not lower:
        gap = top - min(answer.score for answer in answers)
        detail = f"{gap:g} between best and worst, min_score_gap={min_score_gap:g}"
        return Rejection(RejectReason.SCORE_GAP_TOO_SMALL, detail)
    return min(best, key=partial(draw, "chosen")), min(lower, key=partial(draw, "rejected"))


def split_threads(
    rows: list[Row],
    config: SynthesisConfig,
    decontamination: DecontaminationConfig | None = None,
) -> dict[str, pa.Table]:
    """Tables "pairs" and "rejected" that together hold every thread once.

    `decontamination` says which evaluation sets texts are held against; None screens nothing.
    """
    index = load_evaluation_index(decontamination) if decontamination else None
    pairs, rejected = [], []
    for row in rows:
        made = _make(row, config, index)
        (rejected if "reason" in made else pairs).append(made)
    return tables_of(pairs, rejected)


def _make(row: Row, config: SynthesisConfig, index: EvaluationIndex | None) -> Row:
    if row["problem"]:
        return _rejected_row(row, Rejection(RejectReason.UNREADABLE, row["problem"]), config)
    if not row["question"].strip():
        return _rejected_row(row, Rejection(RejectReason.PROMPT_EMPTY, "no question"), config)
    answers = [Answer(**answer) for answer in row["answers"]]
    sides = choose_sides(answers, row["thread_id"], config.threads.min_score_gap)
    if isinstance(sides, Rejection):
        detail = f"{sides.detail}; {row['num_answers']} answers"
        return _rejected_row(row, sides._replace(detail=detail), config)
    chosen, rejected = (answer.text.strip() for answer in sides)
    texts = {"chosen": chosen, "rejected": rejected}
    if refused := _refused(texts, config) or _contaminated(row["question"], texts, index):
        return _rejected_row(row, refused, config, texts)
    return {
        "pair_id": stable_id(row["thread_id"], "web_pairs"),
        "prompt": row["question"].strip(),
        **texts,
        "snippet_id": row["thread_id"],
        "source_id": row["thread_id"],
        "repo": config.threads.site,
        "path": row["place"],
        "license": config.threads.license,
        "construction": "web_pairs",
        "description": row["question"].strip(),
    }


def _contaminated(
    question: str, texts: dict[str, str], index: EvaluationIndex | None
) -> Rejection | None:
    if index is None:
        return None
    found = (contaminated(*item, index) for item in {"description": question, **texts}.items())
    return next(filter(None, found), None)


def _refused(texts: dict[str, str], config: SynthesisConfig) -> Rejection | None:
    # People answer without code, and say that they are sorry.
    gates = config.gates.model_copy(update={"code": "none", "refusals": False})
    return judge_sides(texts, "", gates)


def _rejected_row(
    row: Row, why: Rejection, config: SynthesisConfig, made: dict[str, str] | None = None
) -> Row:
    return {
        "row_id": row["thread_id"],
        "stage": "synthesis",
        "reason": str(why.reason),
        "detail": why.detail,
        "source_id": row["thread_id"],
        "repo": config.threads.site,
        "path": row["place"],
        "payload": json.dumps(made, ensure_ascii=False) if made else None,
    }


def _answer(text: object, score: object) -> Answer | None:
    """None unless there is storable text and a finite number."""
    if not isinstance(text, str) or isinstance(score, bool) or not isinstance(score, int | float):
        return None
    try:
        value = float(score)
    except OverflowError:
        return None
    return Answer(text, value) if math.isfinite(value) and clean(text) == text else None
