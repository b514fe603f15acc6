"""One way of writing for what models write in many: characters, emphasis, LaTeX, units.

Nothing here decides what an answer is; `final_answer` finds it and `equality` compares it.
"""

from __future__ import annotations

import re
import unicodedata

_CHARACTERS = str.maketrans(
    dict.fromkeys("\u200b\u200c\u200d\u200e\u200f\u2060\u2061\u2062\u2063\ufeff", "")
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d\u207b\u208b", "-")
    | dict.fromkeys("\u2014\u2015", "; ")
    | dict.fromkeys("\u2018\u2019\u201b", "'")
    | dict.fromkeys("\u201c\u201d\u201f", '"')
    | dict.fromkeys("\u2044\u2215", "/")
    | dict.fromkeys("\u22c5\u2219", "·")
    | dict.fromkeys("\u00ba\u02da", "°")
    | dict.fromkeys("\u2715\u2716\u2a2f", "\u00d7")
    | {"\u3002": ". ", "\u3001": ", ", "\u066b": ".", "\u066c": ",", "\u2217": "*", "\u207a": "+"}
    # Their compatibility form is a letter like any other.
    | {"\u211d": r"\mathbb{R}", "\u2124": r"\mathbb{Z}", "\u2115": r"\mathbb{N}"}
)
_GROUPED_BY_SPACE = re.compile(r"(?<=\d)[\u00a0\u2007\u2009\u202f](?=\d{3}(?!\d))")
_RAISED = re.compile(r"[-+]?[⁰¹²³⁴-⁹]+")
_LOWERED = re.compile(r"[₀-₉]+")
_PICTURES = re.compile(r"[\u2600-\u27bf\ufe0f\U0001f300-\U0001faff]")
_VULGAR = re.compile(r"[¼-¾⅐-⅞]")
_EMPHASIS = re.compile(
    r"(?<![\w)\]}])\*\*(?=\S)|(?<=\S)\*\*(?![\w(\[])|(?<!\w)__(?=\w)|(?<=\w)__(?!\w)|`"
    r"|</?(?:b|i|u|em|strong|p|span)>|~~(?=\S)[^~\n]*~~",  # struck out
    re.IGNORECASE,
)
_ITALIC = re.compile(r"(?<![\w*)\]}])\*(?=[^\s*])([^*\n]*?)(?<=[^\s*])\*(?![\w*(])")


def has_digit(text: str) -> bool:
    return any(map(str.isdigit, text))


def readable(text: str) -> str:
    """Digits, minus signs, quotes and spaces of all scripts in ASCII; no emphasis of Markdown."""
    if not text.isascii():
        text = _GROUPED_BY_SPACE.sub("", text).translate(_CHARACTERS)
        text = _RAISED.sub(lambda match: f"^{{{_compatible(match[0])}}}", text)
        text = _LOWERED.sub(lambda match: f"_{{{_compatible(match[0])}}}", text)
        text = _PICTURES.sub(" ", text)
        text = _VULGAR.sub(lambda match: f" {_compatible(match[0])}", text)
        text = "".join(
            str(unicodedata.decimal(char)) if char.isdecimal() else char
            for char in _compatible(text)
        )
    return _ITALIC.sub(r"\1", _EMPHASIS.sub("", re.sub(r"<br\s*/?>", "\n", text)))


def _compatible(text: str) -> str:
    """Unicode's compatibility form: full-width signs, ligatures, all kinds of spaces."""
    return unicodedata.normalize("NFKC", text).replace("\u2044", "/")


_LAYOUT = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\(?:left|right)\s*\.", ""),
        (r"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|q?quad)(?![a-zA-Z])", " "),
        (
            r"\\(?:text(?:bf|it|rm|sf|tt|normal)|math(?:rm|bf|it|sf)|[mh]box|emph|bm)\s*(?=\{)",
            r"\\text",
        ),
        # Between groups of three digits; a comma is left to whoever knows whether lists are meant.
        (r"(?<=\d)(?:\{,\}|,?\\!\s*|(?<!\\)\\[,:; ]|[~ '])(?=\d{3}(?!\d))", ""),
        (r"(?<!\\)\\[!,:;> ]|~(?!=)", " "),
        (r"(?<!\\)\\[()\[\]]", " "),
        (r"\\(?:text)?color\s*\{\w+\}|\\underline(?=\s*\{)|(?<=\d)/-(?!\w)", ""),
        (r"\b(?:US|AU|CA|HK|NZ|[ACRS])\\?\$\s?(?=\d)", ""),
        (r"\\\$|[$€£¥₹₩]|\\(?:pounds|euro)(?![a-zA-Z])", ""),
        (r"(?:\^\s*\{?\s*\\(?:circ|degree)\s*\}?|\\degree|°)(?:\s*\\text)?\s*\{?\s*[CF]\b\}?", ""),
        (r"\^\s*\{?\s*\\(?:circ|degree)\s*\}?|\\degree(?![a-zA-Z])|°", ""),
        (r"\s+", " "),
    )
]


def tidy(latex: str) -> str:
    """LaTeX or plain text without layout: delimiters, spaces, currency, degrees, final stops.

    Each command has one name afterwards (\\dfrac is \\frac, \\textbf is \\text).
    """
    for pattern, replacement in _LAYOUT:
        latex = pattern.sub(replacement, latex)
    latex = latex.strip().lstrip(",;:").rstrip(" .,;:\\").strip()
    whole = re.fullmatch(r"\{([^{}]*)\}", latex)
    return whole[1].strip() if whole else latex


def folded(text: str) -> str:
    """Words for comparison: without case, punctuation, articles and the commands around them."""
    text = re.sub(r"\\text\s*(?=\{)|[{}$.,;:!?'\"()\[\]]", " ", tidy(text)).casefold()
    text = re.sub(r"(?<=[^\W\d_])-(?=[^\W\d_])|\b(?:the|an?)\b(?=\s+\w)", " ", text)
    text = re.sub(r"^\s*(?:option|choice|answer)\s+(?=\S)", "", text)
    return " ".join(text.split())
