"""Words that a grammar has no place for, hidden from the parser.

`NPY_NO_EXPORT int f(...)`, `class TORCH_API Tensor {`, `Py_BEGIN_ALLOW_THREADS` on a line of its
own, CUDA's `__global__` and `<<<1, 2>>>`: the preprocessor would have taken them away. And the
variance of TypeScript's parameters (`<in T, out U>`), which is younger than its grammar. Each is
replaced by as many spaces, so that every place in the text stays what it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

# One word in capitals, perhaps with arguments: what export and attribute macros look like.
_WORD = rb"(?:[A-Z][A-Z0-9_]{2,}(?:[ \t]*\([^()\n;{}]*\))?[ \t\n]+)"
_SPACES = re.compile(rb"[^\n]")
# Before the type of a function or variable: type and name have to be left.
_SPECIFIERS = re.compile(
    rb"(?m)^([ \t]*(?:(?:static|extern|inline|const|virtual|constexpr|explicit|friend)[ \t\n]+)*)("
    + _WORD
    + rb"{1,3})(?=(?:[A-Za-z_][\w:]*[\s*&]+){1,6}[*&]*[A-Za-z_~][\w:~]*[ \t]*\()"
)
# Between type and name: calling conventions.
_CALLING = re.compile(
    rb"(?m)^((?:[A-Za-z_]\w*[ \t*&]+){1,4})([A-Z][A-Z0-9_]{2,}[ \t\n]+)"
    rb"(?=[A-Za-z_~][\w:~]*[ \t]*\()"
)
# Between `class` and the name.
_CLASS = re.compile(
    rb"\b((?:class|struct|union|enum(?:[ \t]+(?:class|struct))?)[ \t\n]+)("
    + _WORD
    + rb"{1,3})(?=[A-Za-z_]\w*[ \t\n]*(?:final[ \t\n]*)?[:{<])"
)
# Behind the parameters.
_TRAILING = re.compile(
    rb"(\)[ \t\n]*(?:(?:const|override|noexcept)[ \t\n]+)*)"
    rb"([A-Z][A-Z0-9_]{2,}(?:\([^()\n;{}]*\))?)(?=[ \t\n]*[{;])"
)
_CUDA = re.compile(
    rb"()(\b__(?:global|device|host|shared|constant|managed|forceinline|noinline|launch_bounds)__\b"
    rb"(?:[ \t]*\([^()\n]*\))?|<<<[^;{}]*?>>>)"
)
# A line of its own without a semicolon, unless it is a function's type or head.
_STATEMENT = re.compile(
    rb"(?m)^([ \t]*)([A-Z]\w*[A-Z]\w*(?:[ \t]*\([^()\n;{}]*\))?)(?=[ \t]*$)"
    rb"(?!\s*\n\s*(?:[*&]*\w+\s*\(|\{))"
)


_VARIANCE = re.compile(
    rb"(?m)(^[ \t]*|[<,]\s*)((?:(?:in|out|const)\s+)+)(?=[A-Za-z_$][\w$]*\s*(?:[=,>]|extends\b))"
)
# A type among the arguments of a macro, with its comma.
_TYPE_ARGUMENT = re.compile(
    rb"(\b[A-Z][A-Z0-9_]{2,}[ \t]*\([^()\n;{}]*?)"
    rb"(,\s*(?:(?:const|unsigned|signed)\s+)*(?:(?:struct|union|enum)\s+\w+|bool|char|short|int|long"
    rb"|float|double|void|size_t)\b[\s*]*)(?=[,)])"
)
# Errors inside of them spread over all that the outermost one, often the whole file, is around.
_CONDITIONS = re.compile(
    rb"(?m)()(^[ \t]*#[ \t]*(?:if(?:n?def)?|elif(?:n?def)?|else|endif)\b(?:[^\n\\]|\\.|\\\n)*)"
)
_DIRECTIVE = re.compile(rb"(?m)^[ \t]*#[ \t]*(if(?:def|ndef)?|elif\w*|else|endif)\b")
# A line above a definition that belongs to it: nothing but specifiers, with their arguments.
_HEAD_LINE = re.compile(
    rb"[ \t]*(?:(?!Q_)[A-Za-z_]\w*[ \t]*|__\w+[ \t]*\((?:[^()\n]|\([^()\n]*\))*\)[ \t]*)+"
)
_PREPROCESSED = ("c", "cpp", "cuda")
_MACROS = ((_CUDA, _CLASS, _SPECIFIERS, _CALLING), (_TRAILING,), (_STATEMENT, _TYPE_ARGUMENT))
_OF_LANGUAGE: dict[str, tuple[tuple[re.Pattern[bytes], ...], ...]] = {
    **dict.fromkeys(_PREPROCESSED, _MACROS),
    **dict.fromkeys(("typescript", "tsx"), ((_VARIANCE,),)),
}


def with_words_hidden(source: bytes, language: str) -> Iterator[bytes]:
    """Versions of `source` with more and more of them hidden; those that differ from it only."""
    hidden = source
    for patterns in _OF_LANGUAGE.get(language, ()):
        before = hidden
        for pattern in patterns:
            hidden = pattern.sub(_hide, hidden)
        if hidden != before:
            yield hidden
    if language in _PREPROCESSED:
        chosen = _one_alternative(hidden)
        if chosen != hidden:
            yield chosen
        plain = _CONDITIONS.sub(_hide, chosen)
        if plain != chosen and has_whole_conditions(chosen):
            yield plain


def hidden_head(source: bytes, parsed: bytes, offset: int, start: int) -> int:
    """Where what begins at the byte `start` of `source` begins with the words before it that were
    hidden: `__global__`, `EXPORT_API`.

    Args:
        parsed: what the parser saw of `source`, from the byte `offset` on.
    """
    first = start
    while first > offset and parsed[first - offset - 1 : first - offset].isspace():
        first -= 1
    first = first if first > offset else 0  # before the tree there is white space only
    lines = source[first:start].split(b"\n")
    head = end = start
    for i in reversed(range(len(lines))):
        line = lines[i]
        if i < len(lines) - 1 and (
            not line.strip() or not _HEAD_LINE.fullmatch(line) or (i == 0 and first > 0)
        ):
            break
        head = end - len(line.lstrip()) if line.strip() else head
        end -= len(line) + 1
    return head


def has_whole_conditions(source: bytes) -> bool:
    """Whether each `#else` and `#endif` has its `#if` and each `#if` its end."""
    depth = 0
    for match in _DIRECTIVE.finditer(source):
        depth += match[1].startswith(b"if") - (match[1] == b"endif")
        if depth < 0 or (depth == 0 and match[1].startswith(b"el")):
            return False
    return depth == 0


def _one_alternative(source: bytes) -> bytes:
    """Of each `#if` whose branches open other braces than they close, the first branch alone."""
    lines = source.split(b"\n")
    groups: list[list[int]] = []  # of each open one the lines of its directives
    for number, line in enumerate(lines):
        match = _DIRECTIVE.match(line)
        if match is None:
            continue
        if match[1].startswith(b"if"):
            groups.append([number])
        elif groups:
            groups[-1].append(number)
        if match[1] == b"endif" and groups:
            places = groups.pop()
            branches = [b"\n".join(lines[a + 1 : b]) for a, b in pairwise(places)]
            if any(branch.count(b"{") != branch.count(b"}") for branch in branches):
                for i in (places[0], *range(places[1], places[-1] + 1)):
                    lines[i] = b" " * len(lines[i])
    return b"\n".join(lines)


def _hide(match: re.Match[bytes]) -> bytes:
    return match[1] + _SPACES.sub(b" ", match[2])
