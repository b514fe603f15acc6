"""The code in a model's answer, found by a CommonMark parser and checked by a language's parser.

Only blocks of the asked language count: those tagged with it, and those without a tag. The longest
one is the answer; models like to add a short example of use. A docstring may itself hold a fence,
at which the block then ends too early, so a block that does not parse is tried again up to each
later fence line.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from codepmp_ray.corpus.languages import LANGUAGES, find_language, parser_for
from codepmp_ray.synthesis.markdown import Fence, fences, split_lines

_TAG = re.compile(r"[A-Za-z0-9_+#-]+")
# An answer that repeats a fence for ever must cost neither quadratic time nor a deep parse.
_MAX_EXTENSIONS = 20
_MAX_CODE_CHARS = 100_000


@dataclass(frozen=True)
class Code:
    """`parses` is also True where there is no grammar for the language to ask."""

    text: str
    parses: bool


def find_code(answer: str, language: str) -> Code | None:
    """The code of an answer in `language`, or None when it holds no such block."""
    blocks = [fence for fence in fences(answer) if fence.content.strip()]
    blocks = [fence for fence in blocks if _counts(fence, language)]
    if not blocks:
        return None
    longest = max(blocks, key=lambda fence: len(fence.content))
    for text in islice(_versions(longest, split_lines(answer)), _MAX_EXTENSIONS):
        if parses(text, language):
            return Code(text, True)
    return Code(textwrap.dedent(longest.content), False)


def parses(code: str, language: str) -> bool:
    """Whether `code` is valid `language`; True for a language without a grammar."""
    if language not in LANGUAGES:
        return True
    if len(code) > _MAX_CODE_CHARS:
        return False
    return not parser_for(language).parse(code.encode()).root_node.has_error


def as_code_block(code: str, language: str) -> str:
    """`code` in the form of a model's answer; the fence is longer than any inside."""
    inner = max((len(run) for run in re.findall(r"`{3,}", code)), default=2)
    fence = "`" * (inner + 1)
    return f"{fence}{language}\n{code.strip()}\n{fence}"


def _counts(fence: Fence, language: str) -> bool:
    tag = _TAG.search(fence.info)
    if tag is None:
        return True
    named = tag.group().lower()
    return named == language or find_language(named, None) == language


def _versions(fence: Fence, lines: list[str]) -> Iterator[str]:
    yield textwrap.dedent(fence.content)
    for end in range(fence.stop, len(lines)):
        if lines[end].strip().startswith(fence.markup):
            yield textwrap.dedent("\n".join(lines[fence.start + 1 : end]))
