"""Telling URIs from paths. `file://` is a way to write a path, whatever follows it."""

from __future__ import annotations

import os
import re

_URI = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")
_FILE = "file://"
_HUB = "hf://"


def is_uri(location: str) -> bool:
    """Whether `location` is not on a file system."""
    return bool(_URI.match(location)) and not location.startswith(_FILE)


def strip_file_scheme(location: str) -> str:
    """`location` without `file://`."""
    return location.removeprefix(_FILE)


def scheme_of(uri: str) -> str:
    return uri.partition("://")[0].lower()


def written_name(name: str, revision: str | None) -> str:
    """A hub model and its revision as one name; `name` itself where there is no revision."""
    return name if revision is None else f"{_HUB}{name.removeprefix(_HUB)}@{revision}"


def absolute(location: str) -> str:
    """`location` as other processes can use it: a URI, or a path from the root."""
    if is_uri(location):
        return location.rstrip("/")
    return os.path.abspath(os.path.expanduser(strip_file_scheme(location)))
