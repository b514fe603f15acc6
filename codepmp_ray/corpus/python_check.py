"""Whether CPython takes a text. tree-sitter's grammar is made for editors: it takes more.

What compiles here is valid. So is newer syntax of the language (PEP 695, 701, 758) where the
grammar has it and this interpreter does not: it is replaced by older syntax of the same shape, and
that is compiled. Python 2 is told from errors by what the compiler stumbles over.
"""

from __future__ import annotations

import ast
import re
import warnings

from tree_sitter import Node

from codepmp_ray.reject_reasons import RejectReason

# The statement, or the literal, at which Python 3 stops reading.
_PYTHON_2 = re.compile(
    r"""^[ \t]*(?:(?:print|exec)[ \t]+[^=\s.(,]|print[ \t]*>>|raise[ \t]+[\w.]+[ \t]*,
    |except\b[^:#]*,[ \t]*[a-z_]\w*[ \t]*:)|<>|`[^`\n]+`|(?<![\w.])0[0-7]+(?![\w.])
    |(?<![\w.])(?:0[xX][0-9a-fA-F]+|\d+)[lL]\b|\b[uU][rR]["']|\blambda[ \t]*\(
    |\bdef[ \t]+\w+[ \t]*\([^)=]*\(""",
    re.VERBOSE,
)


def python_problem(
    code: str, root: Node, *, is_cell: bool = False
) -> tuple[RejectReason, str] | None:
    """(PARSE_ERROR or PYTHON_2, what the compiler says), or None for a text that it takes.

    Args:
        root: the syntax tree of `code`.
        is_cell: whether `await` may stand outside of functions, as in notebooks.
    """
    error = _compile_error(code, is_cell)
    if error is None or (not root.has_error and _is_newer_syntax(code, root, is_cell)):
        return None
    number = error.lineno or 1
    lines = code.split("\n")
    line = lines[number - 1] if 0 < number <= len(lines) else ""
    # Python 2 counted a tab as eight spaces.
    is_old = isinstance(error, TabError) or _PYTHON_2.search(line) is not None
    reason = RejectReason.PYTHON_2 if is_old else RejectReason.PARSE_ERROR
    return reason, f"line {number}: {error.msg}"


def _compile_error(code: str, is_cell: bool) -> SyntaxError | None:
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT if is_cell else 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escape sequences, comparisons with literals
            compile(code, "<text>", "exec", flags, dont_inherit=True)
    except SyntaxError as error:
        return error
    except (ValueError, OverflowError, RecursionError, MemoryError) as error:
        return SyntaxError(str(error) or type(error).__name__)
    return None


def _is_newer_syntax(code: str, root: Node, is_cell: bool) -> bool:
    source = code.encode()
    older = _in_older_syntax(source, root, 0, len(source))
    return older != source and _compile_error(older.decode(), is_cell) is None


def _in_older_syntax(source: bytes, root: Node, start: int, stop: int) -> bytes:
    """Bytes [start, stop) of `source`, in which `root` lies, with newer constructs replaced."""
    edits: list[tuple[int, int, bytes]] = []
    stack = [root]
    while stack:
        node = stack.pop()
        edit = _older(node, source)
        if edit is None:
            stack.extend(node.children)
        else:
            edits.append(edit)
    parts, end = [], start
    for first, last, text in sorted(edits):
        parts += [source[end:first], text]
        end = last
    return b"".join([*parts, source[end:stop]])


def _older(node: Node, source: bytes) -> tuple[int, int, bytes] | None:
    """(start, stop, text instead) of a node that older versions do not have."""
    span = node.start_byte, node.end_byte
    if node.type == "type_alias_statement":
        return *span, b"pass"
    if node.type == "type_parameter" and node.parent is not None:
        is_new = node.parent.type in ("function_definition", "class_definition")
        return (*span, b"") if is_new else None
    if node.type == "string":  # quotes and line ends inside the braces
        inner = [child for child in node.named_children if child.type == "interpolation"]
        values = [child.child_by_field_name("expression") for child in inner]
        texts = [_in_older_syntax(source, value, *value.byte_range) for value in values if value]
        return (*span, b"(" + b",".join(texts) + b",)") if texts else None
    if node.type == "except_clause":  # PEP 758; Python 2 bound a name there
        kinds = [
            child for child in node.named_children if child.type in ("identifier", "attribute")
        ]
        separators = {child.type for child in node.children if not child.is_named}
        if "," in separators and "as" not in separators and _names_a_class(kinds[-1]):
            start, stop = kinds[0].start_byte, kinds[-1].end_byte
            return start, stop, b"(" + source[start:stop] + b")"
    return None


def _names_a_class(node: Node) -> bool:
    name = (node.text or b"").rpartition(b".")[2]
    return name[:1].isupper()
