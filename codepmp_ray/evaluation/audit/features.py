"""What can be seen of an answer without understanding it: length, format, language."""

from __future__ import annotations

import re

from codepmp_ray.evaluation.audit.languages import code_share

_HEADING = re.compile(r"^#{1,6} \S", re.MULTILINE)
_ITEM = re.compile(r"^\s*(?:[-*+]|\d+[.)]) \S", re.MULTILINE)
_BOLD = re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__")
_FENCE = re.compile(r"^\s*(?:```|~~~)", re.MULTILINE)
_FORMULA = re.compile(r"\$[^$\n]+\$|\\\(|\\\[|\\boxed|\\frac")
# "# " at the beginning of a line is a heading; of Python's comments those behind or inside code.
_COMMENT = re.compile(r"^[ \t]+# |[ \t]{2,}# |(?:^|[ \t])// ", re.MULTILINE)

LENGTH = "length"
FEATURES = (
    LENGTH, "lines", "headings", "list_items", "bold", "code_blocks", "code_share", "formulas",
    "comments", "non_ascii", "exclamations",
)  # fmt: skip


def style_features(text: str) -> dict[str, float]:
    """Counts by name of FEATURES; length is in characters, code_share of them in fenced
    blocks, non_ascii the share of letters."""
    letters = [character for character in text if character.isalpha()]
    foreign = sum(not character.isascii() for character in letters)
    return {
        LENGTH: float(len(text)),
        "lines": float(len(text.splitlines())),
        "headings": float(len(_HEADING.findall(text))),
        "list_items": float(len(_ITEM.findall(text))),
        "bold": float(len(_BOLD.findall(text))),
        "code_blocks": len(_FENCE.findall(text)) / 2,
        "code_share": code_share(text),
        "formulas": float(len(_FORMULA.findall(text))),
        "comments": float(len(_COMMENT.findall(text))),
        "non_ascii": foreign / len(letters) if letters else 0.0,
        "exclamations": float(text.count("!")),
    }
