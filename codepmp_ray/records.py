"""Row types of every table and their Arrow schemas. docs/data-format.md explains each column.

Pairs follow the TRL preference format (`prompt`, `chosen`, `rejected`) plus provenance.
Every input row ends either in a product table or in a rejected table with a typed reason.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum

import pyarrow as pa


class Outcome(StrEnum):
    """How an answer was graded. Stored, like RejectReason."""

    PASSED = "passed"
    FAILED = "failed"
    NO_CODE = "no_code"
    NO_ANSWER = "no_answer"
    TIMEOUT = "timeout"
    KILLED = "killed"
    ERROR = "error"
    MISSING_PACKAGE = "missing_package"
    NOT_GRADABLE = "not_gradable"


def _schema(**fields: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(name, kind) for name, kind in fields.items()])


_S, _I, _F, _B = pa.string(), pa.int64(), pa.float64(), pa.bool_()

SNIPPET = _schema(
    # sha256 of (repo, place in the source, source_id, span, code), 32 hex digits: copies of a file
    # give equal code under different ids
    snippet_id=_S,
    source_id=_S,  # sha256 of the file's bytes, 32 hex digits
    blob_id=_S,  # git's sha1 of the file, 40 hex digits, as opt-out lists name it
    repo=_S,
    path=_S,
    language=_S,
    license=_S,
    kind=_S,  # "function", "class" or "cell"
    name=_S,
    start_line=_I,  # 1-based, inclusive
    end_line=_I,
    code=_S,
)

REJECTED = _schema(
    # snippet_id, pair_id, for whole files sha256 of (repo, place, source_id), for a training
    # source's rows that became no pair "<name of the source>#<number of the row>", for rows of a
    # file of pools "<name of the file>#<number of the row>"
    row_id=_S,
    stage=_S,  # "corpus", "synthesis", "pretraining", "finetuning", "candidates", "scoring"
    reason=_S,  # a RejectReason
    detail=_S,
    source_id=_S,
    blob_id=_S,
    repo=_S,
    path=_S,
    payload=_S,  # JSON of what had been made so far, or null
)

PAIR = _schema(
    pair_id=_S,  # sha256 of (snippet_id, construction), 32 hex digits
    prompt=_S,
    chosen=_S,
    rejected=_S,
    margin=_F,  # optional, null when the construction has none
    snippet_id=_S,
    source_id=_S,
    blob_id=_S,
    repo=_S,
    path=_S,
    language=_S,
    license=_S,
    construction=_S,
    description=_S,
    tests=_S,  # null unless answers were executed
    domain=_S,  # "engineering", "non-engineering" or null
    domain_confidence=_F,
    describe_model=_S,
    strong_model=_S,  # model that wrote `chosen`, null where people did
    weak_model=_S,
    prompt_template=_S,
    description_num_tokens=_I,
    chosen_num_tokens=_I,
    rejected_num_tokens=_I,
    description_finish_reason=_S,
    chosen_finish_reason=_S,
    rejected_finish_reason=_S,
)

# Where the sides are of two files: their columns and those of the file that `rejected` is of.
PAIR_OF_TWO_FILES = pa.schema(
    [
        *PAIR,
        pa.field("problem_id", _S),  # equal for pairs that hold the same two texts
        pa.field("rejected_source_id", _S),
        pa.field("rejected_blob_id", _S),
        pa.field("rejected_repo", _S),
        pa.field("rejected_path", _S),
    ]
)

CANDIDATE = _schema(
    candidate_id=_S,
    problem_id=_S,
    split=_S,  # "train" or "eval"; a problem is in exactly one
    sample_index=_I,
    prompt=_S,
    completion=_S,
    finish_reason=_S,
    num_tokens=_I,  # null in a pool that was read from a file, and of options
    model=_S,
    label=_B,  # whether the file that it was read from calls it right
)

GRADE = _schema(
    candidate_id=_S,
    problem_id=_S,
    passed=_B,  # null where the problem cannot be graded
    outcome=_S,  # an Outcome
    detail=_S,
    answer=_S,  # equal for equal final answers; null where there is none
    duration_s=_F,
)

SCORE = _schema(
    candidate_id=_S,
    problem_id=_S,
    sample_index=_I,
    score=_F,
    num_tokens=_I,
    truncated=_B,
)

SCORED_ROW = _schema(
    row_id=_S,
    place=_S,  # "<file>#<number of the row>" in the source
    num_candidates=_I,
    best_index=_I,
    best_candidate=_S,
    # one value per candidate, in the order of the row
    scores=pa.list_(_F),
    ranks=pa.list_(_I),
    prompt_num_tokens=_I,
    candidate_num_tokens=pa.list_(_I),
    truncated=pa.list_(_B),
    duplicate_of=pa.list_(_I),  # index of the first equal candidate, or null
)

PAIR_SCORE = _schema(
    pair_id=_S,
    problem_id=_S,  # equal for pairs that are not independent: of one prompt, or of one question
    source=_S,
    section=_S,
    variant=_S,  # which forms of both answers: of RM-Bench "concise/markdown", of others null
    chosen_score=_F,
    rejected_score=_F,
    chosen_num_tokens=_I,
    rejected_num_tokens=_I,
    chosen_truncated=_B,
    rejected_truncated=_B,
)

STEP_SCORE = _schema(
    solution_id=_S,
    section=_S,  # the part of ProcessBench
    step=_I,  # the last one of the text that was scored, from 0
    score=_F,
    num_tokens=_I,
    truncated=_B,
)

AUDIT_SCORE = _schema(
    pair_id=_S,
    problem_id=_S,
    section=_S,
    edit=_S,  # "chosen" or "rejected" for the pair's own answers, else the edit's name
    score=_F,
    num_tokens=_I,
    truncated=_B,
)

AUDIT_POOL_SCORE = _schema(
    pool=_S,
    problem_id=_S,
    candidate_index=_I,  # among the labelled candidates of the problem in the file, from 0
    model=_S,
    passed=_B,
    score=_F,
    num_tokens=_I,
    truncated=_B,
)


def stable_id(*parts: str) -> str:
    """128-bit hex id of the parts; the separator keeps ("a", "bc") and ("ab", "c") apart."""
    digest = hashlib.sha256("\x1f".join(parts).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:32]


def table_from_rows(rows: list[dict], schema: pa.Schema) -> pa.Table:
    """Arrow table of `rows`; missing keys become null, unknown keys raise ValueError."""
    known = set(schema.names)
    for row in rows:
        if unknown := set(row) - known:
            raise ValueError(f"columns {sorted(unknown)} are not in the schema {schema.names}")
    columns = {name: [row.get(name) for row in rows] for name in schema.names}
    return pa.Table.from_pydict(columns, schema=schema)
