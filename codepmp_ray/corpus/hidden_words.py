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
# The name of a function with what opens its parameters.
_NAME = (
    rb"(?:[A-Za-z_~][\w:~]*(?:<[^;{}()\n]{0,80}>)?"
    rb"|(?:[\w:]+::)?operator[ \t]*(?:\(\)|[^\s\w(]{1,3}))[ \t]*\("
)
_TYPES = rb"(?:[A-Za-z_][\w:]*(?:<[^;{}()\n]{0,80}>)?[\s*&]+){1,6}[*&]*"
_PLAIN = rb"(?:(?:static|extern|inline|const|virtual|constexpr|explicit|friend)[ \t\n]+)*"
_KEYWORD = (
    rb"(?:return|else|case|goto|do|new|delete|throw|typedef|using|typename|class|struct|union|enum"
    rb"|namespace|template|operator|sizeof|register|volatile|mutable|static|extern|inline|const"
    rb"|virtual|constexpr|explicit|friend|unsigned|signed|long|short|char|int|float|double|void"
    rb"|bool|auto|public|private|protected|co_return|co_await|co_yield|if|while|for|switch)\b"
)
_PRIMITIVE = (
    rb"(?:(?:unsigned|signed|long|short)\s+)*"
    rb"(?:bool|char|short|int|long|float|double|void|s?size_t)\b"
)
# Before the type of a function or variable: type and name have to be left.
_SPECIFIERS = re.compile(
    rb"(?m)^([ \t]*" + _PLAIN + rb")(" + _WORD + rb"{1,3})(?=" + _TYPES + _NAME + rb")"
)
# In front of other specifiers.
_STORAGE = re.compile(
    rb"(?m)^([ \t]*)([A-Z][A-Z0-9_]{2,}[ \t]+)(?=(?:static|extern|inline|constexpr|virtual)\b)"
)
# zlib's `local void f(`: three names in a row are none of the language's.
_LOWER = re.compile(
    rb"(?m)^([ \t]*" + _PLAIN + rb")((?!" + _KEYWORD + rb")[a-z_]\w*[ \t\n]+)"
    rb"(?=(?:" + _PRIMITIVE + rb"|(?!" + _KEYWORD + rb")[A-Za-z_][\w:]*(?:<[^;{}()\n]{0,80}>)?)"
    rb"[\s*&]+" + _NAME + rb")"
)
# What libraries call attributes, wherever they stand.
_ATTRIBUTE = re.compile(
    rb"()(\b(?:__(?!attribute|asm|builtin|int|typeof|extension|declspec|func)[a-z]\w*"
    rb"|[A-Za-z]\w*_(?i:(?:no|really_|force_?|always_)?inline|unused|const|restrict|export|api"
    rb"|deprecated|noreturn|nodiscard|cdecl|stdcall|assert_only))\b)(?=[ \t\n]+[A-Za-z_*])"
)
# Between type and name: calling conventions.
_CALLING = re.compile(
    rb"(?m)^([ \t]*(?:[A-Za-z_]\w*[ \t*&]+){1,4})([A-Z][A-Z0-9_]{2,}[ \t\n]+)"
    rb"(?=[A-Za-z_~][\w:~]*[ \t]*\()"
)
_QUALIFIER = re.compile(
    rb"(\((?!\w+[ \t]*\*+[ \t]*\))|\b(?!(?:return|else|case|throw|const|volatile|register|static"
    rb"|extern|inline|struct|union|enum|typedef|virtual|constexpr|typename|friend|unsigned)\b)"
    rb"[A-Za-z_]\w*[ \t]+)([A-Z][A-Z0-9_]{2,}[ \t]*)"
    rb"(?=\*+[ \t]*(?:[A-Za-z_]\w*[ \t]*[;=,)]|\))|(?<=[ \t])[A-Za-z_]\w*[ \t]*[;=,)\[])"
)
# Before a constructor, which has no type.
_CONSTRUCTOR = re.compile(
    rb"(?m)^([ \t]*)(" + _WORD + rb"{1,3})"
    rb"(?=(?:explicit\s+)?[A-Z]\w*[ \t]*\((?:[^(){};]|\([^(){};]*\))*\)\s*:[^:])"
)
# Behind the name of a member: `int n GUARDED_BY(lock);`.
_MEMBER = re.compile(
    rb"(\b(?!" + _KEYWORD + rb")[A-Za-z_]\w*[ \t]+)"
    rb"([A-Z][A-Z0-9_]{3,}[ \t]*\([^()\n;{}]*\))(?=[ \t]*[;={])"
)
# Between `class` and the name.
_CLASS = re.compile(
    rb"\b((?:class|struct|union|enum(?:[ \t]+(?:class|struct))?)[ \t\n]+)"
    rb"((?!(?:class|struct)\b)(?:" + _WORD + rb"{1,3}|[A-Za-z_]\w*[ \t\n]+))"
    rb"(?=(?!final\b)[A-Za-z_]\w*[ \t\n]*(?:final[ \t\n]*)?[:{<])"
)
# Behind the parameters.
_TRAILING = re.compile(
    rb"((?<!\*)\)[ \t\n]*(?:(?:const|override|noexcept)[ \t\n]+)*)"
    rb"([A-Z][A-Z0-9_]{2,}(?:\([^()\n;{}]*\))?)(?=[ \t\n]*[{;])"
)
_CUDA = re.compile(
    rb"()(\b__(?:global|device|host|shared|constant|managed|forceinline|noinline|launch_bounds)__\b"
    rb"(?:[ \t]*\([^()\n]*\))?|<<<[^;{}]*?>>>)"
)
# Before the end of a line that goes on, inside of a macro's definition.
_CONTINUED = re.compile(rb"(?m)()(/\*(?:[^*\n]|\*(?!/))*\*/)(?=[ \t]*\\$)")
# The head of a loop.
_LOOP = re.compile(
    rb"(?m)^([ \t]+)((?:(?:\w*(?i:for_?each)\w*|[A-Z][A-Z0-9_]{3,})"
    rb"[ \t]*\((?:[^();{}]|\([^();{}]*\))*\)(?=\s*\{))"
    rb"|\w*(?i:for_?each)\w*[ \t]*\((?:[^();{}]|\([^();{}]*\))*\)(?=[ \t]*\n\s*\w))"
)
# A line of its own without a semicolon, unless it is a function's type or head.
_STATEMENT = re.compile(
    rb"(?m)^([ \t]*)([A-Z]\w*[A-Z]\w*(?:[ \t]*\([^()\n;{}]*\)(?=[ \t]*(?://.*)?$)(?!\s*\{)"
    rb"|(?=[ \t]*(?://.*)?$)(?!.*\n\s*(?:[*&]*(?!(?:for|while|if|switch)\b)\w+\s*\(|\{))))"
)
# The parameters' types of functions as Kernighan and Ritchie wrote them.
_OLD_STYLE = re.compile(
    rb"(?m)^([A-Za-z_*][\w \t*]*\([ \t]*\w+(?:\s*,\s*\w+)*\s*\)[ \t]*\n)"
    rb"((?:[ \t]*[A-Za-z_][^;{}#=\n]*;[^\n{}]*\n)+)(?=\{)"
)
# Formats between strings: `"%" PRIu64 "\n"`.
_FORMAT = re.compile(rb"(\")([ \t\n]+[A-Za-z_]\w*(?:[ \t\n]*(?=\")|(?=[ \t]*[,)])))")

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
# Types among the arguments of a macro, with their commas.
_FIRST_TYPE = re.compile(
    rb"(\b(?!" + _KEYWORD + rb")[A-Za-z_]\w*[ \t]*\()((?:const\s+)?" + _PRIMITIVE + rb"[\s*]*,)"
)
_TYPE_ARGUMENT = re.compile(
    rb"(\b(?!" + _KEYWORD + rb")[A-Za-z_]\w*[ \t]*\("
    rb"(?:[^()\n;{}\"]|\"[^\"\n]*\"|\([^()\n]*\))*?)"
    rb"(,\s*(?:const\s+)?(?:(?:struct|union|enum)\s+\w+[\s*]*|" + _PRIMITIVE + rb"[\s*]*"
    rb"|[A-Za-z_][\w:]*[ \t]*[*&]+\s*))(?=[,)])"
)
_ONLY_TYPE = re.compile(rb"(\b[A-Z][A-Z0-9_]{2,}[ \t]*\()(" + _PRIMITIVE + rb"[\s*]*)(?=\))")
# A macro that makes a type.
_MADE_TYPE = re.compile(
    rb"((?:\btypedef|\busing[ \t]+\w+[ \t]*=)[ \t]+(?:const[ \t]+)?[A-Z][A-Z0-9_]{3,})"
    rb"(\([^()\n;]*\))"
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
_MACROS = (
    (_CONTINUED, _CUDA, _CLASS, _STORAGE, _SPECIFIERS, _CALLING, _OLD_STYLE),
    (_ATTRIBUTE, _LOWER, _QUALIFIER, _CONSTRUCTOR, _TRAILING, _MEMBER),
    (_LOOP, _STATEMENT, _FIRST_TYPE, _TYPE_ARGUMENT, _ONLY_TYPE, _MADE_TYPE),
    (_FORMAT,),
)
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


def _hide(match: re.Match[bytes], instead: bytes = b" ") -> bytes:
    return match[1] + _SPACES.sub(instead, match[2])
