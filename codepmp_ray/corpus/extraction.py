"""A work unit's documents -> snippets and rejected rows, each with its place in the unit.

Every document ends in at least one row: its definitions, each a snippet or a rejected row, or one
rejected row for the file. Checks run from the cheap and physical to the dear and meaningful: size,
opt-out, bytes, language, licence, filters of files, syntax, limits, filters of snippets.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from codepmp_ray.config.corpus import CorpusConfig
from codepmp_ray.corpus.documents import Document, read_unit
from codepmp_ray.corpus.filters import FILE_FILTERS, SNIPPET_FILTERS, CodeText, refusal
from codepmp_ray.corpus.filters.opt_out import load_opt_out
from codepmp_ray.corpus.keep_index import sketch_columns
from codepmp_ray.corpus.languages import NOTEBOOK, find_language
from codepmp_ray.corpus.licenses import license_refusal, license_text
from codepmp_ray.corpus.minhash import sketch
from codepmp_ray.corpus.notebooks import (
    NotebookError,
    OtherKernelError,
    code_cells,
    extract_cells,
    join_cells,
)
from codepmp_ray.corpus.planning import WorkUnit
from codepmp_ray.corpus.snippets import Definition, ParseError, extract_definitions
from codepmp_ray.errors import InputError
from codepmp_ray.records import REJECTED, SNIPPET, RejectReason, stable_id, table_from_rows

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
    corpus: CorpusConfig, root: Path, unit: WorkUnit, threshold: str | None
) -> UnitTables:
    """Read and extract one unit. Raises InputError when the source is not what was planned."""
    if not root.is_dir():
        raise InputError(
            f"The source folder {root} is not there.",
            "In a cluster it must lie on storage that every node sees.",
        )
    snippets: list[Row] = []
    rejected: list[Row] = []
    num_documents = 0
    for document in read_unit(corpus, root, unit, threshold):
        num_documents += 1
        for is_snippet, row in extract_document(document, corpus):
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


def extract_document(document: Document, corpus: CorpusConfig) -> Iterator[tuple[bool, Row]]:
    """(is a snippet, row) for everything found in `document`; at least one.

    Raises ConfigError when the opt-out list cannot be read, and nothing because of the document.
    """
    try:
        source_id, language, definitions = _read_definitions(document, corpus)
    except _FileRefusal as refused:
        yield False, _rejected_file(document, refused)
        return
    for definition in definitions:
        yield _definition_row(document, source_id, language, definition, corpus)


def dedup_key(code: str, language: str) -> bytes:
    """16 bytes, equal for code that differs in trailing white space and blank lines only.

    Indentation counts, because in some languages it is meaning.
    """
    lines = [line.rstrip() for line in code.split("\n")]
    text = "\n".join([language, *(line for line in lines if line)])
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
        "repo": snippet["repo"],
        "path": snippet["path"],
        "payload": json.dumps({name: snippet[name] for name in named}),
    }


class _FileRefusal(Exception):
    """A file leaves as a whole."""

    def __init__(self, source_id: str | None, reason: RejectReason, detail: str) -> None:
        super().__init__(detail)
        self.source_id, self.reason, self.detail = source_id, reason, detail


def _read_definitions(
    document: Document, corpus: CorpusConfig
) -> tuple[str, str, list[Definition]]:
    """(source id, language, definitions) of a file. Raises _FileRefusal."""
    opted_out = load_opt_out(corpus.filters.opt_out_path)
    if document.data is None:
        reason = document.reason or RejectReason.UNREADABLE
        raise _FileRefusal(None, reason, document.detail)
    source_id = hashlib.sha256(document.data).hexdigest()[:32]
    refuse = partial(_FileRefusal, source_id)
    if entry := opted_out.match(document.repo, document.blob_id, source_id, document.data):
        raise refuse(RejectReason.OPTED_OUT, f"the opt-out list has {entry}")
    text, reason, detail = _decode(document.data)
    if reason is not None:
        raise refuse(reason, detail)
    language = find_language(document.language, document.path, document.data[:200])
    if language is None or language not in corpus.languages:
        name, known = document.language or document.path, ", ".join(corpus.languages)
        raise refuse(RejectReason.UNKNOWN_LANGUAGE, f"{name} is none of {known}")
    if detail := license_refusal(document.licenses, corpus.allowed_licenses):
        raise refuse(RejectReason.LICENSE_NOT_ALLOWED, detail)
    cells = None
    try:
        if language == NOTEBOOK:
            cells, language = code_cells(text), "python"
            text = join_cells(cells)
            if not cells:
                raise refuse(RejectReason.NO_SNIPPET, "no code cell")
        code = CodeText(text, document.path, language)
        if refused := refusal(FILE_FILTERS, code, corpus.filters):
            raise refuse(*refused)
        if cells is None:
            definitions = extract_definitions(text, language, corpus)
        else:
            definitions = extract_cells(cells, corpus)
    except OtherKernelError as error:
        raise refuse(RejectReason.UNKNOWN_LANGUAGE, str(error)) from error
    except NotebookError as error:
        raise refuse(RejectReason.BAD_NOTEBOOK, str(error)) from error
    except ParseError as error:
        raise refuse(RejectReason.PARSE_ERROR, str(error)) from error
    if not definitions:
        raise refuse(RejectReason.NO_SNIPPET, "no function and no class")
    return source_id, language, definitions


def _decode(data: bytes) -> tuple[str, RejectReason | None, str]:
    """(text with "\\n" newlines and without byte order mark, reason, detail)."""
    if (position := data.find(b"\0")) >= 0:
        return "", RejectReason.BINARY, f"NUL at byte {position}"
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return "", RejectReason.NOT_UTF8, f"{error.reason} at byte {error.start}"
    if not text.strip():
        return "", RejectReason.EMPTY, f"{len(data)} bytes"
    return text.replace("\r\n", "\n").replace("\r", "\n"), None, ""


def _definition_row(
    document: Document,
    source_id: str,
    language: str,
    definition: Definition,
    corpus: CorpusConfig,
) -> tuple[bool, Row]:
    span = f"{definition.span[0]}-{definition.span[1]}"
    repo = document.repo or ""
    row: Row = {
        "snippet_id": stable_id(repo, document.key, source_id, span, definition.code),
        "source_id": source_id,
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
    row["code"] = definition.code
    row["dedup_key"] = dedup_key(definition.code, language)
    return True, row


def _rejected_file(document: Document, refused: _FileRefusal) -> Row:
    source_id = refused.source_id
    return {
        "row_id": stable_id("file", document.repo or "", document.key, source_id or ""),
        "stage": STAGE,
        "reason": refused.reason.value,
        "detail": _storable(refused.detail),
        "source_id": source_id,
        "repo": _storable(document.repo),
        "path": _storable(document.path),
        "payload": None,
    }


def _storable(text: str | None) -> str | None:
    """`text` with what has no UTF-8 form (odd file names, half surrogates) spelled out."""
    return None if text is None else text.encode("utf-8", "backslashreplace").decode()
