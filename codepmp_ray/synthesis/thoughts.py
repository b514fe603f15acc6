"""The channels of a model's output: what it thought, and what it answers.

Reasoning models write a thought before their answer, in tags of their family; some templates write
the opening tag themselves, so that only the closing one is in the output. Only the answer is data.
"""

from __future__ import annotations

import re
from bisect import bisect

_NAMES = r"(?:think|thinking|thought|reasoning|seed:think|mm:think|longcat_think)"
# DeepSeek, Qwen, GLM and others; Mistral; Kimi; OpenThoughts and Cohere; Gemma; gpt-oss.
_OPENING = re.compile(
    rf"^[ \t]*(?:<{_NAMES}>|\[THINK\]|◁think▷|<\|(?:begin_of_thought|START_THINKING)\|>"
    r"|<\|channel>thought|<\|channel\|>analysis<\|message\|>)",
    re.MULTILINE,
)
# A tag in quotes is code about tags.
_CLOSING = re.compile(
    rf"(?<![\"'\\])(?<!(?<!``)`)(?:</{_NAMES}>|\[/THINK\]|◁/think▷|<\|(?:end_of_thought|END_THINKING)\|>"
    r"|<channel\|>|<\|channel\|>final<\|message\|>|^analysis(?s:.*)assistantfinal)(?![\"'\\]|`(?!``))"
)
_FENCE_LINE = re.compile(r"^[ \t]*(?:`{3}|~{3})", re.MULTILINE)
# What some of them put around the answer.
_AROUND = re.compile(
    r"\s*(?:<answer>(.*)</answer>|<\|begin_of_solution\|>(.*)<\|end_of_solution\|>"
    r"|<\|START_RESPONSE\|>(.*)<\|END_RESPONSE\|>)\s*",
    re.DOTALL,
)


def split_thought(text: str) -> tuple[str, bool]:
    """(the answer, whether a thought was begun and not ended). Without thoughts the text itself.

    The answer begins behind the last closing tag. Tags inside a code block are code, unless the
    text begins with a thought, which may hold half a block.
    """
    fences = [match.start() for match in _FENCE_LINE.finditer(text)]

    def in_prose(match: re.Match[str]) -> bool:
        return bisect(fences, match.start()) % 2 == 0

    openings = [match for match in _OPENING.finditer(text) if in_prose(match)]
    begins_with_one = bool(openings) and not text[: openings[0].start()].strip()
    closings = list(_CLOSING.finditer(text))
    outside = [match for match in closings if in_prose(match)]
    closings = outside or (closings if begins_with_one else [])
    if not closings:
        return text, bool(openings)
    end = closings[-1].end()
    answer = text[end:]
    if found := _AROUND.fullmatch(answer):
        answer = next(part for part in found.groups() if part is not None)
    return answer, any(match.start() >= end for match in openings)
