"""Which licences let a file in. A file whose licence is not known is refused, never assumed.

Licences are SPDX expressions, read by `packaging.licenses`: of `A OR B` one has to be allowed, of
`A AND B` both; `A WITH B` is a licence of its own. What is not understood is not allowed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

_HEADER = re.compile(
    # Behind what begins a comment, other words of the comment too; or first on its line.
    rb"^(?:\xef\xbb\xbf)?[ \t]*"
    rb"(?:\"?(?:#|//|/?\*|--|;|%|<!--|\(\*|\"\"\"|'''|REM\b|\.\.)[^\r\n\"']*?)?"
    rb"SPDX-License-Identifier[ \t]*:[ \t]*([^\r\n]*)",
    re.M | re.I,
)
_HEADER_BYTES = 4_096
# Notices in words, as these licences' own texts ask for them; of permissive ones none is needed.
_GNU = re.compile(
    r"free software.{0,200}? terms of (?:version \d of )?the GNU (Affero |Lesser |Library )?"
    r"General Public License(.{0,250})",
    re.IGNORECASE,
)
_NOTICES = (
    (r"terms of the Mozilla Public License,? v(?:ersion)?[. ]*(\d\.\d)", "MPL-{}"),
    (r"terms of the Eclipse Public License,? (?:-? ?v(?:ersion)?[. ]*)?(\d\.\d)", "EPL-{}"),
    (r"(?:under|License:?) (?:the )?Boost Software License(?:,? Version (\d\.\d))?", "BSL-1.0"),
    (r"terms of the Common Development and Distribution License", "CDDL-1.0"),
    (r"without an? express licen[cs]e.{0,60} strictly prohibited", "LicenseRef-proprietary"),
)
_CHOICE = re.compile(r"\balternatively\b|\bdual[- ]?licen[cs]|either of the", re.IGNORECASE)
_COMMENT_END = re.compile(r"\s*(?:\*+/|-->|\*\)|-\*-|(?:\\[nr])*\"+,?|//.*|[#;\"'{}].*|\*+)\s*$")
_SLASH = re.compile(r"\s*/\s*")  # "MIT/Apache-2.0", as Rust's packages wrote it
_TOKEN = re.compile(r"[()]|[^()\s]+")
_FILES = re.compile(r"(?:un)?licen[cs]e|copying", re.IGNORECASE)


def parse_licenses(value: Any) -> tuple[str, ...]:
    """Licences in a data set's cell: an expression, or a list of them that hold together.

    Whatever else is there is given back as text, which no list of allowed licences has.
    """
    if value is None:
        return ()
    items = value if isinstance(value, list | tuple) else [value]
    return tuple(_as_text(item) for item in items)


def license_refusal(licenses: tuple[str, ...], allowed: tuple[str, ...]) -> str | None:
    """Why a file under `licenses` may not be used, or None. All of several must be allowed."""
    if not licenses:
        return "the licence is not known"
    said = (_refusal(name, allowed) for name in licenses)
    return next((text for text in said if text), None)


def license_text(licenses: tuple[str, ...]) -> str | None:
    """The licences as one SPDX expression."""
    known = list(dict.fromkeys(_canonical(name) or name for name in licenses))
    if len(known) > 1:
        known = [f"({name})" if " OR " in name else name for name in known]
    return " AND ".join(known) or None


def header_license(data: bytes) -> tuple[str, ...]:
    """What the first lines of a file say by SPDX-License-Identifier, or by the notice that a
    licence which is not permissive asks for; () if they say nothing."""
    head = data[:_HEADER_BYTES]
    found = _HEADER.findall(head)
    if not found:
        return _notice(head)
    return tuple(_COMMENT_END.sub("", text.decode("utf-8", "replace")).strip() for text in found)


def _notice(head: bytes) -> tuple[str, ...]:
    """The licence that a file's head states in words; () where it leaves a choice."""
    if b"icen" not in head:
        return ()
    text = " ".join(re.findall(r"[\w.,:;()-]+", head.decode("utf-8", "replace")))
    if match := _GNU.search(text):
        kind = {"a": "AGPL", "l": "LGPL"}.get((match[1] or "")[:1].lower(), "GPL")
        version = re.search(r"version (\d(?:\.\d)?)", match[0])
        number = version[1] if version else "2.0" if kind == "LGPL" else "1.0"
        number += "" if "." in number else ".0"
        is_exact = version is not None and "any later version" not in match[2]
        name = f"{kind}-{number}-{'only' if is_exact else 'or-later'}"
    else:
        said = ((re.search(notice, text, re.IGNORECASE), name) for notice, name in _NOTICES)
        match, name = next(((match, name) for match, name in said if match), (None, ""))
    if match is None or _CHOICE.search(text, max(0, match.start() - 600), match.end() + 300):
        return ()
    return (name.format(*match.groups()),)


def folder_license(root: Path, name: str) -> tuple[str, ...]:
    """The licence whose text lies nearest above the file `name` of `root`; () if there is none."""
    return _folder_license(root, (root / name).parent)


@lru_cache(maxsize=4_096)
def _folder_license(root: Path, folder: Path) -> tuple[str, ...]:
    found = tuple(_license_of_text(path) for path in license_files(folder) if path.is_file())
    if found or folder == root or root not in folder.parents:
        return found
    return _folder_license(root, folder.parent)


def license_files(folder: Path) -> list[Path]:
    """What is called LICENSE, COPYING or the like in a folder."""
    try:
        return sorted(path for path in folder.iterdir() if _FILES.match(path.name))
    except OSError:
        return []


def _license_of_text(path: Path) -> str:
    """The SPDX id of a licence's text, up to a twentieth of it changed; else the file's name."""
    from identify.identify import license_id

    try:
        return license_id(str(path)) or path.name
    except (OSError, UnicodeDecodeError):
        return path.name


def _as_text(item: Any) -> str:
    if isinstance(item, bytes):
        return item.decode("utf-8", "replace").strip()
    return item.strip() if isinstance(item, str) else repr(item)


@lru_cache(maxsize=4_096)
def _refusal(name: str, allowed: tuple[str, ...]) -> str | None:
    permitted = {item.strip().lower() for item in allowed}
    if name and name.lower() in permitted:
        return None
    expression = _canonical(name)
    if expression is None:
        return f"the licence is not known: {name!r} is no SPDX expression"
    permitted |= {known.lower() for item in allowed if (known := _canonical(item))}
    if _holds(iter([*_TOKEN.findall(expression), ")"]), permitted):
        return None
    return f"{expression} not in corpus.allowed_licenses"


@lru_cache(maxsize=4_096)
def _canonical(name: str) -> str | None:
    """The expression with SPDX's own spelling of every id, or None for what is none."""
    try:
        return canonicalize_license_expression(_SLASH.sub(" OR ", name))
    except InvalidLicenseExpression:
        return None


def _holds(tokens: Iterable[str], permitted: set[str]) -> bool:
    """The value of a valid expression up to its closing bracket. AND binds before OR."""
    any_of, all_of, name = False, True, ""
    for token in tokens:
        if token == "(":
            all_of &= _holds(tokens, permitted)
        elif token == "WITH" or name.endswith(" WITH"):
            name = f"{name} {token}"
        elif token in ("AND", "OR", ")"):
            # "or later" holds the licence itself.
            all_of &= not name or bool({name.lower(), name.removesuffix("+").lower()} & permitted)
            name = ""
            if token != "AND":
                any_of, all_of = any_of or all_of, True
            if token == ")":
                break
        else:
            name = token
    return any_of
