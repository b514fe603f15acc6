"""Git's name of a file's content, by which opt-out lists of data sets name files."""

from __future__ import annotations

import hashlib
import re

_BLOB_ID = re.compile(r"[0-9a-f]{40}")


def git_blob_id(data: bytes) -> str:
    """What git calls a file with this content: sha1 of its header and bytes, 40 hex digits."""
    header = b"blob %d\0" % len(data)
    return hashlib.sha1(header + data, usedforsecurity=False).hexdigest()


def is_blob_id(name: str) -> bool:
    """Whether git could call a file so."""
    return _BLOB_ID.fullmatch(name) is not None
