"""Functions and classes of one source text, found by a maintained parser (tree-sitter).

The rule, the same for every language:
- A definition at the top level, or inside blocks and conditions there, is a snippet, with its
  decorators, attributes and the documentation right above it.
- A class that fits the limits is one snippet, its methods included. A class that is too long is
  rejected as such and looked into: its methods and inner classes become snippets of their own
  (down to _MAX_DEPTH classes in one another, which no person writes). Objects of functions are
  classes, too.
- Functions inside functions belong to their parent: alone, they would miss its variables. In
  JavaScript functions are modules, too: one that is too long, or has no name because it is called
  at once or handed to a call, is looked into. If nothing is found there, it is rejected as
  anonymous.
So no line of a file is in two snippets, and a pair never shows half of another pair.

Snippets stand alone: the indentation of a method is removed from each of its lines, except inside
string literals, where it would change a value (documentation strings are moved with the code).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tree_sitter import Node, QueryCursor

from codepmp_ray.config.corpus import CorpusConfig
from codepmp_ray.corpus.definition_nodes import (
    Found,
    beginnings,
    body_of,
    definition_at,
    handed_functions,
    is_open,
    num_rows,
)
from codepmp_ray.corpus.hidden_words import hidden_head
from codepmp_ray.corpus.language_specs import LANGUAGES, LanguageSpec
from codepmp_ray.corpus.languages import (
    first_error,
    fixed_text_query,
    is_valid,
    parse,
    parse_inside,
)
from codepmp_ray.corpus.python_check import python_problem
from codepmp_ray.reject_reasons import RejectReason

# Each level of long classes is cut out of the text once more: without an end, a file of nothing
# but "class A {" would take hours.
_MAX_DEPTH = 20
# JavaScript with types, which is a language of its own.
_FLOW = re.compile(r"^[\s/*]*@flow\b", re.MULTILINE)
_HEAD_CHARS = 4_000


@dataclass(frozen=True)
class Definition:
    """One function or class. `reason` is None for a snippet; otherwise `detail` explains it.

    Lines are 1-based and inclusive; `span` is the half-open range of UTF-8 bytes in the text.
    `name` is qualified by the classes around it.
    """

    kind: str
    name: str
    start_line: int
    end_line: int
    span: tuple[int, int]
    code: str
    reason: RejectReason | None = None
    detail: str = ""


class ParseError(ValueError):
    """The text is not valid in its language; the message names the first bad line."""

    def __init__(self, message: str, reason: RejectReason = RejectReason.PARSE_ERROR) -> None:
        super().__init__(message)
        self.reason = reason


def extract_definitions(
    text: str, language: str, limits: CorpusConfig, *, is_cell: bool = False
) -> list[Definition]:
    """Definitions of `text` (newlines are "\\n") in order of appearance, limits applied.

    Raises ParseError when the text as a whole does not parse: the borders that an error-tolerant
    parser then guesses are not to be trusted, and what it takes in spite of an error is none.
    Languages with macros are the exception: there each definition has to parse by itself, and the
    text is refused if it has none.
    """
    source = text.encode("utf-8")
    root = parse(source, language)
    spec = LANGUAGES[language]
    found = list(_walk(root, source, spec, limits)) if spec.has_macros or not root.has_error else []
    if root.has_error and all(definition.kind == _ERROR for definition in found):
        raise _parse_error(text, root, language, is_cell)
    if language == "python":
        is_kept = any(definition.reason is None for definition in found) or (is_cell and not found)
        if is_kept and python_problem(text, root, is_cell=is_cell):
            raise _parse_error(text, root, language, is_cell)
    return found


def _parse_error(text: str, root: Node, language: str, is_cell: bool) -> ParseError:
    problem = python_problem(text, root, is_cell=is_cell) if language == "python" else None
    if problem is not None:
        reason, said = problem
        return ParseError(said.replace(":", " is not valid python:", 1), reason)
    place = f"line {first_error(root).start_point.row + 1} is not valid {language}"
    if language == "javascript" and _FLOW.search(text[:_HEAD_CHARS]):
        return ParseError(f"{place}: the file says that it is Flow", RejectReason.UNKNOWN_LANGUAGE)
    return ParseError(place)


# What begins a definition inside of a macro's braces.
_ITEM = re.compile(rb"(?m)^[ \t]*(?:pub\b.*)?(?:\w+[ \t]+)*(?:fn|impl|trait|struct|enum|union)\b")
# Kind of what stands for a stretch of text in which no definition can be seen for errors.
_ERROR = "error"


@dataclass(frozen=True)
class _Anonymous:
    """A function without a name, once what is inside it has been looked at."""

    node: Node
    num_before: int


def _walk(
    root: Node, source: bytes, spec: LanguageSpec, limits: CorpusConfig
) -> Iterator[Definition]:
    text = _Text(source, spec, limits, root)
    num_found = 0
    # Not recursive: input may be nested deeply. `outer` are the names of the classes around.
    stack: list[tuple[Node, tuple[str, ...], int] | _Anonymous] = [(root, (), 0)]
    while stack:
        item = stack.pop()
        if isinstance(item, _Anonymous):
            if num_found == item.num_before and num_rows(item.node) >= limits.min_lines:
                num_found += 1
                detail = "a function without a name, handed to a call"
                yield text.refused(item.node, "function", RejectReason.ANONYMOUS, detail)
            continue
        node, outer, num_macros = item
        if (found := definition_at(node, spec, limits.min_lines)) is not None:
            num_found += 1
            definition = text.definition(found, outer)
            yield definition
            is_too_long = definition.reason is RejectReason.TOO_LONG
            if is_too_long and found.inside is not None and len(outer) < _MAX_DEPTH:
                stack.append((found.inside, (*outer, found.name), num_macros))
        elif node.type in spec.values:
            body = body_of(node)
            stack.append(_Anonymous(node, num_found))
            if body is not None:
                stack.append((body, outer, num_macros))
        elif node.type in spec.macros:
            inside = text.inside_of_macro(node) if num_macros < _MAX_DEPTH else None
            if inside is not None and not inside.has_error:
                stack.append((inside, outer, num_macros + 1))
            elif inside is not None and num_rows(node) >= limits.min_lines:
                detail = "a macro's own syntax around definitions"
                yield text.refused(node, _ERROR, RejectReason.PARSE_ERROR, detail)
        elif node.type in spec.bodies and num_rows(node) >= limits.min_lines:
            detail = "a body behind what is no head of a function"
            yield text.refused(node, _ERROR, RejectReason.PARSE_ERROR, detail)
        elif is_open(node, spec):
            if node.is_error and num_rows(node) >= limits.min_lines and node != root:
                detail = f"is not valid {spec.name}"
                yield text.refused(node, _ERROR, RejectReason.PARSE_ERROR, detail)
            children = reversed(node.named_children)
            stack.extend((child, outer, num_macros) for child in children)
        else:
            handed = handed_functions(node, spec, limits.min_lines)
            stack.extend((inside, outer, num_macros) for inside in handed)


@dataclass(frozen=True)
class _Text:
    """The text that definitions are cut out of, and its tree."""

    source: bytes
    spec: LanguageSpec
    limits: CorpusConfig
    root: Node

    def definition(self, found: Found, outer: tuple[str, ...]) -> Definition:
        head = self._head(found.node)
        first, attribute = (
            head if node == found.node else (node.start_byte, node.start_point.row)
            for node in beginnings(found.node, self.spec, head[1])
        )
        definition = self._cut(found, first, outer)
        if definition.reason is RejectReason.TOO_LONG and first != attribute:
            definition = self._cut(found, attribute, outer)  # without its documentation
        return definition

    def _head(self, node: Node) -> tuple[int, int]:
        """(byte, 0-based row) where `node` begins with the words hidden from the parser."""
        end = node.start_byte
        if not self.spec.has_macros:
            return end, node.start_point.row
        start = hidden_head(self.source, self.root.text or b"", self.root.start_byte, end)
        return start, node.start_point.row - self.source.count(b"\n", start, end)

    def inside_of_macro(self, node: Node) -> Node | None:
        """The tree of what is in a macro's braces, if definitions are."""
        braces = node.children[-1]
        if len(braces.children) < 2 or not _ITEM.search(braces.text or b""):
            return None
        return parse_inside(self.source, braces, self.spec.name)

    def refused(self, node: Node, kind: str, reason: RejectReason, detail: str) -> Definition:
        start, end = node.start_point.row + 1, node.end_point.row + 1
        return Definition(kind, "?", start, end, node.byte_range, "", reason, detail)

    def _is_cut(self, node: Node, start: int) -> bool:
        """Whether the beginning of `node` may be in what could not be read before it."""
        before = node.prev_sibling
        if before is None or not before.has_error or before.type.startswith("preproc"):
            return False
        return before.end_byte <= start and not (before.text or b"").rstrip().endswith((b";", b"}"))

    def _cut(self, found: Found, start: tuple[int, int], outer: tuple[str, ...]) -> Definition:
        # C: the ";" after a struct stands beside it.
        ending = found.node.next_sibling
        is_ended = ending is not None and ending.type == ";"
        end_byte = ending.end_byte if ending is not None and is_ended else found.node.end_byte
        start_byte, first_row = start
        raw = self.source[start_byte:end_byte].rstrip()
        num_lines = 1 + raw.count(b"\n")
        indent = self.source[self.source.rfind(b"\n", 0, start_byte) + 1 : start_byte]
        dedented, is_even = _dedent(raw, indent, first_row, found.node, self.spec)
        code = found.prefix + dedented.decode("utf-8")
        reason, detail = over_limits(code, num_lines, self.limits)
        # The second parse is for what moved against the rest, or stood beside an error.
        is_suspect = not is_even or self.root.has_error or (self.spec.has_macros and b"#" in raw)
        if reason is None and (
            self._is_cut(found.node, start_byte)
            or (is_suspect and not is_valid(code, self.spec.name))
        ):
            reason = RejectReason.PARSE_ERROR
            moved = ", its indentation removed" if not is_even else ""
            detail = f"is not valid {self.spec.name} by itself{moved}"
        return Definition(
            kind=found.kind,
            name=".".join((*outer, found.name)),
            start_line=first_row + 1,
            end_line=first_row + num_lines,
            span=(start_byte, start_byte + len(raw)),
            code=code,
            reason=reason,
            detail=detail,
        )


