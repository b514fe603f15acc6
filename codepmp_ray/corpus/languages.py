"""The languages that snippets can be taken from: one entry of `LANGUAGES` each.

An entry names the node types of the language's tree-sitter grammar; `snippets.py` holds the rule
that they feed and knows no language.
"""

from __future__ import annotations

import importlib
import posixpath
from dataclasses import dataclass
from functools import cache

from tree_sitter import Language, Parser, Query

from codepmp_ray.errors import ConfigError


@dataclass(frozen=True)
class LanguageSpec:
    """How to parse one language and what in it is a snippet.

    Attributes:
        grammar: module with the tree-sitter grammar; its `language()` returns the pointer.
        aliases: further names of the language in a data set's language column, in lower case.
        definitions: node type -> kind ("function" or "class"); the node has a field "name".
        wrappers: node type -> field holding a definition that the node decorates.
        containers: node types that are looked into for definitions (blocks, conditions), but
            which are no snippets themselves.
        fixed_text: query whose captures `@text` are literals over which indentation must stay as
            it is; `@free` takes literals out again (documentation strings).
    """

    name: str
    grammar: str
    extensions: tuple[str, ...]
    aliases: tuple[str, ...]
    definitions: dict[str, str]
    wrappers: dict[str, str]
    containers: frozenset[str]
    fixed_text: str


LANGUAGES = {
    "python": LanguageSpec(
        name="python",
        grammar="tree_sitter_python",
        extensions=(".py", ".pyi", ".pyw"),
        aliases=("python3", "py"),
        definitions={"function_definition": "function", "class_definition": "class"},
        wrappers={"decorated_definition": "definition"},
        containers=frozenset(
            {
                "module",
                "block",
                "if_statement",
                "elif_clause",
                "else_clause",
                "try_statement",
                "except_clause",
                "except_group_clause",
                "finally_clause",
                "with_statement",
                "for_statement",
                "while_statement",
                "match_statement",
                "case_clause",
            }
        ),
        fixed_text="(string) @text (expression_statement (string) @free)",
    ),
}

_BY_EXTENSION = {ext: spec.name for spec in LANGUAGES.values() for ext in spec.extensions}
_BY_ALIAS = {
    alias: spec.name for spec in LANGUAGES.values() for alias in (spec.name, *spec.aliases)
}


def find_language(declared: str | None, path: str | None) -> str | None:
    """Name of the language in `LANGUAGES`: as declared by the data set, otherwise by extension."""
    if declared:
        return _BY_ALIAS.get(declared.strip().lower())
    return _BY_EXTENSION.get(posixpath.splitext(path or "")[1].lower())


def check_languages(names: tuple[str, ...]) -> None:
    """Raise ConfigError unless every name has an entry in `LANGUAGES`."""
    if unknown := sorted(set(names) - LANGUAGES.keys()):
        raise ConfigError(
            f"corpus.languages={unknown}: no extractor for these.",
            f"Known languages: {', '.join(sorted(LANGUAGES))}.",
        )


@cache
def parser_for(name: str) -> Parser:
    return Parser(_grammar(name))


@cache
def fixed_text_query(name: str) -> Query:
    return Query(_grammar(name), LANGUAGES[name].fixed_text)


@cache
def _grammar(name: str) -> Language:
    return Language(importlib.import_module(LANGUAGES[name].grammar).language())
