"""Reading the documents of a work unit: one code file each, or the reason why it cannot be had."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from codepmp_ray.config.corpus import CorpusConfig
from codepmp_ray.corpus.arrow_rows import read_dataset_piece
from codepmp_ray.corpus.content_fetch import with_contents
from codepmp_ray.corpus.licenses import parse_licenses
from codepmp_ray.corpus.planning import Span, WorkUnit, document_key, is_taken
from codepmp_ray.corpus.row_files import (
    OversizedRow,
    UnreadableRow,
    read_json_piece,
    read_parquet_piece,
)
from codepmp_ray.corpus.sources import file_format, source_licenses, source_repo
from codepmp_ray.reject_reasons import RejectReason
from codepmp_ray.storage.inputs import InputFile, InputFolder, RemoteFile


@dataclass(frozen=True)
class Document:
    """One code file. `data` is None exactly when `reason` says why it could not be read.

    `key` is its place in the source; `language` is what the data set declares, if it does, and
    `blob_id` the name it has for the content (git's in The Stack).
    """

    key: str
    path: str
    repo: str | None = None
    language: str | None = None
    licenses: tuple[str, ...] = ()
    blob_id: str | None = None
    data: bytes | None = None
    reason: RejectReason | None = None
    detail: str = ""


def read_unit(
    corpus: CorpusConfig, root: InputFolder, unit: WorkUnit, threshold: str | None
) -> Iterator[Document]:
    """The taken documents of `unit`, in order; exactly `unit.num_documents` of them."""
    source = corpus.source
    base = Document("", "", repo=source_repo(source, root), licenses=source_licenses(source))
    for span in unit.spans:
        for index, document in _read_span(corpus, root, span, base):
            key = document_key(span, index, source.kind)
            if is_taken(key, corpus.sample_seed, threshold):
                yield replace(document, key=key, path=document.path or key)


def read_file(path: InputFile, max_bytes: int) -> bytes:
    """The bytes of a plain file. Raises OversizedRow (nothing read) or UnreadableRow."""
    if isinstance(path, RemoteFile):
        with path.open() as handle:
            if handle.size() > max_bytes:
                raise OversizedRow(f"{handle.size()} bytes")
            return handle.read()
    try:
        info = os.stat(path)
        if not stat.S_ISREG(info.st_mode):  # opening a pipe would wait for a writer
            raise UnreadableRow("not a plain file")
        if info.st_size > max_bytes:
            raise OversizedRow(f"{info.st_size} bytes")
        with open(path, "rb") as handle:
            data = handle.read(max_bytes + 1)
    except OSError as error:
        raise UnreadableRow(error.strerror or type(error).__name__) from error
    if len(data) > max_bytes:
        raise OversizedRow(f"more than {max_bytes} bytes")
    return data


def _read_span(
    corpus: CorpusConfig, root: InputFolder, span: Span, base: Document
) -> Iterator[tuple[int, Document]]:
    source, path, limit = corpus.source, root / span.file, corpus.max_file_bytes
    kind = file_format(source, span.file)
    if span.problem:
        yield span.first, _failed(base, UnreadableRow(span.problem), limit)
    elif kind == "parquet":
        rows = read_parquet_piece(path, source, span.first, span.stop, span.position, limit)
        yield from _read_rows(corpus, span, rows, base)
    elif kind == "jsonl":
        rows = read_json_piece(path, source, span.first, span.stop, span.position, limit)
        yield from _read_rows(corpus, span, rows, base)
    elif kind == "rows":
        rows = read_dataset_piece(root, source, span.first, span.stop, limit)
        yield from _read_rows(corpus, span, rows, base)
    else:
        try:
            yield 0, replace(base, data=read_file(path, limit))
        except ValueError as error:
            yield 0, _failed(base, error, limit)


def _read_rows(
    corpus: CorpusConfig,
    span: Span,
    rows: Iterator[tuple[int, dict[str, Any] | ValueError]],
    base: Document,
) -> Iterator[tuple[int, Document]]:
    """A document per row of the span; rows behind damage that ends the reading are unreadable."""
    if corpus.source.content_uri is not None:
        rows = with_contents(rows, corpus.source, corpus.max_file_bytes)
    next_index = span.first
    problem: ValueError = UnreadableRow("the file has fewer rows than when it was listed")
    try:
        for index, row in rows:
            if isinstance(row, ValueError):
                document = _failed(base, row, corpus.max_file_bytes)
            else:
                document = _from_row(row, corpus, base)
            next_index = index + 1
            yield index, document
    except UnreadableRow as error:
        problem = error
    for index in range(next_index, span.stop):
        yield index, _failed(base, problem, corpus.max_file_bytes)


def _from_row(row: dict[str, Any], corpus: CorpusConfig, base: Document) -> Document:
    source = corpus.source
    licenses = parse_licenses(row.get(source.license_column))
    return replace(
        base,
        path=_text(row.get(source.path_column)) or "",
        repo=_text(row.get(source.repo_column)) or base.repo,
        language=_text(row.get(source.language_column)),
        licenses=licenses or base.licenses,
        blob_id=_text(row.get(source.blob_id_column)),
        data=row["content"],
    )


def _failed(base: Document, error: ValueError, max_bytes: int) -> Document:
    detail = str(error)
    reason = RejectReason.UNREADABLE
    if isinstance(error, OversizedRow):
        reason, detail = RejectReason.TOO_LARGE, f"{detail}, max_file_bytes={max_bytes}"
    elif isinstance(error, UnicodeDecodeError):
        reason = RejectReason.NOT_UTF8
    return replace(base, reason=reason, detail=detail)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
