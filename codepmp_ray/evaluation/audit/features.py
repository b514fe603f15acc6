"""What can be seen of an answer without understanding it: length, format, language.

Of languages that is what can be told without a language identifier. The script is that of most of
its letters, by their Unicode names: Latin letters may be English or German, and CJK ideographs
Chinese or Japanese. The programming language is the tag of its fenced code blocks, as the answer
itself writes it; code without a fence counts as none.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import cache

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
NO_LETTERS, NO_CODE, UNTAGGED = "no letters", "no code", "untagged code"
_FENCED = re.compile(
    r"^[ \t]*(?P<fence>`{3,}|~{3,})[ \t]*(?P<tag>[^\s`{]*)[^\n]*\n"
    r"(?P<code>.*?)(?:^[ \t]*(?P=fence)[`~]*[ \t]*$|\Z)",
    re.MULTILINE | re.DOTALL,
)
_ALIASES = {
    "py": "python", "python3": "python", "js": "javascript", "ts": "typescript", "c++": "cpp",
    "cc": "cpp", "golang": "go", "rs": "rust", "sh": "shell", "bash": "shell", "cs": "c#",
    "csharp": "c#", "rb": "ruby", "": UNTAGGED,
}  # fmt: skip


def script_of(text: str) -> str:
    """For example "latin", "cyrillic" or "cjk"; NO_LETTERS where there are none."""
    letters = Counter(character for character in text if character.isalpha())
    scripts: Counter[str] = Counter()
    for character, num in letters.items():
        scripts[_script(character)] += num
    return max(scripts, key=lambda name: (scripts[name], name)) if scripts else NO_LETTERS


def fence_of(text: str) -> str:
    """The tag that most code (by characters) stands under, lower case, aliases as one."""
    sizes: Counter[str] = Counter()
    for block in _FENCED.finditer(text):
        tag = block["tag"].lower()
        sizes[_ALIASES.get(tag, tag)] += len(block["code"]) + 1
    return max(sizes, key=lambda name: (sizes[name], name)) if sizes else NO_CODE


def code_share(text: str) -> float:
    """Share of the characters that are in fenced code blocks."""
    num = sum(len(block["code"]) for block in _FENCED.finditer(text))
    return num / len(text) if text else 0.0


@cache
def _script(character: str) -> str:
    """The first word of a letter's name: scripts of one block share it."""
    return unicodedata.name(character, "unnamed").split()[0].lower()


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
