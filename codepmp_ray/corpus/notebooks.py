"""Jupyter notebooks: the Python of their code cells.

A cell is parsed by itself, so that one that does not parse costs no other. Its definitions become
snippets; a cell without any is one snippet of kind `cell`. Lines and spans count in the text that
`join_cells` makes: the code cells in order, one blank line between two.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from codepmp_ray.config.corpus import CorpusConfig
from codepmp_ray.corpus.notebook_magics import as_python, other_program
from codepmp_ray.corpus.snippets import Definition, ParseError, extract_definitions, over_limits
from codepmp_ray.reject_reasons import RejectReason

_CELL = "cell"
_SEPARATOR = "\n\n"
_PYTHON = re.compile(r"(i|x)?python[\d. ]*|pyspark3?", re.IGNORECASE)
# Kernels whose notebooks often leave the language out: words that nobody gives to an environment of
# Python, ...
_OTHER_KERNEL = re.compile(
    r"ir|julia|i?ruby|bash|zsh|javascript|nodejs|typescript|deno|sage(?:math)?|octave|matlab|scala"
    r"|spylon|toree|almond|i?java|kotlin|groovy|clojure|csharp|fsharp|powershell|gophernotes|gonb"
    r"|evcxr|x?cpp|i?haskell|i?perl|lua|php|sql|stata|sas|maxima"
)
# ... and words that are another language's if the kernel is called that and nothing else.
_OTHER_NAME = re.compile(r"(r|c|go|net|rust)(?:[ _-]?kernel)?[ -]?[\d.]*|\.(net)\b.*")
# Lines that are no Python anybody writes, in notebooks that name neither language nor kernel.
_LOOKS_OTHER = {
    "r": re.compile(r"^(?:library\([\w.\"']+\)|[A-Za-z][\w.]* <- )", re.MULTILINE),
    "julia": re.compile(r"^(?:using [A-Z]\w*(?:, [A-Z]\w*)*|end)[ \t]*;?$", re.MULTILINE),
}
_CONDA_KERNEL = re.compile(r"conda-(?:env-.+|root)-(\w+)|(.+?) \[conda .*\]")


class NotebookError(ValueError):
    """The file is no notebook; the message says what is wrong with it."""


class OtherKernelError(NotebookError):
    """The notebook's cells are not Python."""


@dataclass(frozen=True)
class Cell:
    """Code of one cell, magics made Python; `other` names the program that it is for instead, and
    `problem` says why it has no text."""

    code: str
    other: str = ""
    problem: str = ""


def code_cells(text: str) -> list[Cell]:
    """Each code cell that is not blank, "\\n" newlines.

    Notebook formats 3 (cells in worksheets) and 4 (nbformat.readthedocs.io). Raises NotebookError,
    and OtherKernelError for notebooks of another language.
    """
    try:
        notebook = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NotebookError(f"not JSON ({' '.join(str(error).split())[:200]})") from error
    if not isinstance(notebook, dict):
        raise NotebookError("not a JSON object")
    metadata = notebook.get("metadata")
    if (language := _language(metadata)) and not _PYTHON.fullmatch(language):
        raise OtherKernelError(f"its cells are {language}")
    found = [cell for raw in _raw_cells(notebook) if (cell := _cell(raw)) is not None]
    readable = [cell for cell in found if not cell.problem]
    if found and not readable:
        raise NotebookError(f"cell 1: {found[0].problem}")
    if readable and all(cell.other for cell in readable):
        raise OtherKernelError(f"its cells are {readable[0].other}")
    if not language and not (isinstance(metadata, dict) and metadata.get("kernelspec")):
        own = "\n".join(cell.code for cell in readable if not cell.other)
        for name, line in _LOOKS_OTHER.items():
            if match := line.search(own):
                raise OtherKernelError(f"its cells look like {name}: {match[0].strip()}")
    return found


def join_cells(cells: list[Cell]) -> str:
    """The text that lines and spans of a notebook's snippets count in."""
    return _SEPARATOR.join(cell.code for cell in cells)


def extract_cells(cells: list[Cell], limits: CorpusConfig) -> list[Definition]:
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
        first_line += cell.code.count("\n") + _SEPARATOR.count("\n")
        first_byte += len(cell.code.encode("utf-8", "surrogatepass")) + len(_SEPARATOR)
    return found


