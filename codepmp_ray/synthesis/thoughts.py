"""The channels of a model's output: what it thought, and what it answers.

Reasoning models write a thought before their answer, in tags of their family; some templates write
the opening tag themselves, so that only the closing one is in the output. Only the answer is data.
"""

from __future__ import annotations

import re
from bisect import bisect

_NAMES = (
    r"(?i:(?:seed:|mm:)?think|thinking(?:_process)?|thoughts?|reason(?:ing)?|longcat_think|reflection"
    r"|scratchpad|analysis)"
)
# DeepSeek, Qwen, GLM and others; Mistral; Kimi; OpenThoughts and Cohere; Gemma; MedGemma; gpt-oss.
_OPENING = re.compile(
    rf"^[ \t]*(?:<\s*{_NAMES}\s*>|\[THINK\]|◁think▷"
    r"|<\|(?:begin_of_thought|START_THINKING|think(?:ing)?)\|>|<unused94>thought\b"
    r"|<\|channel>thought|<\|channel\|>analysis<\|message\|>|(?<!.)(?<!\n)analysis(?=[A-Z]))",
    re.MULTILINE,
)
# A tag in quotes is code about tags, and one in the middle of a sentence is what it speaks of.
_CLOSING = re.compile(
    rf"(?<![\"'\\])(?<!(?<!``)`)(?:<\s*/\s*{_NAMES}\s*>"
    r"|\[/THINK\]|◁/think▷|<\|(?:end_of_thought|END_THINKING|/think(?:ing)?)\|>|<unused95>"
    r"|<channel\|>|<\|channel\|>final<\|message\|>|^analysis(?s:.*)assistantfinal"
    r"|^Here(?: i|')s my (?:thought|reasoning) process:(?s:.*?)\nHere(?: i|')s my response:)"
    r"(?![\"'\\]|`(?!``)|(?<=[^\n]) +[a-z])"
)
_FENCE_LINE = re.compile(r"^[ \t]*(?:`{3}|~{3})", re.MULTILINE)
# What some of them put around the answer.
_AROUND = re.compile(
    r"\s*(?:<(answer|response|output|solution)>(?P<a>.*)</\1>"
    r"|<\|begin_of_solution\|>(?P<b>.*)<\|end_of_solution\|>"
    r"|<\|START_(RESPONSE|TEXT)\|>(?P<c>.*)<\|END_\4\|>)\s*",
    re.DOTALL,
)
# Where a turn begins and ends, if an engine leaves that in the text: what follows is another turn.
_TURN_BEGINS = re.compile(
    r"\s*(?:<\|(?:im_start|start_header_id|start)\|>assistant(?:<\|end_header_id\|>)?|<\|assistant\|>)\s*"
)
_TURN_ENDS = re.compile(
    r"(?<![\"'\\])(?<!(?<!``)`)(?:<\|(?:im_end|im_start|endoftext|eot_id|eom_id|end_of_text|end|return|start_header_id)\|>"
    r"|<(?:end|start)_of_turn>|<\uff5c(?:end▁of▁sentence|User)\uff5c>|</s>\s*\Z)"
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
        return (text if openings else _one_turn(text)), bool(openings)
    end = closings[-1].end()
    return _one_turn(text[end:]), any(match.start() >= end for match in openings)


def _one_turn(answer: str) -> str:
    """`answer` without the marks of turns, further turns, and the tags around it."""
    if "<" not in answer:
        return answer
    if match := _TURN_BEGINS.match(answer):
        answer = answer[match.end() :]
    fences = [match.start() for match in _FENCE_LINE.finditer(answer)]
    ends = (match.start() for match in _TURN_ENDS.finditer(answer))
    end = next((end for end in ends if bisect(fences, end) % 2 == 0), None)
    if end is not None:
        answer = answer[:end].rstrip()
    if found := _AROUND.fullmatch(answer):
        answer = next(part for part in found.group("a", "b", "c") if part is not None)
    return answer
