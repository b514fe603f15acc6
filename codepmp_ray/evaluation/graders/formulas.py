"""The mathematics of an answer as one piece of LaTeX, and as SymPy's object."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise
from typing import Any

from codepmp_ray.evaluation.graders.final_answer import claim
from codepmp_ray.evaluation.graders.notation import has_digit, tidy

MATH = re.compile(
    r"\$\$(.+?)\$\$|(?<![\\\d])\$(?!\s)([^$\n]+?)(?<!\s)\$(?!\d)|\\\((.+?)\\\)|(?<!\\)\\\[(.+?)\\\]",
    re.DOTALL,
)
_JOIN = re.compile(r"[\s,;]*(?:and|or)?\s*", re.IGNORECASE)
_GOES_ON = re.compile(r"\s*(?:,|;|and\b|or\b|to\b|[-+*/^=])\s*[-\d\u221a\\]")
_FUNCTION = "(?:arc)?(?:sin|cos|tan)|sqrt|sec|csc|cot|log|ln|exp|pi|theta|alpha|beta|gamma|lambda"
# Words that change the value of the number before them, and of the one behind them.
_CHANGES = (
    r"(?:half|halves|root|squared|cubed|factorial|modulo|(?:third|fourth|fifth|tenth|hundredth)s"
    r"|infinity|or (?:more|less|fewer|greater|higher|lower|above|below|over|under))\b"
)
_CHANGES_NEXT = (
    r"(?:(?:not|between|from|than|least|most|over|under|above|below|up to|half|twice|double|root)"
    r"(?: of)?\s*[-(]?\d|(?:square|cube|reciprocal|opposite|inverse|negative|sum|product) of\b)"
)
_SCALES = {"hundred": 2, "thousand": 3, "lakh": 5, "million": 6, "billion": 9, "trillion": 12}
_SIGNS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\text\s*\{([^{}]*\d[^{}]*)\}", r" \1 "),
        # Of numbers side by side the parser makes mixed fractions.
        (r"(?<=[\d)])(?<![_^]\d)\s*\(", r"\\cdot ("),
        (r"(?:\u221a|\\?(?<![a-zA-Z])sqrt)\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"\u221a\s*(\d+(?:\.\d+)?|[a-zA-Z])", r"\\sqrt{\1}"),
        ("\u221a", r"\\sqrt "),
        (r"(?<![a-zA-Z\\])(?:infinity|inf|oo)(?![a-zA-Z])|\u221e", r"\\infty "),
        (rf"(?<![a-zA-Z\\{{])({_FUNCTION})(?![a-zA-Z])", r"\\\1 "),
        ("\u03c0", r"\\pi "),
        ("\u00d7|(?<=[\\d)]) ?x ?(?=[\\d(])", r"\\times "),
        ("\u00b7", r"\\cdot "),
        ("\u00f7", r"\\div "),
        (r"(?<=\d)[eE](?=[-+]?\d)", "E"),
        *((rf"(?<=\d)\s*{name}s?\b", rf"\\times 10^{{{n}}}") for name, n in _SCALES.items()),
        (r"\b(?:minus|negative)\s+(?=[\d.])", "-"),
        (r"\s+plus\s+(?=[\d.])", "+"),
        (r"\s+(?:times|multiplied by)\s+(?=[\d.])", r"\\times "),
        (r"\s+divided by\s+(?=[\d.])", "/"),
        (r"(?<=\d)\s+and\s+(?:a|one)\s+half\b", " 1/2"),
        (r"(?<=\d):00(?!\d)|(?<=\d)\s*(?:[ap]\.\s?m\b\.?|o'clock\b)", ""),
        (r"\*\*", "^"),
        (r"\^\s*(?:\(([^()]*)\)|(-?\d+))", r"^{\1\2}"),
        (
            r"[\s,]*(?:\\text\s*\{\s*(?:and|or)\s*\}|(?<![a-zA-Z\\])(?:and|or)(?![a-zA-Z])"
            r"(?!\s+(?:more|less|fewer|greater|higher|lower|above|below|over|under)\b))\s*",
            ", ",
        ),
    )
]
_UNIT = (
    r"(?:[mcdkn]ms?|in|ft|yd|mi|[mk]gs?|lbs?|oz|[mdc][lL]|[mn]s|mins?|hrs?|secs?|[ap]m|AM|PM|st|nd|rd|th"
    r"|[mk]ph|kmh|[kMG]?Hz|[kM]W|kWh|kJ|kPa|[kKMGT]B|USD|EUR|GBP|mol|sq|cu|cc|dB)"
)
_TEXT = r"\\text\s*\{[^{}\d]*\}"
_FOREIGN = r"[^\W\d_a-zA-Z\u0370-\u03ff]+"  # no Latin or Greek letter, so no variable
_PREPOSITION = (
    r"(?:in|for|after|per|at|every|within|during|on|each|rather|with|if|from|before|than(?!\s*[-\d])"
    r"|to [a-z]+|of (?:the|these|those|them|all|his|her|its|their))\b"
)


def _word(num_letters: int, not_before: str) -> str:
    return rf"(?!(?:{_FUNCTION})\b|{not_before})[^\W\d_]{{{num_letters},}}"


def _lead(in_math: bool) -> re.Pattern[str]:
    """Words before a number."""
    word = _word(4 if in_math else 2, _CHANGES_NEXT)
    word += r"(?:'s)?(?:-(?=[^\W\d_])|[,:.']*\s+(?:=\s*)?|\s*[=:]\s*)"
    one = rf"{_TEXT}\s*[=:]?\s*|{word}|[aAI]\s|[A-Z]\s(?=[a-z])|{_FOREIGN}\s*|[~#\u2192\"]\s*"
    return re.compile(rf"(?:{one})+(?=[-+(\[\\.\d|{{]|[a-z]\b)")


def _units(in_math: bool) -> re.Pattern[str]:
    """Units and other words behind a number, and outside formulas the clauses that follow them."""
    no_letter, word = r"(?![a-zA-Z])", _word(4 if in_math else 2, _CHANGES)
    one = rf"{_TEXT}|\\?%|(?<=[\s/\d-]){_UNIT}{no_letter}|(?<=[\s/-]){word}|(?<=/)[a-zA-Z]+"
    if not in_math:
        one += rf"|(?<=\d)(?:{_word(4, _CHANGES)}|[gL]{no_letter}|\\?[\"'])|(?<=[\s\d]){_FOREIGN}"
        one += rf"|(?<=\s)(?:[amgshlLVWNJACFK]|an){no_letter}"
    units = rf"(?:[\s/-]*(?:{one})(?:\s*\^?\s*\{{?-?[23]\}}?(?!\d))?['.]?)+[\s/]*"
    if in_math:
        units += "$"
    else:
        # What follows a comma holds no number: "12 apples, or perhaps 13" is not 12.
        units += rf"(?:$|\s*[,;:(-]\D*$|\s*\b{_PREPOSITION}.*)|\s*[,;:(]\s*{word}\D*$"
        units += rf"|\s*,?\s*(?:not|instead|rather)\b.*|\s+(?!in\s*\d){_PREPOSITION}.*"
    return re.compile(rf"(?:(?<=[\d)}}\]])|(?<=\\pi)|(?<=\\pi ))(?:{units})", re.DOTALL)


_LEADS, _ENDS = ({in_math: make(in_math) for in_math in (True, False)} for make in (_lead, _units))


def formula(text: str, in_math: bool = True) -> str:
    """What a parser of LaTeX is to read of a stated answer: no explanations, words or units.

    What is no word or unit stays, so that "7k" or "12 or 13" are not taken for a number.
    """
    latex = tidy(text if in_math else _mathematics(claim(text)))
    for pattern, replacement in _SIGNS:
        latex = pattern.sub(replacement, latex)
    if lead := _LEADS[in_math].match(latex):
        latex = latex[lead.end() :]
    return _ENDS[in_math].sub("", latex).lstrip(" ,;:").rstrip(" .,;:")


@lru_cache(maxsize=1 << 12)
def parsed(latex: str) -> Any:
    """SymPy's object for all of `latex`, or None where it cannot be parsed."""
    from latex2sympy2_extended import NormalizationConfig, latex2sympy
    from math_verify.grader import should_treat_as_complex

    if re.search(r"(?<![a-zA-Z\\{])[a-zA-Z]{4,}", latex):  # a sentence, no product of letters
        return None
    # Its units are letters ("3t" would be 3), and of several boxes it takes all.
    normalisation = NormalizationConfig(True, False, True, True, "none")
    if "\\sum" not in latex:  # there it counts
        latex = re.sub(r"(?<![a-zA-Z\\_])i(?![a-zA-Z])", "I", latex)
    is_real = not should_treat_as_complex(latex)
    try:
        return latex2sympy(latex, is_real=is_real, normalization_config=normalisation)
    except Exception:  # noqa: BLE001 - whatever a parser raises over a model's text
        return None


def _mathematics(said: str) -> str:
    """The formulas of a statement, as a list where several are joined; all of it without any."""
    found = list(MATH.finditer(said))
    if not found or has_digit(said[: found[0].start()]):
        return said
    parts = found[:1]
    for before, after in pairwise(found):
        if not _JOIN.fullmatch(said[before.end() : after.start()]):
            break
        parts.append(after)
    if _GOES_ON.match(said[parts[-1].end() :]):
        return said
    return joined(parts)


def joined(formulas: list[re.Match[str]]) -> str:
    """Matches of MATH as one list."""
    return ", ".join(next(filter(None, match.groups())) for match in formulas)
