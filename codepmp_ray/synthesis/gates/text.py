"""Gates that look at one text alone: is it whole, is it text, does it say anything?"""

from __future__ import annotations

import re
import zlib

from codepmp_ray.config.synthesis import GatesConfig
from codepmp_ray.synthesis.gates.verdict import Rejection, of_field

# Fence markers alone (an empty code block) say as little as nothing at all.
_FENCE_LINE = re.compile(r"^[^\S\n]*(`{3,}|~{3,})[^\n]*$", re.MULTILINE)
# Half of a surrogate pair has no UTF-8 form; models and JSON can spell it all the same.
_SURROGATE = re.compile("[\ud800-\udfff]")
# How chat models begin to decline. Anchored: "I cannot" in a docstring is no refusal.
_REFUSAL = re.compile(
    r"\W*+(?:(?:i['\u2019]?m|i am) (?:very |so |really )?(?:sorry|unable|not able)\b"
    r"|(?:my )?apolog(?:y|ies|i[sz]e)\b|i (?:apologi[sz]e|must apologi[sz]e)\b|sorry\b"
    r"|i (?:can(?:not|['\u2019]?t| not)|won['\u2019]?t|will not|do not|don['\u2019]?t)\b"
    r"|unfortunately,? i\b|as an ai\b|as a (?:large )?language model\b)",
    re.IGNORECASE,
)
# Shorter texts compress badly whatever they say, and a short loop does no harm.
_MIN_REPETITION_BYTES = 200


def clean(text: str) -> str:
    """`text` with every half surrogate replaced: what can be stored of it."""
    return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)


def not_text(field: str, text: str) -> Rejection | None:
    """NUL characters and half surrogates: no tokenizer, parser or data file takes both."""
    if (found := text.find("\0")) >= 0:
        return of_field(field, "not_text", f"NUL at character {found}")
    if match := _SURROGATE.search(text):
        return of_field(field, "not_text", f"half a surrogate pair at character {match.start()}")
    return None


def empty(field: str, text: str, num_tokens: int) -> Rejection | None:
    """Nothing but blank space and fence markers."""
    if _FENCE_LINE.sub("", text).strip():
        return None
    return of_field(field, "empty", f"{num_tokens} tokens")


def cut_off(field: str, finish_reason: str, num_tokens: int) -> Rejection | None:
    """The engine stopped for another reason than the end of the answer."""
    if finish_reason == "stop":
        return None
    return of_field(field, "cut_off", f"{num_tokens} tokens, {finish_reason}")


def repetitive(field: str, text: str, gates: GatesConfig) -> Rejection | None:
    """The model fell into a loop: the text compresses better than anything that says something."""
    data = text.encode()
    if gates.max_compression_ratio is None or len(data) < _MIN_REPETITION_BYTES:
        return None
    ratio = len(data) / len(zlib.compress(data))
    if ratio <= gates.max_compression_ratio:
        return None
    limit = f"max_compression_ratio={gates.max_compression_ratio:g}"
    return of_field(field, "repetitive", f"compresses {ratio:.1f} times, {limit}")


def refusal(field: str, text: str, gates: GatesConfig) -> Rejection | None:
    """The text begins as chat models decline. Call it for texts without code only."""
    if not gates.refusals or not (match := _REFUSAL.match(text)):
        return None
    return of_field(field, "refusal", f"begins with {match.group().strip()!r}")
