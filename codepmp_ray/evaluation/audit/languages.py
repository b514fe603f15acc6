"""Scripts and fences: what can be told of a text's languages without a language identifier.

The script is that of most of its letters, by their Unicode names: Latin letters may be English or
German, and CJK ideographs Chinese or Japanese. The programming language is the tag of its fenced
code blocks, as the answer itself writes it; code without a fence counts as none.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import cache

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
