"""A work unit's documents -> snippets and rejected rows, each with its place in the unit.

Every document ends in at least one row: its definitions, each a snippet or a rejected row, or one
rejected row for the file. Checks run from the cheap and physical to the dear and meaningful: size,
opt-out, bytes, language, licence, filters of files, syntax, limits, filters of snippets,
decontamination.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from codepmp_ray.config.corpus import CorpusConfig
from codepmp_ray.corpus.decontamination import (
    EvaluationIndex,
    find_contamination,
    load_evaluation_index,
)
from codepmp_ray.corpus.documents import Document, read_unit
from codepmp_ray.corpus.file_checks import FileRefusal, read_definitions
from codepmp_ray.corpus.filters import SNIPPET_FILTERS, CodeText, refusal
from codepmp_ray.corpus.filters.personal_data import redacted
from codepmp_ray.corpus.keep_index import sketch_columns
from codepmp_ray.corpus.licenses import license_text
from codepmp_ray.corpus.minhash import sketch
from codepmp_ray.corpus.planning import WorkUnit
from codepmp_ray.corpus.snippets import Definition
from codepmp_ray.errors import InputError
from codepmp_ray.records import REJECTED, SNIPPET, stable_id, table_from_rows
from codepmp_ray.reject_reasons import RejectReason
from codepmp_ray.storage.inputs import InputFolder

STAGE = "corpus"
# `keep_index.sketch_columns` follow when near-duplicates are looked for.
# Rows of one unit, both tables together, are numbered 0, 1, 2, ... by `ordinal`.
EXTRACTED = SNIPPET.append(pa.field("ordinal", pa.int64())).append(
    pa.field("dedup_key", pa.binary(16))
)
EXTRACTED_REJECTED = REJECTED.append(pa.field("ordinal", pa.int64()))

Row = dict[str, Any]


@dataclass(frozen=True)
class UnitTables:
    """What a unit became: EXTRACTED (with sketches) and EXTRACTED_REJECTED."""

    snippets: pa.Table
    rejected: pa.Table

    @property
    def num_rows(self) -> int:
        return self.snippets.num_rows + self.rejected.num_rows


def extract_unit(
    corpus: CorpusConfig,
    root: InputFolder,
    unit: WorkUnit,
    threshold: str | None,
    purged: frozenset[str] = frozenset(),
) -> UnitTables:
    """Read and extract one unit. Raises InputError when the source is not what was planned.

    `purged` are names of files that are left out, see `read_definitions`.
    """
    if isinstance(root, Path) and not root.is_dir():
        raise InputError(
            f"The source folder {root} is not there.",
            "In a cluster it must lie on storage that every node sees.",
        )
    snippets: list[Row] = []
    rejected: list[Row] = []
    num_documents = 0
    for document in read_unit(corpus, root, unit, threshold):
        num_documents += 1
        for is_snippet, row in extract_document(document, corpus, purged):
            row["ordinal"] = len(snippets) + len(rejected)
            (snippets if is_snippet else rejected).append(row)
    if num_documents != unit.num_documents:
        raise InputError(
            f"Work unit {unit.unit_id} holds {num_documents} documents instead of "
            f"{unit.num_documents}: the source changed while it was read.",
            "Leave it unchanged until the corpus is complete, and run the job again.",
        )
    found = table_from_rows(snippets, EXTRACTED)
    near = corpus.near_duplicates
    if near.enabled:
        sketches = sketch([row["code"] for row in snippets], near)
        for name, column in sketch_columns(sketches, near).items():
            found = found.append_column(name, column)
    return UnitTables(found, table_from_rows(rejected, EXTRACTED_REJECTED))


def extract_document(
    document: Document, corpus: CorpusConfig, purged: frozenset[str] = frozenset()
) -> Iterator[tuple[bool, Row]]:
    """(is a snippet, row) for everything found in `document`; at least one.

    Raises ConfigError when the opt-out list or an evaluation set cannot be read, and nothing
    because of the document.
    """
    try:
        source_id, language, definitions = read_definitions(document, corpus, purged)
    except FileRefusal as refused:
        yield False, _rejected_file(document, refused)
        return
    index = load_evaluation_index(corpus.decontamination)
    for definition in definitions:
        yield _definition_row(document, source_id, language, definition, corpus, index)


def dedup_key(code: str, language: str) -> bytes:
    """16 bytes, equal for code that differs in trailing white space and blank lines only.

    Indentation counts, because in some languages it is meaning.
    """
    text = "\n".join([language, *filter(None, map(str.rstrip, code.split("\n")))])
    return hashlib.sha256(text.encode("utf-8")).digest()[:16]


def rejected_snippet(snippet: Row, reason: RejectReason, detail: str) -> Row:
    """The REJECTED row of a snippet. Its code stays in the source; the payload finds it there."""
    named = ("kind", "name", "start_line", "end_line", "language", "license")
    return {
        "row_id": snippet["snippet_id"],
        "stage": STAGE,
        "reason": reason.value,
        "detail": detail,
        "source_id": snippet["source_id"],
        "blob_id": snippet["blob_id"],
        "repo": snippet["repo"],
        "path": snippet["path"],
        "payload": json.dumps({name: snippet[name] for name in named}),
    }


def _definition_row(
    document: Document,
    source_id: str,
    language: str,
    definition: Definition,
    corpus: CorpusConfig,
    index: EvaluationIndex,
) -> tuple[bool, Row]:
    span = f"{definition.span[0]}-{definition.span[1]}"
    repo = document.repo or ""
    row: Row = {
        "snippet_id": stable_id(repo, document.key, source_id, span, definition.code),
        "source_id": source_id,
        "blob_id": document.best_blob_id,
        "repo": _storable(document.repo),
        "path": _storable(document.path),
        "language": language,
        "license": _storable(license_text(document.licenses)),
        "kind": definition.kind,
        "name": definition.name,
        "start_line": definition.start_line,
        "end_line": definition.end_line,
    }
    if definition.reason is not None:
        return False, rejected_snippet(row, definition.reason, definition.detail)
    code = CodeText(definition.code, document.path, language)
    if refused := refusal(SNIPPET_FILTERS, code, corpus.filters):
        return False, rejected_snippet(row, *refused)
    names = (definition.name,) if definition.kind == "function" else ()
    if found := find_contamination(definition.code, index, names):
        return False, rejected_snippet(row, RejectReason.CONTAMINATED, found.detail)
    is_redacted = corpus.filters.personal_data == "redact"
    row["code"] = redacted(definition.code) if is_redacted else definition.code
    row["dedup_key"] = dedup_key(row["code"], language)
    return True, row


def _rejected_file(document: Document, refused: FileRefusal) -> Row:
    source_id = refused.source_id
    return {
        "row_id": stable_id("file", document.repo or "", document.key, source_id or ""),
        "stage": STAGE,
        "reason": refused.reason.value,
        "detail": _storable(refused.detail),
        "source_id": source_id,
        "blob_id": document.best_blob_id,
        "repo": _storable(document.repo),
        "path": _storable(document.path),
        "payload": None,
    }


def _storable(text: str | None) -> str | None:
    """`text` with what has no UTF-8 form (odd file names, half surrogates) spelled out."""
    return None if text is None else text.encode("utf-8", "backslashreplace").decode()
