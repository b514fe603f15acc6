"""Minified code and data in the clothes of code: lines that nobody typed.

The bounds are those of Codex (Chen et al. 2021, section 3.1) and The Stack: an average line of
at most 100 characters, none longer than 1000.
"""

from __future__ import annotations

from codepmp_ray.config.corpus import FilterConfig
from codepmp_ray.corpus.filters.code_text import CodeText
from codepmp_ray.reject_reasons import RejectReason


class MinifiedFilter:
    """Mean and maximum length of the lines, in characters."""

    reason = RejectReason.MINIFIED

    def __call__(self, code: CodeText, settings: FilterConfig) -> str | None:
        lines = code.text.split("\n")
        mean = len(code.text) / len(lines)
        if settings.max_mean_line_chars is not None and mean > settings.max_mean_line_chars:
            return f"{mean:.0f} characters per line, max={settings.max_mean_line_chars}"
        longest = max(map(len, lines))
        if settings.max_line_chars is not None and longest > settings.max_line_chars:
            return f"a line of {longest} characters, max={settings.max_line_chars}"
        return None
