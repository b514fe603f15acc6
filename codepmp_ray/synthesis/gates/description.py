"""Gates on what a description says: a task, in words of its own, in English, without the answer."""

from __future__ import annotations

import re

from codepmp_ray.config.synthesis import GatesConfig
from codepmp_ray.corpus.words import split_words
from codepmp_ray.synthesis.gates.verdict import Rejection, of_field
from codepmp_ray.synthesis.markdown import fences
from codepmp_ray.synthesis.prompts import without_politeness

# Words that an English sentence about code can hardly do without, and other languages have not.
_ENGLISH = frozenset(
    ["the", "of", "to", "and", "that", "for", "with", "this", "which", "from", "by", "be", "are",
     "is", "it", "its", "in", "on", "at", "as", "an", "or", "if", "not", "no", "each", "all",
     "any", "one", "two", "given", "when", "should", "must", "returns", "return", "returning",
     "takes", "take", "using", "use", "into", "over", "write", "implement", "create", "otherwise",
     "has", "have", "their", "them", "than", "then"]
)  # fmt: skip
_MIN_ENGLISH_SHARE, _MIN_ENGLISH_WORDS = 0.15, 8
_MAX_FOREIGN_SHARE = 0.2
_MAX_REQUEST_WORDS = 30  # a longer text may be a task about such words
# A line of code that could be prose is no evidence.
_TELLING_LINE = re.compile(r"(?=.*[^\w\s.,'\"-]).{12,}")
_CODE_LINE = re.compile(
    r"\s*(?:(?:async )?def \w+\(.*|class \w+[(:{].*|import [\w.]+|from [\w.]+ import .*|#include.*"
    r"|(?:if|elif|for|while|with)\b.*[:{]|else:|return\b[^.]*|[\w.\[\]]+ ?[-+*/]?= .*[^.]"
    r"|[\w.]+\([^ ]*\);?|(?:pub )?fn \w+.*|func \w*.*\{|[{})\]]+[;,]?"
    r"|(?:public|private|static|const|let|var|int|void)\b.*[;{])"
)
_TOKEN = re.compile(r"\w+|[^\w\s]")
_MAX_TOKENS, _MIN_SIGNS = 14, 5  # of the snippet in a row, and of them what are no words
# A model that was asked with code and speaks as if there were none.
_ASKS = re.compile(
    r"(?:please|could you|can you|kindly)\W+(?:provide|share|paste|send|post)\b[^.]*\bcode\b"
    r"|\bno (?:\w+ )?code (?:is|was|has been|below|provided|given)"
    r"|\bnot (?:provided|given|included) any code|\b(?:do ?n[o']t|cannot|can't) see any code"
    r"|\bcode is (?:missing|incomplete|not provided|not shown)"
    r"|\bneed more (?:information|context|details) to\b"
    r"|\bnot possible to (?:describe|write|determine)\b",
    re.IGNORECASE,
)


def description(text: str, code: str, asked: str, gates: GatesConfig) -> Rejection | None:
    """`code` is the snippet, `asked` the whole message that the text answers ("" if not known)."""
    words = split_words(without_politeness(text))
    if gates.refusals and (match := _ASKS.search(text)) and len(words) < _MAX_REQUEST_WORDS:
        return of_field("description", "refusal", f"says {match.group()!r}")
    if gates.description_without_code and (found := _code_inside(text, code)):
        return of_field("description", "has_code", found)
    if gates.english_description and (found := _foreign(text, words)):
        return of_field("description", "not_english", found)
    least = gates.min_description_words
    if least is not None and len(words) < least:
        return of_field("description", "too_short", f"{len(words)} words, min={least}")
    triples = set(zip(words, words[1:], words[2:], strict=False))
    own = split_words(asked.replace(code, " ") if code else asked)
    shared = len(triples & set(zip(own, own[1:], own[2:], strict=False))) / max(len(triples), 1)
    if gates.max_echo is not None and shared > gates.max_echo:
        limit = f"max_echo={gates.max_echo:g}"
        return of_field("description", "echo", f"{shared:.0%} of it is the instruction, {limit}")
    return None


def _code_inside(text: str, code: str) -> str:
    if fences(text):
        return "a code block"
    lines = {line.strip() for line in code.split("\n")}
    telling = [line for line in lines if _TELLING_LINE.fullmatch(line)]
    shown = sum(line in text for line in telling)
    if shown >= 2 and 3 * shown >= len(telling):
        return f"{shown} lines of the snippet"
    written = [line for line in text.split("\n") if line.strip()]
    num_code = sum(_CODE_LINE.fullmatch(line) is not None for line in written)
    if num_code >= 2 and 2 * num_code >= len(written):
        return f"{num_code} lines of code"
    tokens = _TOKEN.findall(text)
    num_signs = sum(not token[0].isalnum() for token in tokens)
    if 3 * num_signs >= len(tokens) >= 6 and "".join(tokens) in "".join(code.split()):
        return "a part of the snippet"
    # Behind its first line: a task may name the function that it asks for.
    body = _runs(code.partition("\n")[2])
    return f"{_MAX_TOKENS} tokens of the snippet in a row" if _runs(text) & body else ""


def _runs(text: str) -> set[tuple[str, ...]]:
    """Every run of so many tokens of which some are signs."""
    tokens = _TOKEN.findall(text)
    runs = zip(*(tokens[i:] for i in range(_MAX_TOKENS)), strict=False)
    return {run for run in runs if sum(not token[0].isalnum() for token in run) >= _MIN_SIGNS}


def _foreign(text: str, words: list[str]) -> str:
    letters = [char for char in text if char.isalpha()]
    share = sum(not char.isascii() for char in letters) / max(len(letters), 1)
    if share > _MAX_FOREIGN_SHARE:
        return f"{share:.0%} of its letters are not those of English"
    known = sum(word in _ENGLISH for word in words) / max(len(words), 1)
    if len(words) >= _MIN_ENGLISH_WORDS and known < _MIN_ENGLISH_SHARE:
        return f"{known:.0%} of its words are those that every English text has"
    return ""
