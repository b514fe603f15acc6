"""The code in a model's answer, found by a CommonMark parser and checked by a language's parser.

Only blocks of the asked language count: those tagged with it or with one of its family, and those
without a tag. Of several the longest that defines something is the answer: examples of use define
nothing. A docstring may itself hold a fence, at which the block then ends too early, so a block
that does not parse is tried again up to each later fence line.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from codepmp_ray.corpus.definition_nodes import holds_definition
from codepmp_ray.corpus.languages import LANGUAGES, find_language, is_valid, parse
from codepmp_ray.synthesis.markdown import Fence, fences, split_lines

_TAG = re.compile(r"[A-Za-z0-9_+#-]+")
# Models tag a block with whichever name of a family comes to mind; the parser says what it is.
_FAMILIES = (frozenset({"javascript", "typescript", "tsx"}), frozenset({"c", "cpp", "cuda"}))
# An answer that repeats a fence for ever must cost neither quadratic time nor a deep parse.
_MAX_EXTENSIONS = 20
_MAX_BLOCKS = 8
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
    blocks.sort(key=lambda fence: len(fence.content), reverse=True)
    main = next((fence for fence in blocks[:_MAX_BLOCKS] if _defines(fence, language)), blocks[0])
    for text in islice(_versions(main, split_lines(answer)), _MAX_EXTENSIONS):
        if parses(text, language):
            return Code(text, True)
    return Code(textwrap.dedent(main.content), False)


def parses(code: str, language: str) -> bool:
    """Whether `code` is valid `language`, members of a class too; True without a grammar."""
    if language not in LANGUAGES:
        return True
    return len(code) <= _MAX_CODE_CHARS and is_valid(code, language)


def as_code_block(code: str, language: str) -> str:
    """`code` in the form of a model's answer; the fence is longer than any inside."""
    inner = max((len(run) for run in re.findall(r"`{3,}", code)), default=2)
    fence = "`" * (inner + 1)
    return f"{fence}{language}\n{code.strip()}\n{fence}"


def _counts(fence: Fence, language: str) -> bool:
    tag = _TAG.search(fence.info)
    if tag is None:
        return True
    name = tag.group().lower()
    named = find_language(name, None) or name
    return named == language or any({named, language} <= family for family in _FAMILIES)


def _defines(fence: Fence, language: str) -> bool:
    if language not in LANGUAGES or len(fence.content) > _MAX_CODE_CHARS:
        return False
    source = textwrap.dedent(fence.content).encode("utf-8", "replace")
    return holds_definition(parse(source, language), LANGUAGES[language])


def _versions(fence: Fence, lines: list[str]) -> Iterator[str]:
    yield textwrap.dedent(fence.content)
    for end in range(fence.stop, len(lines)):
        if lines[end].strip().startswith(fence.markup):
            yield textwrap.dedent("\n".join(lines[fence.start + 1 : end]))
