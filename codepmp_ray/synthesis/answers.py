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

from markdown_it import MarkdownIt
from markdown_it.token import Token

from codepmp_ray.corpus.languages import LANGUAGES, find_language, parser_for

_MARKDOWN = MarkdownIt("commonmark")
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
    lines = answer.splitlines()
    # Of these the parser makes tokens of their own: only "fence" at top level is an answer.
    fences = [token for token in _MARKDOWN.parse(answer) if token.type == "fence"]
    fences = [token for token in fences if token.content.strip() and _counts(token, language)]
    if not fences:
        return None
    longest = max(fences, key=lambda token: len(token.content))
    for text in islice(_versions(longest, lines), _MAX_EXTENSIONS):
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


def _counts(fence: Token, language: str) -> bool:
    tag = _TAG.search(fence.info)
    if tag is None:
        return True
    named = tag.group().lower()
    return named == language or find_language(named, None) == language


def _versions(fence: Token, lines: list[str]) -> Iterator[str]:
    yield textwrap.dedent(fence.content)
    if fence.map is None:
        return
    start, stop = fence.map
    for end in range(stop, len(lines)):
        if lines[end].strip().startswith(fence.markup):
            yield textwrap.dedent("\n".join(lines[start + 1 : end]))
