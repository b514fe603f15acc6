"""Reading the documents of a work unit: one code file each, or the reason why it cannot be had."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from codepmp_ray.config.corpus import CorpusConfig
from codepmp_ray.corpus.arrow_rows import read_dataset_piece
from codepmp_ray.corpus.blobs import git_blob_id, is_blob_id
from codepmp_ray.corpus.content_fetch import with_contents
from codepmp_ray.corpus.languages import NOTEBOOK, find_language
from codepmp_ray.corpus.licenses import folder_license, header_license, parse_licenses
from codepmp_ray.corpus.planning import Span, WorkUnit, document_key, is_taken
from codepmp_ray.corpus.row_files import read_json_piece, read_parquet_piece
from codepmp_ray.corpus.sources import file_format, source_licenses, source_repo
from codepmp_ray.io.parquet_rows import OversizedRow, UnreadableRow
from codepmp_ray.reject_reasons import RejectReason
from codepmp_ray.storage.inputs import InputFile, InputFolder, RemoteFile

# A notebook's pictures are no code: it may be so many times as large as a file of code.
_NOTEBOOK_FACTOR = 32


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

    @cached_property
    def git_id(self) -> str | None:
        """What git calls the content, worked out once."""
        return None if self.data is None else git_blob_id(self.data)

    @property
    def best_blob_id(self) -> str | None:
        """The data set's own blob id if it is one, since its text may have been re-encoded;
        otherwise git's name of what was read."""
        declared = (self.blob_id or "").lower()
        return declared if is_blob_id(declared) else self.git_id


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
    source, path = corpus.source, root / span.file
    kind, limit = file_format(source, span.file), _read_limit(corpus)
    if span.problem:
        yield span.first, _failed(base, UnreadableRow(span.problem), corpus)
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
            _require_inside(root, path)
            is_notebook = find_language(None, span.file) == NOTEBOOK
            data = read_file(path, limit if is_notebook else corpus.max_file_bytes)
        except ValueError as error:
            yield 0, _failed(base, error, corpus)
            return
        licenses = header_license(data) or base.licenses
        if not licenses and isinstance(root, Path):
            licenses = folder_license(root, span.file)
        yield 0, replace(base, data=data, licenses=licenses)


def _read_rows(
    corpus: CorpusConfig,
    span: Span,
    rows: Iterator[tuple[int, dict[str, Any] | ValueError]],
    base: Document,
) -> Iterator[tuple[int, Document]]:
    """A document per row of the span; rows behind damage that ends the reading are unreadable."""
    if corpus.source.content_uri is not None:
        rows = with_contents(rows, corpus.source, _read_limit(corpus))
    next_index = span.first
    problem: ValueError = UnreadableRow("the file has fewer rows than when it was listed")
    try:
        for index, row in rows:
            if isinstance(row, ValueError):
                document = _failed(base, row, corpus)
            else:
                document = _from_row(row, corpus, base)
            next_index = index + 1
            yield index, document
    except UnreadableRow as error:
        problem = error
    for index in range(next_index, span.stop):
        yield index, _failed(base, problem, corpus)


def _from_row(row: dict[str, Any], corpus: CorpusConfig, base: Document) -> Document:
    source, stated = corpus.source, row.get(corpus.source.license_column)
    # What a cell holds counts with the file's own words; nothing but an empty cell is an unknown
    # licence, for which the source's own is assumed.
    header = header_license(row["content"])
    licenses = (header or base.licenses) if stated is None else (*parse_licenses(stated), *header)
    if stated is not None and not parse_licenses(stated):
        licenses = ()
    document = replace(
        base,
        path=_text(row.get(source.path_column)) or "",
        repo=_text(row.get(source.repo_column)) or base.repo,
        language=_text(row.get(source.language_column)),
        licenses=licenses,
        blob_id=_text(row.get(source.blob_id_column)),
        data=row["content"],
    )
    num_bytes = len(row["content"])
    is_large = num_bytes > corpus.max_file_bytes
    if is_large and find_language(document.language, document.path) != NOTEBOOK:
        return replace(_failed(document, OversizedRow(f"{num_bytes} bytes"), corpus), data=None)
    return document


def _read_limit(corpus: CorpusConfig) -> int:
    """Bytes up to which contents are read before it is known what they are."""
    factor = _NOTEBOOK_FACTOR if NOTEBOOK in corpus.languages else 1
    return corpus.max_file_bytes * factor


def _failed(base: Document, error: ValueError, corpus: CorpusConfig) -> Document:
    detail = str(error)
    reason = RejectReason.UNREADABLE
    if isinstance(error, OversizedRow):
        limit = f"max_file_bytes={corpus.max_file_bytes}"
        reason, detail = RejectReason.TOO_LARGE, f"{detail}, {limit}"
    elif isinstance(error, UnicodeDecodeError):
        reason = RejectReason.NOT_UTF8
    return replace(base, reason=reason, detail=detail)


def _require_inside(root: InputFolder, path: InputFile) -> None:
    """Raise UnreadableRow for a link that leads out of the source."""
    if not isinstance(root, Path) or not isinstance(path, Path) or not os.path.islink(path):
        return
    try:
        is_inside = path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError) as error:  # links that lead to each other
        raise UnreadableRow("a link that leads nowhere") from error
    if not is_inside:
        raise UnreadableRow("a link to a file outside of the source")


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
