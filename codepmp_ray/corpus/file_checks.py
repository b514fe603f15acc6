"""From the bytes of a file to its definitions, or the reason why the file leaves as a whole."""

from __future__ import annotations

import codecs
import hashlib
from functools import partial

from codepmp_ray.config.corpus import CorpusConfig
from codepmp_ray.corpus.documents import Document
from codepmp_ray.corpus.filters import FILE_FILTERS, CodeText, refusal
from codepmp_ray.corpus.filters.opt_out import load_opt_out
from codepmp_ray.corpus.languages import NOTEBOOK, find_language
from codepmp_ray.corpus.licenses import license_refusal
from codepmp_ray.corpus.notebooks import (
    NotebookError,
    OtherKernelError,
    code_cells,
    extract_cells,
    join_cells,
)
from codepmp_ray.corpus.snippets import Definition, ParseError, extract_definitions
from codepmp_ray.reject_reasons import RejectReason


class FileRefusal(Exception):
    """A file leaves as a whole."""

    def __init__(self, source_id: str | None, reason: RejectReason, detail: str) -> None:
        super().__init__(detail)
        self.source_id, self.reason, self.detail = source_id, reason, detail


def read_definitions(
    document: Document, corpus: CorpusConfig, purged: frozenset[str] = frozenset()
) -> tuple[str, str, list[Definition]]:
    """(source id, language, definitions) of a file. Raises FileRefusal.

    `purged` are names (`filters.opt_out.plain_name`) that were purged from the run before.
    """
    opted_out = load_opt_out(corpus.filters.opt_out_path).also(purged)
    if document.data is None:
        reason = document.reason or RejectReason.UNREADABLE
        raise FileRefusal(None, reason, document.detail)
    source_id = hashlib.sha256(document.data).hexdigest()[:32]
    refuse = partial(FileRefusal, source_id)
    ids = (document.blob_id, source_id, document.git_id if opted_out.entries else None)
    if entries := opted_out.match(document.repo, document.path, *ids):
        raise refuse(RejectReason.OPTED_OUT, f"the opt-out list has {', '.join(sorted(entries))}")
    text, reason, detail = _decode(document.data)
    if reason is not None:
        raise refuse(reason, detail)
    language = find_language(document.language, document.path, document.data)
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
            if (size := len(text.encode("utf-8", "surrogatepass"))) > corpus.max_file_bytes:
                limit = f"max_file_bytes={corpus.max_file_bytes}"
                raise refuse(RejectReason.TOO_LARGE, f"{size} bytes of code, {limit}")
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
        raise refuse(error.reason, str(error)) from error
    if not definitions:
        raise refuse(
            RejectReason.NO_SNIPPET, "no class with a name and no function with a name and a body"
        )
    return source_id, language, definitions


def _decode(data: bytes) -> tuple[str, RejectReason | None, str]:
    """(text with "\\n" newlines and without byte order mark, reason, detail)."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "", RejectReason.NOT_UTF8, "UTF-16 by its byte order mark"
    if (position := data.find(b"\0")) >= 0:
        return "", RejectReason.BINARY, f"NUL at byte {position}"
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return "", RejectReason.NOT_UTF8, f"{error.reason} at byte {error.start}"
    if not text.strip():
        return "", RejectReason.EMPTY, f"{len(data)} bytes"
    return text.replace("\r\n", "\n").replace("\r", "\n"), None, ""
