"""Fenced code blocks of a text by a CommonMark parser, and lines as that parser counts them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from markdown_it import MarkdownIt

# Blocks only: what stands inside a paragraph is never looked at.
_MARKDOWN = MarkdownIt("commonmark").disable("inline")
# CommonMark, section 2.1. `str.splitlines` also splits at form feeds and Unicode's separators,
# which code may hold; line numbers would then be those of other lines.
_NEWLINE = re.compile(r"\r\n?|\n")


@dataclass(frozen=True)
class Fence:
    """One fenced block.

    `markup` is its run of backticks or tildes, `info` the words behind it; [start, stop) are its
    lines in the text, those of the fence included.
    """

    info: str
    content: str
    markup: str
    start: int
    stop: int


def fences(text: str) -> list[Fence]:
    """Every fenced block, in order, those inside lists and quotations too."""
    return [
        Fence(token.info, token.content, token.markup, token.map[0], token.map[1])
        for token in _MARKDOWN.parse(text)
        if token.type == "fence" and token.map
    ]


def split_lines(text: str) -> list[str]:
    """The lines that `Fence.start` and `stop` count."""
    return _NEWLINE.split(text)
