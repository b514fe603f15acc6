"""Jupyter notebooks: the Python of their code cells.

A cell is parsed by itself, so that one that does not parse costs no other. Its definitions become
snippets; a cell without any is one snippet of kind `cell`. Lines and spans count in the text that
`join_cells` makes: the code cells in order, one blank line between two.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from codepmp_ray.config.corpus import CorpusConfig
from codepmp_ray.corpus.snippets import Definition, ParseError, extract_definitions, over_limits
from codepmp_ray.reject_reasons import RejectReason

_CELL = "cell"
_SEPARATOR = "\n\n"
# What IPython reads and Python does not: "%magic", "!command", "name?"; a cell that begins with
# "%%" belongs to another program, unless that program only measures it.
_MAGIC_LINE = re.compile(r"^([^\S\n]*)(%|!|\?|\w[\w.]*\?{1,2}[^\S\n]*$)", re.MULTILINE)
_MEASURED = re.compile(r"%%(time|timeit|capture|prun)\b")


class NotebookError(ValueError):
    """The file is no notebook; the message says what is wrong with it."""


class OtherKernelError(NotebookError):
    """The notebook's cells are not Python."""


def code_cells(text: str) -> list[str]:
    """Source of each code cell that is Python, magic lines made comments, "\\n" newlines.

    Notebook formats 3 (cells in worksheets) and 4 (nbformat.readthedocs.io). Raises NotebookError,
    and OtherKernelError for notebooks of another language.
    """
    try:
        notebook = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NotebookError(f"not JSON ({' '.join(str(error).split())[:200]})") from error
    if not isinstance(notebook, dict):
        raise NotebookError("not a JSON object")
    language = _language(notebook.get("metadata"))
    if language and language not in ("python", "ipython", "python3", "python2"):
        raise OtherKernelError(f"its cells are {language}")
    cells = notebook.get("cells")
    if cells is None:
        sheets = notebook.get("worksheets")
        sheets = [s for s in sheets if isinstance(s, dict)] if isinstance(sheets, list) else []
        parts = [sheet.get("cells") for sheet in sheets]
        cells = [cell for part in parts if isinstance(part, list) for cell in part]
        if not parts:
            raise NotebookError("it has no list of cells")
    if not isinstance(cells, list):
        raise NotebookError("its cells are no list")
    sources = (_source(cell) for cell in cells)
    return [_as_python(source) for source in sources if source is not None and source.strip()]


def join_cells(cells: list[str]) -> str:
    """The text that lines and spans of a notebook's snippets count in."""
    return _SEPARATOR.join(cells)


def extract_cells(cells: list[str], limits: CorpusConfig) -> list[Definition]:
    """Definitions and whole cells, of `code_cells`; a cell that does not parse has its reason."""
    found: list[Definition] = []
    first_line, first_byte = 1, 0
    for number, cell in enumerate(cells, start=1):
        for definition in _extract_cell(cell, number, limits):
            start, stop = definition.span
            found.append(
                replace(
                    definition,
                    start_line=definition.start_line + first_line - 1,
                    end_line=definition.end_line + first_line - 1,
                    span=(start + first_byte, stop + first_byte),
                )
            )
        first_line += cell.count("\n") + _SEPARATOR.count("\n")
        first_byte += len(cell.encode("utf-8", "surrogatepass")) + len(_SEPARATOR)
    return found


def _extract_cell(cell: str, number: int, limits: CorpusConfig) -> Iterator[Definition]:
    num_lines = cell.count("\n") + 1
    try:
        size = len(cell.encode())
    except UnicodeEncodeError as error:  # JSON can spell half of a surrogate pair
        reason, detail = RejectReason.NOT_UTF8, f"cell {number}: {error.reason}"
        yield Definition(_CELL, f"cell {number}", 1, num_lines, (0, 1), "", reason, detail)
        return
    whole = Definition(_CELL, f"cell {number}", 1, num_lines, (0, size), cell)
    try:
        definitions = extract_definitions(cell, "python", limits)
    except ParseError as error:
        detail = f"cell {number}: {error}"
        yield replace(whole, reason=RejectReason.PARSE_ERROR, detail=detail)
        return
    if not definitions:
        reason, detail = over_limits(cell, num_lines, limits)
        definitions = [replace(whole, reason=reason, detail=detail)]
    yield from definitions


def _language(metadata: Any) -> str | None:
    """What the notebook says its cells are in, in lower case; None if it does not."""
    if not isinstance(metadata, dict):
        return None
    for section, key in (("language_info", "name"), ("kernelspec", "language")):
        part = metadata.get(section)
        value = part.get(key) if isinstance(part, dict) else None
        if isinstance(value, str) and value:
            return value.lower()
    return None


def _source(cell: Any) -> str | None:
    """The text of a code cell, None for other cells. Raises NotebookError if it has none."""
    if not isinstance(cell, dict):
        raise NotebookError("a cell is no JSON object")
    if cell.get("cell_type") != "code":
        return None
    source = cell.get("source", cell.get("input"))
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        source = "".join(source)
    if not isinstance(source, str):
        raise NotebookError("a code cell has no text")
    return source.replace("\r\n", "\n").replace("\r", "\n")


def _as_python(source: str) -> str:
    source = source.strip("\n").rstrip()
    if source.lstrip().startswith("%%") and not _MEASURED.match(source.lstrip()):
        return "\n".join(f"# {line}" for line in source.split("\n"))
    return _MAGIC_LINE.sub(r"\1# \2", source)
