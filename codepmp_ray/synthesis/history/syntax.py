"""Whether two codes differ in more than their form."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tree_sitter import Node

from codepmp_ray.corpus.languages import parse
from codepmp_ray.synthesis.python_syntax import parse_python


def same_syntax(one: str, other: str, language: str) -> bool:
    """Whether blank space, comments and (of Python) quotes, brackets and commas are all that
    differs."""
    if language == "python":
        trees = [parse_python(code) for code in (one, other)]
        try:
            if all(trees):
                return len({ast.dump(tree) for tree in trees if tree}) == 1
        except RecursionError:  # what the parser builds, the writer may not be able to walk
            pass
    return list(_marks(one, language)) == list(_marks(other, language))


def _marks(code: str, language: str) -> Iterator[tuple[str, bytes]]:
    """Every node in order, with the text of those that have no parts, and where each ends."""
    stack: list[Node | None] = [parse(f"{code}\n".encode("utf-8", "replace"), language)]
    while stack:
        node = stack.pop()
        if node is None:
            yield "end", b""
        elif "comment" not in node.type:
            yield node.type, b"" if node.children else node.text or b""
            stack += [None, *reversed(node.children)]
