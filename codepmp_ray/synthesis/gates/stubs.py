"""Answers that leave the work to the reader: `pass`, `raise NotImplementedError`, "your code"."""

from __future__ import annotations

import re

from tree_sitter import Node

from codepmp_ray.corpus.language_specs import LANGUAGES, LanguageSpec
from codepmp_ray.corpus.languages import parse

_PLACEHOLDER = re.compile(
    r"\b(?:todo|fixme|not (?:yet )?implemented|your (?:code|implementation|logic)|fill (?:this )?in"
    r"|implement(?:ation)? (?:me|this|here|goes)|rest of)\b",
    re.IGNORECASE,
)
_STUB = re.compile(
    r"pass|\.\.\.|raise\s+NotImplemented.*|throw\b.*(?:NotImplemented|UnsupportedOperation).*"
    r"|(?:todo|unimplemented)!.*",
    re.DOTALL,
)
# Says nothing by itself: a stub only beside a comment that says so, or with such a text inside.
_EMPTY = re.compile(
    r"(?:return\b\W*(?:None|null|nil|0|false|true|undefined|\"\"|''|\[\]|\{\})?|(?:throw|raise|panic!?)\b.*);?",
    re.DOTALL | re.IGNORECASE,
)
# Where functions without a body are the answer.
_ABSTRACT = re.compile(r"\b(?:abstractmethod|abstract|Protocol|ABC|overload|interface|trait)\b")


def is_stub(code: str, language: str) -> bool:
    """Whether every function of valid `code` is left empty; False without a grammar."""
    if language not in LANGUAGES or _ABSTRACT.search(code):
        return False
    spec = LANGUAGES[language]
    root = parse(f"{code}\n".encode("utf-8", "replace"), language)
    bodies: list[tuple[Node, Node]] = []
    stack = [root]
    while stack:
        node = stack.pop()
        is_function = spec.definitions.get(node.type) == "function" or node.type in spec.values
        body = node.child_by_field_name("body") if is_function else None
        if body is not None:
            bodies.append((node, body))
        stack.extend(node.named_children)
    return all(_is_empty(node, body, spec) for node, body in bodies or [(root, root)])


def _is_empty(function: Node, body: Node, spec: LanguageSpec) -> bool:
    statements = [child for child in body.named_children if "comment" not in child.type]
    if statements and spec.name == "python" and statements[0].type == "expression_statement":
        inner = statements[0].named_children
        if inner and inner[0].type == "string":  # its documentation
            statements = statements[1:]
    texts = [(node.text or b"").decode("utf-8", "replace").strip() for node in statements]
    # Comments may stand outside of the body.
    is_told = _PLACEHOLDER.search((function.text or b"").decode("utf-8", "replace")) is not None
    if all(_STUB.fullmatch(text.rstrip(";")) for text in texts):
        return bool(texts) or is_told or spec.name == "python"
    return is_told and all(_EMPTY.fullmatch(text) or _STUB.fullmatch(text) for text in texts)
