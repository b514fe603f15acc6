"""Tables of numbers and dumps: little of such a text is letters.

StarCoder (Li et al. 2023, section 3) and Codex drop files with fewer than 25 % letters.
"""

from __future__ import annotations

import string

from codepmp_ray.config.corpus import FilterConfig
from codepmp_ray.corpus.filters.code_text import CodeText
from codepmp_ray.reject_reasons import RejectReason

# Bytes beyond ASCII are parts of letters in nearly every text.
_LETTERS = string.ascii_letters.encode() + bytes(range(128, 256))


def alphabet_ratio(text: str) -> float:
    """Share of the UTF-8 bytes of `text`, white space aside, that are (parts of) letters."""
    data = text.encode("utf-8", "surrogatepass")
    visible = data.translate(None, string.whitespace.encode())
    if not visible:
        return 0.0
    return 1 - len(visible.translate(None, _LETTERS)) / len(visible)


class AlphabetFilter:
    """Share of letters."""

    reason = RejectReason.LOW_ALPHABET

    def __call__(self, code: CodeText, settings: FilterConfig) -> str | None:
        ratio = alphabet_ratio(code.text) if settings.min_alphabet_ratio > 0 else 1.0
        if ratio < settings.min_alphabet_ratio:
            return f"{ratio:.2f} of it is letters, min={settings.min_alphabet_ratio}"
        return None
