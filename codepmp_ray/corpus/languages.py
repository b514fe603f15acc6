"""Which language a file is in, and the parser of each language in `LANGUAGES`."""

from __future__ import annotations

import importlib
import posixpath
import re
from functools import cache

from tree_sitter import Language, Parser, Query

from codepmp_ray.corpus.language_specs import LANGUAGES
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
# "#!/usr/bin/env -S python3 -u" and "#!/usr/local/bin/python3.11": the program's name.
_SHEBANG = re.compile(rb"#!\s*(?:\S*/env\s+(?:-\S+\s+)*)?(?:\S*/)?([A-Za-z_-]+)")


def find_language(declared: str | None, path: str | None, head: bytes = b"") -> str | None:
    """Name of the language in `LANGUAGES`, or NOTEBOOK; None if it is not known.

    As declared by the data set; otherwise by the path's extension; otherwise by the interpreter
    that the first line (of `head`, the file's first bytes) names.
    """
    if declared:
        return _BY_ALIAS.get(declared.strip().lower())
    found = _BY_EXTENSION.get(posixpath.splitext(path or "")[1].lower())
    if found is None and head.startswith(b"#!") and (match := _SHEBANG.match(head[:200])):
        found = _BY_INTERPRETER.get(match.group(1).decode("ascii"))
    return found


def check_languages(names: tuple[str, ...]) -> None:
    """Raise ConfigError unless every name has an entry in `LANGUAGES` or is NOTEBOOK."""
    known = {*LANGUAGES, NOTEBOOK}
    if unknown := sorted(set(names) - known):
        raise ConfigError(
            f"corpus.languages={unknown}: no extractor for these.",
            f"Known languages: {', '.join(sorted(known))}.",
        )


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
