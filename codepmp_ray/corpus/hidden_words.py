"""Words that a grammar has no place for, hidden from the parser.

`NPY_NO_EXPORT int f(...)`, `class TORCH_API Tensor {`, `Py_BEGIN_ALLOW_THREADS` on a line of its
own, CUDA's `__global__` and `<<<1, 2>>>`: the preprocessor would have taken them away. And what of
TypeScript its grammar does not have: `import("x").A<B>` as a type, `export type *`, the variance of
parameters (`<in T, out U>`). Each is replaced by as many spaces, or by what the grammar has in its
place, so that every place in the text stays what it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
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

# Younger than the grammar of TypeScript, or left out of it.
_VARIANCE = re.compile(
    rb"(?m)(^[ \t]*(?=in\b|out\b)|[<,]\s*)((?:(?:in|out|const)\s+)+)"
    rb"(?=[A-Za-z_$][\w$]*\s*(?:[=,>]|extends\b))"
)
_EXPORT_TYPES = re.compile(rb"(?m)(^[ \t]*export[ \t]+)(type[ \t]+)(?=\*)")
# `global {...}` inside of a module's declaration: what is left is a block.
_GLOBAL = re.compile(rb"(?m)(^[ \t]+)(global)(?=[ \t]*\{)")
# The types of a template's function: sql<Row>`...`.
_TEMPLATE_TYPES = re.compile(rb"([\w$)\]])(<(?:[^<>{}`;]|\{[^{}`]*\}|<[^<>{}`;]*>){1,300}>)(?=`)")
_TYPE_IMPORT = re.compile(rb"()(\bimport\([ \t]*(?:\"[^\"\n]*\"|'[^'\n]*')[ \t]*\))(?=[ \t]*\.)")
# A function that is declared without a name.
_DEFAULT = re.compile(
    rb"(?m)(^[ \t]*)(export[ \t]+default[ \t]+function[ \t]*(?:<[^(){};]*>)?"
    rb"\((?:[^(){};]|\([^(){};]*\)){0,500}\)[ \t]*:[^{};\n]*;)"
)
# Where a member ends with its line and the next one begins with "<".
_NEXT_MEMBER = re.compile(
    rb"([\w>)\]}][ \t]*\n"
    rb"(?:[ \t]*(?://[^\n]*|/\*(?:[^*/]|\*(?!/)|/(?!\*))*\*/[ \t]*)?\n){0,40})([ \t])"
    rb"(?=[ \t]*<\s*[A-Za-z])"
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
_PREPROCESSED = ("c", "cpp", "cuda")
_MACROS = ((_CUDA, _CLASS, _SPECIFIERS, _CALLING), (_TRAILING,), (_STATEMENT, _TYPE_ARGUMENT))
_TYPES = (_EXPORT_TYPES, _GLOBAL, _TEMPLATE_TYPES, _TYPE_IMPORT, _DEFAULT)
_OF_LANGUAGE: dict[str, tuple[tuple[re.Pattern[bytes], ...], ...]] = {
    **dict.fromkeys(_PREPROCESSED, _MACROS),
    "typescript": (_TYPES, (_NEXT_MEMBER,), (_VARIANCE,)),
    "tsx": (_TYPES, (_VARIANCE,)),
}
_INSTEAD = {_TYPE_IMPORT: rb"_", _NEXT_MEMBER: rb";"}


def with_words_hidden(source: bytes, language: str) -> Iterator[bytes]:
    """Versions of `source` with more and more of them hidden; those that differ from it only."""
    hidden = source
    for patterns in _OF_LANGUAGE.get(language, ()):
        before = hidden
        for pattern in patterns:
            hidden = pattern.sub(partial(_hide, instead=_INSTEAD.get(pattern, b" ")), hidden)
        if hidden != before:
            yield hidden
    if language in _PREPROCESSED:
        chosen = _one_alternative(hidden)
        if chosen != hidden:
            yield chosen
        plain = _CONDITIONS.sub(_hide, chosen)
        if plain != chosen and has_whole_conditions(chosen):
            yield plain


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


def _hide(match: re.Match[bytes], instead: bytes = b" ") -> bytes:
    return match[1] + _SPACES.sub(instead, match[2])
