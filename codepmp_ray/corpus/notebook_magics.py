"""Cells of IPython as Python: magics, commands of the shell, help.

IPython's own transformers find them by tokens, so that nothing inside strings, brackets or
continued lines is taken for one. What stands alone (`%matplotlib inline`, `!pip install x`, `f?`)
becomes a comment; what is assigned (`files = !ls`) becomes the call that IPython makes of it.
"""

from __future__ import annotations

import re
import tokenize
from functools import cache
from typing import Any

# A cell whose first line begins with "%%" belongs to the program named there, unless that only
# looks at the Python below.
_CELL_MAGIC = re.compile(r"\s*%%([\w.]+)")
_OF_PYTHON = re.compile(
    r"time|timeit|capture|prun|python\d?|pypy|pyspark|debug|memit|mprun|lprun|heat|wandb|local|px"
    r"|ipytest|snakeviz|scalene|cache"
)
# Databricks: one "%" hands over the whole cell. With words behind it `%sql` is IPython's.
_DATABRICKS = re.compile(r"\s*%(?:(md|scala|sh|fs|r|html)\b|(sql)[ \t]*(?:\n|\Z))")
# Without one of these no line of a cell is IPython's.
_HINT = re.compile(r"\A[ \t]|^[ \t]*[%!?,;/]|=[ \t]*[%!]|\?[ \t]*$|^(?:>>>|In \[)", re.MULTILINE)
# IPython reads a cell anew for each thing that it finds.
_MAX_CHARS_READ = 20_000_000


def other_program(cell: str) -> str:
    """The program that the cell's magic hands its text to ("bash", "writefile"); "" for Python."""
    if match := _DATABRICKS.match(cell):
        return match[1] or match[2]
    match = _CELL_MAGIC.match(cell)
    return match[1] if match and not _OF_PYTHON.fullmatch(match[1]) else ""


def as_python(cell: str) -> str:
    """The cell as Python; as it is where IPython itself cannot make sense of it."""
    num_hints = sum(1 for _ in _HINT.finditer(cell))
    if not num_hints or num_hints * len(cell) > _MAX_CHARS_READ:
        return cell
    lines = [f"{line}\n" for line in cell.split("\n")]
    if _CELL_MAGIC.match(cell):
        lines = [f"# {line}" if line.lstrip().startswith("%%") else line for line in lines]
    manager = _manager()
    try:
        for cleanup in manager.cleanup_transforms:  # indentation and prompts that were copied along
            lines = cleanup(lines)
        return "".join(manager.do_token_transforms(lines)).rstrip("\n")
    except (RuntimeError, SyntaxError, ValueError, IndexError, tokenize.TokenError):
        return cell


@cache
def _manager() -> Any:
    # Imported where a notebook needs it: it takes half a second.
    from IPython.core import inputtransformer2 as ipython

    class Command(ipython.EscapedCommand):
        """`%magic` and `!command`, which may go on over several lines."""

        def transform(self, lines: list[str]) -> list[str]:
            if lines[self.start_line][self.start_col] in ",;/":  # calls without brackets
                return super().transform(lines)
            end = ipython.find_end_of_continued_line(lines, self.start_line)
            return _commented(lines, self.start_line, self.start_col, end)

    class Help(ipython.HelpEnd):
        """`name?`"""

        def transform(self, lines: list[str]) -> list[str]:
            super().transform(lines)  # refuses what is no help
            return _commented(lines, self.start_line, self.start_col, self.q_line)

    manager = ipython.TransformerManager()
    own = {ipython.EscapedCommand: Command, ipython.HelpEnd: Help}
    manager.token_transformers = [own.get(kind, kind) for kind in manager.token_transformers]
    return manager


def _commented(lines: list[str], start: int, column: int, end: int) -> list[str]:
    """`lines` with those from `start` to `end` as comments; a block keeps a statement."""
    indent = lines[start][:column]
    comments = [f"{indent}# {line.lstrip()}" for line in lines[start : end + 1]]
    if indent:
        comments[0] = f"{indent}pass  # {lines[start].lstrip()}"
    return [*lines[:start], *comments, *lines[end + 1 :]]