def _extract_cell(cell: Cell, number: int, limits: CorpusConfig) -> Iterator[Definition]:
    code, num_lines = cell.code, cell.code.count("\n") + 1
    try:
        size = len(code.encode())
    except UnicodeEncodeError as error:  # JSON can spell half of a surrogate pair
        reason, detail = RejectReason.NOT_UTF8, f"cell {number}: {error.reason}"
        yield Definition(_CELL, f"cell {number}", 1, num_lines, (0, 1), "", reason, detail)
        return
    whole = Definition(_CELL, f"cell {number}", 1, num_lines, (0, size), code)
    if cell.problem:
        detail = f"cell {number}: {cell.problem}"
        yield replace(whole, reason=RejectReason.BAD_NOTEBOOK, detail=detail)
        return
    if cell.other:
        detail = f"cell {number} is for {cell.other}"
        yield replace(whole, reason=RejectReason.UNKNOWN_LANGUAGE, detail=detail)
        return
    try:
        definitions = extract_definitions(code, "python", limits, is_cell=True)
    except ParseError as error:
        yield replace(whole, reason=error.reason, detail=f"cell {number}: {error}")
        return
    if not definitions:
        reason, detail = over_limits(code, num_lines, limits)
        definitions = [replace(whole, reason=reason, detail=detail)]
    yield from definitions


def _raw_cells(notebook: dict[str, Any]) -> list[Any]:
    cells = notebook.get("cells")
    if cells is None:
        sheets = notebook.get("worksheets")
        sheets = [s for s in sheets if isinstance(s, dict)] if isinstance(sheets, list) else []
        parts = [sheet.get("cells") for sheet in sheets]
        if not parts:
            raise NotebookError("it has no list of cells")
        return [cell for part in parts if isinstance(part, list) for cell in part]
    if not isinstance(cells, list):
        raise NotebookError("its cells are no list")
    return cells


def _language(metadata: Any) -> str | None:
    """What the notebook says its cells are in, in lower case; None if it does not."""
    if not isinstance(metadata, dict):
        return None
    info, kernel = metadata.get("language_info"), metadata.get("kernelspec")
    paired = metadata.get("jupytext")  # made from a script
    places = ((info, "name"), (kernel, "language"), (metadata, "language"))
    for part, key in (*places, (paired, "main_language")):
        value = part.get(key) if isinstance(part, dict) else None
        if isinstance(value, str) and value:
            return value.lower()
    extension = info.get("file_extension") if isinstance(info, dict) else None
    if isinstance(extension, str) and extension.lower() not in ("", ".py"):
        return extension.lower()
    return _kernel_language(kernel) if isinstance(kernel, dict) else None


def _kernel_language(kernel: dict[str, Any]) -> str | None:
    given = [kernel.get(key) for key in ("name", "display_name")]
    names = [name.lower() for name in given if isinstance(name, str)]
    # Environments may be called anything: which kernel runs in them stands beside their names.
    plain = [next(filter(None, m.groups())) if (m := _CONDA_KERNEL.fullmatch(name)) else name
             for name in names]  # fmt: skip
    words = re.findall(r"[a-z]+", " ".join(plain))
    if "python" in words or "py" in plain:
        return None
    for name in plain:
        if match := _OTHER_NAME.fullmatch(name):
            return match[1] or match[2]
    return next((word for word in words if _OTHER_KERNEL.fullmatch(word)), None)


def _cell(cell: Any) -> Cell | None:
    """A code cell that holds something, None for others."""
    if not isinstance(cell, dict):
        return Cell("", problem="is no JSON object")
    source = cell.get("source", cell.get("input"))
    if cell.get("cell_type") != "code" or source is None:
        return None
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        source = "".join(source)
    if not isinstance(source, str):
        return Cell("", problem="its source is no text")
    source = source.replace("\r\n", "\n").replace("\r", "\n").strip("\n").rstrip()
    if not source.strip():
        return None
    if other := _own_language(cell) or other_program(source):
        return Cell(source, other)
    return Cell(as_python(source))


def _own_language(cell: dict[str, Any]) -> str:
    """The language that a cell is marked with, if it is not Python; "" for others."""
    found: list[Any] = [cell.get("language")]  # format 3
    metadata = cell.get("metadata")
    if isinstance(metadata, dict):  # Visual Studio Code, Polyglot Notebooks, SoS
        places = (("vscode", "languageId"), ("dotnet_interactive", "language"),
                  ("polyglot_notebook", "kernelName"))  # fmt: skip
        parts = [(metadata.get(name), key) for name, key in places]
        found += [part.get(key) for part, key in parts if isinstance(part, dict)]
        found.append(metadata.get("kernel"))
    names = [name.lower() for name in found if isinstance(name, str) and name]
    return next((name for name in names if not _PYTHON.fullmatch(name)), "")
