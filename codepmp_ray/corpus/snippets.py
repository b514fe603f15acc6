"""Functions and classes of one source text, found by a maintained parser (tree-sitter).

The rule, the same for every language:
- A definition at the top level, or inside blocks and conditions there, is a snippet, with its
  decorators.
- A class that fits the limits is one snippet, its methods included. A class that is too long is
  rejected as such and looked into: its methods and inner classes become snippets of their own
  (down to _MAX_DEPTH classes in one another, which no person writes).
- Functions inside functions belong to their parent: alone, they would miss its variables.
So no line of a file is in two snippets, and a pair never shows half of another pair.

Snippets stand alone: the indentation of a method is removed from each of its lines, except inside
string literals, where it would change a value (documentation strings are moved with the code).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from tree_sitter import Node, QueryCursor

from codepmp_ray.config.corpus import CorpusConfig
from codepmp_ray.corpus.language_specs import LANGUAGES, LanguageSpec
from codepmp_ray.corpus.languages import fixed_text_query, parser_for
from codepmp_ray.reject_reasons import RejectReason

# Each level of long classes is cut out of the text once more: without an end, a file of nothing
# but "class A {" would take hours.
_MAX_DEPTH = 20


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


def extract_definitions(text: str, language: str, limits: CorpusConfig) -> list[Definition]:
    """Definitions of `text` (newlines are "\\n") in order of appearance, limits applied.

    Raises ParseError when the text as a whole does not parse: the borders that an error-tolerant
    parser then guesses are not to be trusted. Languages with macros are the exception: there each
    definition has to parse by itself, and the text is refused if it has none.
    """
    source = text.encode("utf-8")
    root = parser_for(language).parse(source).root_node
    spec = LANGUAGES[language]
    found = list(_walk(root, source, spec, limits)) if spec.has_macros or not root.has_error else []
    if root.has_error and not found:
        raise ParseError(f"line {_first_error(root).start_point.row + 1} is not valid {language}")
    return found


def _walk(
    root: Node, source: bytes, spec: LanguageSpec, limits: CorpusConfig
) -> Iterator[Definition]:
    fixed_lines = cache(lambda: _fixed_lines(root, spec))  # only what is indented asks for it
    # Not recursive: input may be nested deeply. `outer` are the names of the classes around.
    stack: list[tuple[Node, tuple[str, ...]]] = [(root, ())]
    while stack:
        node, outer = stack.pop()
        inner = _unwrap(node, spec)
        if inner is not None and _is_definition(inner, spec):
            prefix = "".join(f"{name}." for name in outer)
            definition = _define(
                node, inner, prefix, source, spec, fixed_lines, limits, root.has_error
            )
            yield definition
            is_long_class = (
                definition.kind == "class" and definition.reason is RejectReason.TOO_LONG
            )
            body = inner.child_by_field_name("body") if is_long_class else None
            if body is not None and len(outer) < _MAX_DEPTH:
                stack.append((body, (*outer, _name_of(inner))))
        elif node.type in spec.containers or node.type in spec.wrappers or node.is_error:
            stack.extend((child, outer) for child in reversed(node.named_children))


def _unwrap(node: Node, spec: LanguageSpec) -> Node | None:
    """The node inside the wrappers around it (decorators, exports); `node` if it is none."""
    inner: Node | None = node
    while inner is not None and (field := spec.wrappers.get(inner.type)) is not None:
        if field:
            inner = inner.child_by_field_name(field)
            continue
        children = inner.named_children
        # Several definitions in one statement are looked into one by one.
        several = len({child.type for child in children}) < len(children)
        inner = None if several or not children else children[-1]
    return inner


def _is_definition(node: Node, spec: LanguageSpec) -> bool:
    if node.type not in spec.definitions:
        return False
    if node.type not in spec.required:
        return True
    field, types = spec.required[node.type]
    value = node.child_by_field_name(field)
    return value is not None and (not types or value.type in types)


def _name_of(node: Node) -> str:
    name = node.child_by_field_name("name")
    declarator = node.child_by_field_name("declarator")
    while name is None and declarator is not None:
        name_or_none = declarator.child_by_field_name("declarator")
        if name_or_none is None:
            name = declarator
        declarator = name_or_none
    name = name or node.child_by_field_name("type")
    return name.text.decode("utf-8") if name is not None and name.text else "?"


def _define(
    node: Node,
    inner: Node,
    outer: str,
    source: bytes,
    spec: LanguageSpec,
    fixed_lines: Callable[[], set[int]],
    limits: CorpusConfig,
    root_has_error: bool,
) -> Definition:
    # C: the ";" after a struct stands beside it.
    ending = node.next_sibling
    end_byte = ending.end_byte if ending is not None and ending.type == ";" else node.end_byte
    raw = source[node.start_byte : end_byte].rstrip()
    first_row = node.start_point.row
    end_line = first_row + 1 + raw.count(b"\n")
    indent = source[node.start_byte - node.start_point.column : node.start_byte]
    dedented, is_even = _dedent(raw, indent, first_row, fixed_lines)
    code = dedented.decode("utf-8")
    reason, detail = over_limits(code, end_line - first_row, limits)
    # The second parse is for what moved against the rest, or stood beside an error.
    is_suspect = not is_even or root_has_error
    if reason is None and (
        inner.has_error or (is_suspect and _parse_fails(code, spec, bool(outer)))
    ):
        reason = RejectReason.PARSE_ERROR
        detail = f"is not valid {spec.name} by itself, its indentation removed"
    return Definition(
        kind=spec.definitions[inner.type],
        name=outer + _name_of(inner),
        start_line=first_row + 1,
        end_line=end_line,
        span=(node.start_byte, node.start_byte + len(raw)),
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
    raw: bytes, indent: bytes, first_row: int, fixed_lines: Callable[[], set[int]]
) -> tuple[bytes, bool]:
    """`raw` without `indent` before each line that does not start inside a literal, and whether
    each such line had it: then the code means the same as before."""
    if not indent or indent.strip():
        return raw, not indent
    lines, fixed = raw.split(b"\n"), fixed_lines()
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


def _fixed_lines(root: Node, spec: LanguageSpec) -> set[int]:
    """Rows (0-based) whose first character lies inside a literal that must keep its text."""
    captures = QueryCursor(fixed_text_query(spec.name)).captures(root)
    free = {node.id for node in captures.get("free", [])}
    rows: set[int] = set()
    for node in captures.get("text", []):
        if node.id not in free:
            rows.update(range(node.start_point.row + 1, node.end_point.row + 1))
    return rows


def _parse_fails(code: str, spec: LanguageSpec, is_member: bool) -> bool:
    before, after = spec.member_frame if is_member else ("", "")
    text = f"{before}{code}{after}".encode()
    return parser_for(spec.name).parse(text).root_node.has_error


def _first_error(root: Node) -> Node:
    node = root
    while not (node.is_error or node.is_missing):
        bad = next((child for child in node.children if child.has_error), None)
        if bad is None:
            break
        node = bad
    return node
