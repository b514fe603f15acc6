"""Which nodes of a syntax tree are definitions, what they are called and what lies inside them.

The rules of `LanguageSpec`, for nodes; `snippets.py` says which definitions are snippets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tree_sitter import Node

from codepmp_ray.corpus.language_specs import LanguageSpec

_MAX_NAME_CHARS = 200
_MIN_ROWS = 4
_MAX_LEADING = 100  # each is looked for from the beginning of the file
_COMMENT = re.compile(rb"\s*/\*.*?\*/\s*", re.DOTALL)
# Comments that speak of the file, wherever they stand.
_OF_THE_FILE = re.compile(rb"copyright|spdx-license", re.IGNORECASE)
# Names that a module gives to what it hands out; a function's own name says more.
_EXPORTS = ("module.exports", "exports", "exports.default")


@dataclass(frozen=True)
class Found:
    """A definition.

    `node` is all that belongs to it, wrappers (exports, decorators) included. `inside` is what is
    looked into when it is too long to be a snippet; None for what stays whole.
    """

    node: Node
    kind: str
    name: str
    prefix: str
    inside: Node | None


def definition_at(node: Node, spec: LanguageSpec, min_rows: int) -> Found | None:
    """The definition that `node` is, or None.

    Args:
        min_rows: lines from which on a function that is handed to a call or the like makes what the
            call's result is named a definition (`const Button = memo(() => ...)`).
    """
    inner = _unwrap(node, spec)
    if inner is None:
        return None
    if inner.type in spec.named_values:
        name_field, value_field = spec.named_values[inner.type]
        value = _value(inner.child_by_field_name(value_field), spec)
        if value is None or _is_pattern(inner, name_field):
            return None
        if not _holds_function(value, spec, min_rows):
            return None
        is_class = value.type in spec.objects or value.type.startswith("class")
        kind, name = "class" if is_class else "function", _name_of_value(inner, name_field, value)
        inside = body_of(value) if value.type in spec.values else value
        if value.type in spec.values and not is_class and not spec.opens_functions:
            inside = None
    elif _is_definition(inner, spec):
        kind, name = spec.definitions[inner.type], _name_of(inner)
        inside = body_of(inner) if kind == "class" or spec.opens_functions else None
    else:
        return None
    prefix = spec.prefixes.get(node.type, "")
    return Found(node, kind, name, prefix, inside)


def beginnings(node: Node, spec: LanguageSpec, row: int) -> tuple[Node, Node]:
    """What the definition `node` may begin with: the first of the attributes and documentation
    right above it, and the first attribute, or `node` itself.

    Other comments between them, or behind an attribute on its line, do not part them.

    Args:
        row: 0-based, where it begins with the words that were hidden from the parser.
    """
    first = attribute = node
    other = node.prev_sibling if spec.leading else None
    for _ in range(_MAX_LEADING):
        # The node of a line comment may end where the next line begins.
        if other is None or row - other.end_point.row > (other.end_point.column > 0):
            break
        before = other.prev_sibling
        if not (_is_alone(other, before) or (before and _is_attribute(before, spec))):
            break
        if _is_leading(other, spec):
            first = other
            attribute = other if _is_attribute(other, spec) else attribute
        elif "comment" not in other.type:
            break
        other, row = before, other.start_point.row
    return first, attribute


def _is_alone(node: Node, before: Node | None) -> bool:
    """Whether nothing stands on its first line before it."""
    if before is None or before.end_point.row < node.start_point.row:
        return True
    return before.end_point.column == 0


def _is_attribute(node: Node, spec: LanguageSpec) -> bool:
    return "comment" not in node.type and _is_leading(node, spec)


def _is_leading(node: Node, spec: LanguageSpec) -> bool:
    opening, text = spec.leading.get(node.type), node.text or b""
    if opening is None or _OF_THE_FILE.search(text):
        return False
    return text.decode("utf-8", "replace").startswith(opening)


def outer_names(root: Node, spec: LanguageSpec) -> Iterator[str]:
    """Names of the outermost definitions of a tree, errors or not."""
    stack = [root]
    while stack:
        node = stack.pop()
        if (found := definition_at(node, spec, _MIN_ROWS)) is not None:
            yield found.name
        elif is_open(node, spec):
            stack.extend(node.named_children)


def is_open(node: Node, spec: LanguageSpec) -> bool:
    """Whether definitions may lie inside a node that is none.

    Not in a value that has been searched for functions in vain: objects in objects would be
    searched again at every level.
    """
    if node.type in spec.containers or node.type in spec.wrappers or node.is_error:
        inner = _unwrap(node, spec)
        return inner is None or inner.type not in spec.named_values
    return False


def handed_functions(node: Node, spec: LanguageSpec, min_rows: int) -> list[Node]:
    """What is looked into in place of a value that is no definition: the functions that were handed
    over to make it, or the whole value of `const {a, b} = ...`."""
    inner = _unwrap(node, spec)
    if inner is None or inner.type not in spec.named_values:
        return []
    name_field, value_field = spec.named_values[inner.type]
    value = inner.child_by_field_name(value_field)
    if value is None or _is_pattern(inner, name_field):
        return [value] if value is not None else []
    found, stack = [], [value]
    while stack:
        node = stack.pop()
        if node.type in spec.values:
            if num_rows(node) >= min_rows:
                found.append(node)
        elif node.type in spec.containers:
            stack.extend(node.named_children)
    return found


def body_of(node: Node) -> Node | None:
    """The body of a function or class; of a declaration that of its type."""
    body = node.child_by_field_name("body")
    if body is None and (kind := node.child_by_field_name("type")) is not None:
        return kind.child_by_field_name("body")
    return body


def num_rows(node: Node) -> int:
    return node.end_point.row - node.start_point.row + 1


def _unwrap(node: Node, spec: LanguageSpec) -> Node | None:
    """The node inside the wrappers around it (decorators, exports); `node` if it is none."""
    inner: Node | None = node
    while inner is not None and (field := spec.wrappers.get(inner.type)) is not None:
        if field:
            child = inner.child_by_field_name(field)
            if child is None:
                return inner
            inner = child
            continue
        children = inner.named_children
        # Several definitions in one statement are looked into one by one.
        several = len({child.type for child in children}) < len(children)
        inner = None if several or not children else children[-1]
    return inner


def _is_definition(node: Node, spec: LanguageSpec) -> bool:
    if node.type not in spec.definitions or _is_declared_only(node, spec):
        return False
    if node.type not in spec.required:
        return True
    field, types = spec.required[node.type]
    value = node.child_by_field_name(field)
    if value is None or (types and value.type not in types):
        return False
    return value.type not in spec.definitions or _is_definition(value, spec)


def _is_declared_only(node: Node, spec: LanguageSpec) -> bool:
    """Type stubs, overloads, methods of protocols: `def f(x: int) -> int: ...`."""
    body = node.child_by_field_name("body") if spec.placeholders else None
    if body is None or spec.definitions[node.type] != "function":
        return False
    statements = [child for child in body.named_children if "comment" not in child.type]
    said = [
        inner.type
        for child in statements
        for inner in (child.named_children[:1] if child.type == "expression_statement" else [child])
    ]
    if said[:1] == ["string"]:
        said = said[1:]
    return bool(said) and spec.placeholders.issuperset(said)


def _value(node: Node | None, spec: LanguageSpec) -> Node | None:
    """What is assigned in the end: in `a = b = (function () {})` the function."""
    while node is not None:
        if node.type == "assignment_expression":
            node = node.child_by_field_name("right")
        elif node.type == "parenthesized_expression" and len(node.named_children) == 1:
            node = node.named_children[0]
        else:
            break
    return node


def _holds_function(value: Node, spec: LanguageSpec, min_rows: int) -> bool:
    if value.type in spec.values:
        return True
    if value.type in spec.objects:
        min_rows = 1
    stack = [value]
    while stack:
        node = stack.pop()
        if node.type in spec.values:
            if num_rows(node) >= min_rows:
                return True
        elif node.type in spec.carriers and not _makes_value(node, spec):
            stack.extend(node.named_children)
    return False


def _makes_value(node: Node, spec: LanguageSpec) -> bool:
    """Whether `node` is one of `value_calls`."""
    called = node.child_by_field_name("function") if spec.value_calls else None
    name = called.child_by_field_name("property") if called is not None else None
    name = name or node.child_by_field_name("constructor")
    return name is not None and _text(name) in spec.value_calls


def _is_pattern(node: Node, name_field: str) -> bool:
    """Whether several names are given to parts of a value."""
    name = node.child_by_field_name(name_field) if name_field else None
    return name is not None and name.type.endswith("_pattern")


def _name_of_value(node: Node, name_field: str, value: Node) -> str:
    own = value.child_by_field_name("name")
    given = node.child_by_field_name(name_field) if name_field else None
    name = _text(given) if given is not None else "default"
    if own is not None and (given is None or name in _EXPORTS):
        name = _text(own)
    return name.strip("'\"")


def _name_of(node: Node) -> str:
    name = node.child_by_field_name("name")
    inner = node.child_by_field_name("declarator")
    while name is None and inner is not None:
        if inner.type == "operator_cast":
            name = inner
            break
        deeper = inner.child_by_field_name("declarator")
        # Brackets and references have no field for what they are around.
        if deeper is None and inner.type.endswith("_declarator") and inner.named_children:
            deeper = inner.named_children[-1]
        if deeper is None:
            name = inner
        inner = deeper
    if name is None and (kind := node.child_by_field_name("type")) is not None:
        name = kind.child_by_field_name("name") or kind
    # What is left of an operator's or a pointer's declarator.
    text = _text(name) if name is not None else ""
    if "operator" in text:
        return text if text.endswith("()") and "operator()" in text else text.partition("(")[0]
    return text.partition("(")[0].strip(" *&") or "?"


def _text(node: Node) -> str:
    text = _COMMENT.sub(b"", node.text or b"").decode("utf-8", "replace")
    return " ".join(text.split())[:_MAX_NAME_CHARS]
