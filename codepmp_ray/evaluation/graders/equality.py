"""Are two answers equal? Words as words, numbers by value, all other mathematics by Math-Verify.

Math-Verify compares SymPy's objects. Its own search for answers in text is not used, since it takes
a part for the whole ("1 - \\sqrt{2}" for 1). Its time limits use SIGALRM, which counts wall-clock
time (a busy machine changes verdicts) and cannot stop what runs inside C. They are off:
`graders.limits` bounds each answer by the processor time that it takes.

Questions are asked again and again in a pool (256 answers, few distinct ones), so verdicts are
remembered.
"""

from __future__ import annotations

import logging
import re
from functools import cache, lru_cache
from typing import Any

from codepmp_ray.evaluation.graders.final_answer import claim
from codepmp_ray.evaluation.graders.formulas import formula, parsed
from codepmp_ray.evaluation.graders.notation import folded, readable, tidy
from codepmp_ray.evaluation.graders.numbers import same_value, stated_number, written

_REMEMBERED = 1 << 16
_WORDS = re.compile(r"[^\W\d_]+(?: [^\W\d_]+)*")
_LETTERED = re.compile(r"(?:\\text\s*\{\s*)?\(([A-J])\)[.:]?\s*\}?\s*(?:\\text\s*\{)?(.*\w.*)")
_BASED = re.compile(r"([0-9A-Fa-f]+)\s*_\s*\{?(?:\\text\s*\{)?\s*(\w+)\s*\}*")
_NAMED_DAY = re.compile(r"\\text\s*\{\s*[^\W\d_]{3,}[^{}]*\}")  # \text{June 20}
_ABOUT = re.compile(r"\\approx(?![a-zA-Z])|\u2248")
_NAMED = re.compile(r"(?:^|(?<=,))\s*[a-zA-Z](?:_\{?\w\}?)?\s*(?:=|\\in(?![a-zA-Z]))\s*")


@lru_cache(maxsize=_REMEMBERED)
def same_answer(reference: str, answer: str, in_math: bool) -> tuple[bool, str]:
    """(whether two answers say the same, the second one in a form for people and for votes).

    Args:
        reference: LaTeX.
        answer: LaTeX where `in_math`, else what a text says is its answer.
    """
    expected, given = tidy(readable(reference)), answer if in_math else claim(answer)
    words, said = folded(expected), folded(given)
    if lettered := _LETTERED.fullmatch(tidy(given)):  # "(C) 42", as competitions have it
        given = lettered[1 if len(words) == 1 and words.isalpha() else 2].rstrip("}")
        said = folded(given)
    if _WORDS.fullmatch(words):
        if words == said:
            return True, said
        if "\\text" in expected or max(map(len, words.split())) > 3:
            return False, said
    if _NAMED_DAY.fullmatch(expected):
        return words == said, said
    if ":" in expected and ":" in given:  # times and ratios; as quotients 5:30 would be 2:12
        return re.findall(r"\d+", expected) == re.findall(r"\d+", given), said
    # Of "10/3, about 3.33" either side may be meant.
    verdicts = [_same_side(expected, side, in_math) for side in _ABOUT.split(given)]
    return next((verdict for verdict in verdicts if verdict[0]), verdicts[0])


@cache
def load_library() -> None:
    """Import and build what the first answer would otherwise have to wait for."""
    same_answer("\\frac{x}{2}", "0.5x", True)


def _same_side(expected: str, given: str, in_math: bool) -> tuple[bool, str]:
    # In LaTeX "3,5" is a list, whatever it is in German.
    lists = [re.sub(r"(?<=\d),(?=\d{1,2}(?!\d))", ", ", text) for text in (expected, given)]
    value = None if "=" in expected else stated_number(lists[0], True)
    found = None if value is None else stated_number(lists[1], in_math)
    if value is not None and found is not None:
        equal = same_value(value, found)
        if ("%" in given) != ("%" in expected):
            equal |= same_value(value, found / 100 if "%" in given else found * 100)
        return equal, written(found)
    left, right = formula(expected), formula(given, in_math)
    bases = [_BASED.fullmatch(text) for text in (left, right)]
    if any(bases):  # a base that only one of them names is the question's
        digits = {
            base[1] if base else text for base, text in zip(bases, (left, right), strict=True)
        }
        return len(digits) == 1 == len({base[2] for base in bases if base}), right
    return _same_mathematics(left, right if "=" in left else _NAMED.sub("", right))


def _same_mathematics(expected: str, given: str) -> tuple[bool, str]:
    left, right = _as_one_set(parsed(expected)), _as_one_set(parsed(given))
    if left is None or right is None:
        return "".join(expected.split()) == "".join(given.split()) != "", given
    if _is_other_equation(left, right):
        return False, str(right)[:1000]
    equal = _library().verify(left, right, allow_set_relation_comp=True, timeout_seconds=None)
    return bool(equal), str(right)[:1000]


def _as_one_set(answer: Any) -> Any:
    """Of inequalities that "or" joins, the union; everything else as it is."""
    from sympy import And, Eq, FiniteSet, Union
    from sympy.core.relational import Relational

    parts: tuple[Any, ...] = answer.args if isinstance(answer, FiniteSet) else ()
    are_all = all(isinstance(part, Relational | And) and not part.has(Eq) for part in parts)
    if len(parts) < 2 or not are_all or len(answer.free_symbols) > 1:
        return answer
    return Union(*(part.as_set() for part in parts))


def _is_other_equation(expected: Any, given: Any) -> bool:
    """Whether `given` is an equation whose right side is no answer: 3x - y + 13 = 0 is not 0."""
    from latex2sympy2_extended import is_expr_of_only_symbols
    from sympy import And, Eq
    from sympy.core.function import AppliedUndef
    from sympy.core.relational import Relational

    first = getattr(given, "_unsorted_args", given.args)[0] if isinstance(given, And) else given
    if isinstance(expected, Relational | And) or not isinstance(first, Eq):
        return False
    is_name = is_expr_of_only_symbols(first.lhs) or isinstance(first.lhs, AppliedUndef)
    return bool(first.lhs.free_symbols) and not is_name


@cache
def _library() -> Any:
    import math_verify

    # It warns that its time limits are off.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    return math_verify
