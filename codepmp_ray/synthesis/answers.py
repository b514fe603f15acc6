"""The code in a model's answer, found by a CommonMark parser and checked by a language's parser.

Only blocks of the asked language count: those tagged with it or with one of its family, and those
without a tag. Of several the longest that defines something is the answer: examples of use define
nothing, and tests something else. One further down that defines the same again is what the model
ended with. A docstring may itself hold a fence, at which the block then ends too early, so a block
that does not parse is tried again up to each later fence line.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from codepmp_ray.corpus.definition_nodes import outer_names
from codepmp_ray.corpus.languages import LANGUAGES, find_language, is_valid, parse
from codepmp_ray.synthesis.markdown import Fence, fences, split_lines

_TAG = re.compile(r"[A-Za-z0-9_+#-]+")
_FILE_NAME = re.compile(r"[\w./\\-]*\.\w+")
_PREFIX = re.compile(r"(?:lang(?:uage)?|file(?:name)?|title|path)[-=: ]+", re.IGNORECASE)
_VERSION = re.compile(r"[\d.]+$")
_NO_LANGUAGE = frozenset({"code", "text", "txt", "plaintext", "plain", "snippet"})
# What else models call a language, beside its name, its extensions and its interpreters.
_OTHER_NAMES = {"typescriptreact": "tsx", "javascriptreact": "javascript", "react": "javascript"}
_TEST = re.compile(r"test|.*(?:tests?|spec)$", re.IGNORECASE)
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
    main = _main_block(blocks, language)
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
    named = _tagged(fence.info)
    return named in ("", language) or any({named, language} <= family for family in _FAMILIES)


def _tagged(info: str) -> str:
    """The language that the words behind a fence name, or what they say instead; "" for none."""
    info = _PREFIX.sub("", info.strip())
    tag = _TAG.search(info)
    if tag is None:
        return ""
    name = tag.group().lower()
    if found := find_language(name, None) or find_language(_VERSION.sub("", name), None):
        return found
    if name in _NO_LANGUAGE:
        return ""
    path = _FILE_NAME.search(info)
    named = find_language(None, path.group() if path else f"x.{name}")
    return named or find_language(None, None, f"#!{name}".encode()) or _OTHER_NAMES.get(name, name)


def _main_block(blocks: list[Fence], language: str) -> Fence:
    longest = sorted(blocks, key=lambda fence: len(fence.content), reverse=True)[:_MAX_BLOCKS]
    names = {fence.start: _defined(fence, language) for fence in longest}
    defining = [fence for fence in longest if names[fence.start]]
    if not defining:
        return next((fence for fence in longest if _tagged(fence.info)), longest[0])
    own = [fence for fence in defining if not all(map(_TEST.match, names[fence.start]))]
    main = (own or defining)[0]
    again = [fence for fence in own if names[fence.start] >= names[main.start]]
    return max(again, key=lambda fence: fence.start, default=main)


def _defined(fence: Fence, language: str) -> frozenset[str]:
    """Names of what a block defines at its top level."""
    if language not in LANGUAGES or len(fence.content) > _MAX_CODE_CHARS:
        return frozenset()
    source = textwrap.dedent(fence.content).encode("utf-8", "replace")
    return frozenset(outer_names(parse(source, language), LANGUAGES[language]))


def _versions(fence: Fence, lines: list[str]) -> Iterator[str]:
    yield textwrap.dedent(fence.content)
    if (code := fence.content.rstrip()).endswith(fence.markup):  # on the last line of the code
        yield textwrap.dedent(code.removesuffix(fence.markup))
    for end in range(fence.stop, len(lines)):
        if lines[end].strip().startswith(fence.markup):
            yield textwrap.dedent("\n".join(lines[fence.start + 1 : end]))
