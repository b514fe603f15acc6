"""Code that is commented out, or comments without code.

StarCoder (Li et al. 2023, section 3) keeps files with up to 80 % comments. Documentation strings
are no comments here: they describe code that is there.
"""

from __future__ import annotations

from codepmp_ray.config.corpus import FilterConfig
from codepmp_ray.corpus.filters.code_text import CodeText
from codepmp_ray.corpus.language_specs import LANGUAGES
from codepmp_ray.reject_reasons import RejectReason


def comment_ratio(text: str, prefixes: tuple[str, ...]) -> float:
    """Share of the lines that are not blank which begin with one of `prefixes`."""
    if not any(prefix in text for prefix in prefixes):
        return 0.0
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    if not lines:
        return 0.0
    return sum(line.startswith(prefixes) for line in lines) / len(lines)


class CommentFilter:
    """Share of lines that are comments."""

    reason = RejectReason.COMMENT_RATIO

    def __call__(self, code: CodeText, settings: FilterConfig) -> str | None:
        low, high = settings.min_comment_ratio, settings.max_comment_ratio
        if (low, high) == (0, 1):
            return None
        ratio = comment_ratio(code.text, LANGUAGES[code.language].comments)
        if low <= ratio <= high:
            return None
        return f"{ratio:.2f} of its lines are comments, bounds {low} to {high}"
