"""What filters look at, and what a filter is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from codepmp_ray.config.corpus import FilterConfig
from codepmp_ray.reject_reasons import RejectReason


@dataclass(frozen=True)
class CodeText:
    """A file's text or a snippet's ("\\n" newlines, not blank), its path and its language."""

    text: str
    path: str
    language: str


class Filter(Protocol):
    """One test of a text. Pure: the answer depends on the arguments alone.

    Returns None, or why the text leaves: the detail of its rejected row. Never raises.
    """

    reason: RejectReason

    def __call__(self, code: CodeText, settings: FilterConfig) -> str | None: ...
