"""Which language a file is in, and the parser of each language in `LANGUAGES`."""

from __future__ import annotations

import importlib
import posixpath
import re
from functools import cache

from tree_sitter import Language, Node, Parser, Query, Range

from codepmp_ray.corpus.content_language import by_content
from codepmp_ray.corpus.hidden_words import has_whole_conditions, with_words_hidden
from codepmp_ray.corpus.language_specs import LANGUAGES, LanguageSpec
from codepmp_ray.corpus.python_check import python_problem
from codepmp_ray.errors import ConfigError

# Not a grammar: notebooks are JSON around cells of Python (`notebooks.py`).
NOTEBOOK = "notebook"
_NOTEBOOK_ALIASES = ("notebook", "jupyter notebook", "jupyter-notebook", "ipynb")

_BY_EXTENSION = {ext: spec.name for spec in LANGUAGES.values() for ext in spec.extensions}
_BY_EXTENSION[".ipynb"] = NOTEBOOK
_BY_ALIAS = {
    alias: spec.name for spec in LANGUAGES.values() for alias in (spec.name, *spec.aliases)
}
_BY_ALIAS |= dict.fromkeys(_NOTEBOOK_ALIASES, NOTEBOOK)
_BY_INTERPRETER = {name: spec.name for spec in LANGUAGES.values() for name in spec.interpreters}
# Data sets name these languages alike; the extension tells them apart.
_DIALECTS = {("typescript", ".tsx"): "tsx", ("cpp", ".cu"): "cuda", ("cpp", ".cuh"): "cuda"}
# "#!/usr/bin/env -S python3 -u" and "#!/usr/local/bin/python3.11": the program's name.
_SHEBANG = re.compile(rb"#!\s*(?:\S*/env\s+(?:-\S+\s+)*)?(?:\S*/)?([A-Za-z_-]+)")


def find_language(declared: str | None, path: str | None, data: bytes = b"") -> str | None:
    """Name of the language in `LANGUAGES`, or NOTEBOOK; None if it is not known.

    As declared by the data set; otherwise by the path's extension; otherwise by the interpreter
    that the first line of `data`, the file's bytes, names. Where the name leaves it open, the
    content decides: `content_language`, and the dialects that data sets throw together.
    """
    written = posixpath.splitext(path or "")[1]
    extension = written.lower()
    if extension == ".ipynb" and (not declared or data.lstrip().startswith(b"{")):
        return NOTEBOOK
    if declared:
        found = _BY_ALIAS.get(declared.strip().lower())
    elif (found := _BY_EXTENSION.get(extension)) is None and data.startswith(b"#!"):
        match = _SHEBANG.match(data[:200])
        found = _BY_INTERPRETER.get(match.group(1).decode("ascii")) if match else None
    found = _DIALECTS.get((found or "", extension), found)
    return by_content(found, written if written == ".C" else extension, data) if found else None


def check_languages(names: tuple[str, ...]) -> None:
    """Raise ConfigError unless every name has an entry in `LANGUAGES` or is NOTEBOOK."""
    known = {*LANGUAGES, NOTEBOOK}
    if unknown := sorted(set(names) - known):
        raise ConfigError(
            f"corpus.languages={unknown}: no extractor for these.",
            f"Known languages: {', '.join(sorted(known))}.",
        )


def parse(source: bytes, language: str) -> Node:
    """Root of the syntax tree of `source` (UTF-8); it may hold errors.

    Macros and other words that the grammar has no place for are hidden from the parser, if it then
    makes more of the text. Offsets are those of `source` all the same.
    """
    parser = parser_for(language)
    root = parser.parse(source).root_node
    if least := _size_of_errors(root, language):
        for hidden in with_words_hidden(source, language):
            other = parser.parse(hidden).root_node
            if (size := _size_of_errors(other, language)) < least:
                root, least = other, size
    return root


def is_valid(code: str, language: str) -> bool:
    """Whether `code` is `language` by itself, or as a member of a class or an object."""
    if LANGUAGES[language].has_macros and not has_whole_conditions(code.encode()):
        return False
    for before, after in (("", "\n"), *LANGUAGES[language].frames):
        root = parse(f"{before}{code}{after}".encode(), language)
        if not _size_of_errors(root, language):
            return language != "python" or python_problem(code, root) is None
    return False


def first_error(root: Node) -> Node:
    """The first node at which parsing failed; `root` if there is none."""
    node = root
    while not (node.is_error or node.is_missing):
        bad = next((child for child in node.children if child.has_error), None)
        if bad is None:
            break
        node = bad
    return node


def parse_inside(source: bytes, node: Node, language: str) -> Node:
    """Root of the syntax tree of what `node`, something in brackets, is around. Offsets are those
    of `source`."""
    first, last = node.children[0], node.children[-1]
    inside = Range(first.end_point, last.start_point, first.end_byte, last.start_byte)
    return Parser(_grammar(language), included_ranges=[inside]).parse(source).root_node


@cache
def parser_for(name: str) -> Parser:
    return Parser(_grammar(name))


@cache
def fixed_text_query(name: str) -> Query:
    return Query(_grammar(name), LANGUAGES[name].fixed_text)


@cache
def _grammar(name: str) -> Language:
    module, _, function = LANGUAGES[name].grammar.partition(":")
    return Language(getattr(importlib.import_module(module), function or "language")())


def _size_of_errors(root: Node, language: str) -> int:
    """Bytes that the parser could not make anything of, or what the language does not have; one
    for what is missing."""
    spec = LANGUAGES[language]
    size, stack = _size_misread(root, spec) if spec.has_macros else 0, [root]
    while stack:
        node = stack.pop()
        if node.is_error or node.is_missing:
            size += max(1, node.end_byte - node.start_byte)
        elif node.has_error:
            stack.extend(node.children)
    return size


def _size_misread(root: Node, spec: LanguageSpec) -> int:
    """Bytes of bodies without a function's head, and of functions without parameters: those are
    namespaces and classes behind a macro."""
    field, types = spec.required["function_definition"]
    size, stack = 0, [root]
    while stack:
        node = stack.pop()
        if node.type == "function_definition":
            value = node.child_by_field_name(field)
            head = node.child_by_field_name("declarator")
            is_other = head is not None and head.type == "identifier"
            if is_other or (value is not None and types and value.type not in types):
                size += node.end_byte - node.start_byte
        elif node.type == "compound_statement":
            size += node.end_byte - node.start_byte
        elif node.type in spec.containers:
            stack.extend(node.named_children)
    return size
