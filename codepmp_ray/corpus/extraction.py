"""A work unit's documents -> snippets and rejected rows, each with its place in the unit.

Every document ends in at least one row: its definitions, each a snippet or a rejected row, or one
rejected row for the file. Checks run from the physical to the meaningful: size, bytes, text,
language, licence, syntax.
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
from codepmp_ray.corpus.documents import Document, read_unit
from codepmp_ray.corpus.languages import NOTEBOOK, find_language
from codepmp_ray.corpus.licenses import license_refusal, license_text
from codepmp_ray.corpus.notebooks import NotebookError, OtherKernelError, extract_notebook
from codepmp_ray.corpus.planning import WorkUnit
from codepmp_ray.corpus.snippets import Definition, ParseError, extract_definitions
from codepmp_ray.errors import InputError
from codepmp_ray.records import REJECTED, SNIPPET, RejectReason, stable_id, table_from_rows

STAGE = "corpus"
# Rows of one unit, both tables together, are numbered 0, 1, 2, ... by `ordinal`.
EXTRACTED = SNIPPET.append(pa.field("ordinal", pa.int64())).append(
    pa.field("dedup_key", pa.binary(16))
)
EXTRACTED_REJECTED = REJECTED.append(pa.field("ordinal", pa.int64()))

Row = dict[str, Any]


@dataclass(frozen=True)
class UnitTables:
    """What a unit became: EXTRACTED and EXTRACTED_REJECTED."""

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
    return UnitTables(
        table_from_rows(snippets, EXTRACTED), table_from_rows(rejected, EXTRACTED_REJECTED)
    )


def extract_document(document: Document, corpus: CorpusConfig) -> Iterator[tuple[bool, Row]]:
    """(is a snippet, row) for everything found in `document`; at least one. Never raises."""
    if document.data is None:
        reason = document.reason or RejectReason.UNREADABLE
        yield False, _rejected_file(document, None, reason, document.detail)
        return
    source_id = hashlib.sha256(document.data).hexdigest()[:32]
    text, reason, detail = _decode(document.data)
    language = find_language(document.language, document.path, document.data[:200])
    if reason is None and language not in corpus.languages:
        reason = RejectReason.UNKNOWN_LANGUAGE
        detail = f"{document.language or document.path} is none of {', '.join(corpus.languages)}"
    if reason is None and (refusal := license_refusal(document.licenses, corpus.allowed_licenses)):
        reason, detail = RejectReason.LICENSE_NOT_ALLOWED, refusal
    definitions: list[Definition] = []
    if reason is None and language is not None:
        try:
            if language == NOTEBOOK:
                language, definitions = "python", extract_notebook(text, corpus)
            else:
                definitions = extract_definitions(text, language, corpus)
        except OtherKernelError as error:
            reason, detail = RejectReason.UNKNOWN_LANGUAGE, str(error)
        except NotebookError as error:
            reason, detail = RejectReason.BAD_NOTEBOOK, str(error)
        except ParseError as error:
            reason, detail = RejectReason.PARSE_ERROR, str(error)
    if reason is None and not definitions:
        reason, detail = RejectReason.NO_SNIPPET, "no function and no class"
    if reason is not None or language is None:
        reason = reason or RejectReason.UNKNOWN_LANGUAGE
        yield False, _rejected_file(document, source_id, reason, detail)
    else:
        for definition in definitions:
            yield _definition_row(document, source_id, language, definition)


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
    document: Document, source_id: str, language: str, definition: Definition
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
    row["code"] = definition.code
    row["dedup_key"] = dedup_key(definition.code, language)
    return True, row


def _rejected_file(
    document: Document, source_id: str | None, reason: RejectReason, detail: str
) -> Row:
    return {
        "row_id": stable_id("file", document.repo or "", document.key, source_id or ""),
        "stage": STAGE,
        "reason": reason.value,
        "detail": _storable(detail),
        "source_id": source_id,
        "repo": _storable(document.repo),
        "path": _storable(document.path),
        "payload": None,
    }


def _storable(text: str | None) -> str | None:
    """`text` with what has no UTF-8 form (odd file names, half surrogates) spelled out."""
    return None if text is None else text.encode("utf-8", "backslashreplace").decode()