def over_limits(code: str, num_lines: int, limits: CorpusConfig) -> tuple[RejectReason | None, str]:
    """(reason, detail) if the configured bounds on lines and characters are broken."""
    if num_lines < limits.min_lines:
        return RejectReason.TOO_SHORT, f"{num_lines} lines, min_lines={limits.min_lines}"
    if num_lines > limits.max_lines:
        return RejectReason.TOO_LONG, f"{num_lines} lines, max_lines={limits.max_lines}"
    if len(code) > limits.max_chars:
        return RejectReason.TOO_LONG, f"{len(code)} characters, max_chars={limits.max_chars}"
    return None, ""


def _dedent(
    raw: bytes, indent: bytes, first_row: int, node: Node, spec: LanguageSpec
) -> tuple[bytes, bool]:
    """`raw` without `indent` before each line that does not start inside a literal, and whether
    each such line had it: then the code means the same as before."""
    if not indent or indent.strip():
        return raw, not indent
    lines, fixed = raw.split(b"\n"), _fixed_lines(node, spec)
    is_even = True
    for i in range(1, len(lines)):
        if first_row + i not in fixed:
            if lines[i].startswith(indent):
                lines[i] = lines[i][len(indent) :]
            elif lines[i].strip():
                is_even = False
            else:
                lines[i] = b""
    return b"\n".join(lines), is_even


def _fixed_lines(node: Node, spec: LanguageSpec) -> set[int]:
    """Rows (0-based) whose first character lies inside a literal that must keep its text."""
    captures = QueryCursor(fixed_text_query(spec.name)).captures(node)
    free = {text.id for text in captures.get("free", [])}
    rows: set[int] = set()
    for text in captures.get("text", []):
        if text.id not in free:
            rows.update(range(text.start_point.row + 1, text.end_point.row + 1))
    return rows
