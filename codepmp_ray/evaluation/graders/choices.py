"""Multiple choice: an option itself, or a text that names one by its letter or its words."""

from __future__ import annotations

import re
import string

from codepmp_ray.evaluation.graders.base import Reference, Verdict, judged, no_answer
from codepmp_ray.evaluation.graders.final_answer import claim, own_turn, stated_answers
from codepmp_ray.evaluation.graders.notation import folded, readable

_OPTION = r"(?i:(?:the\s+)?(?:option|choice|letter|answer)\s+)"
_OPEN = r"[\s\"'(\[{$*>\\]*"
_MAYBE = (
    r"(?:(?i:probably|(?:most )?likely|therefore|thus|clearly|simply|definitely|certainly|still"
    r"|then|indeed|the|la|le|el|der|die|das)\s+|a\s+(?=[B-Z]\b))?"
)
_ENDS = r"(?![a-zA-Z0-9_'-])"  # scripts without spaces may go on
_CAPITAL = rf"[(\[]?(?<![a-zA-Z0-9_])([A-Z]){_ENDS}[)\]]?"
_LETTER = re.compile(
    rf"{_OPEN}{_MAYBE}{_OPTION}?(?:\\(?:text|math)\w*\s*\{{\s*)?[(\[]?\s*([A-Za-z]){_ENDS}\s*[)\]}}]*(.*)",
    re.DOTALL,
)
_ANOTHER = re.compile(rf"\s*(?:,|/|&|\bor\b|\band\b)\s*(?:or\s+|and\s+)?{_OPTION}?{_CAPITAL}")
_EXPLAINED = re.compile(r"\W*$|\s*[.,:;)\]}(-]|\s*\b(?:because|since|as|is|which|for)\b")
_IS = r"(?i:is|must be|would be)"
_RIGHT = r"(?i:correct|right|best)"
# Said without the word "answer"; the letter is in one of the groups.
_NAMED = re.compile(
    rf"(?i:\b(?:choose|chose|select|pick|go with|picked|selected)\s+|选择?\s*){_OPTION}?{_CAPITAL}"
    rf"|\b(?i:choice|option|selection)\s*:\s*{_OPTION}?{_CAPITAL}"
    rf"|\b{_RIGHT}\s+(?i:option|choice|statement|one)\s+{_IS}:?\s*{_OPTION}?{_CAPITAL}"
    rf"|{_CAPITAL}\s+{_IS}\s+(?i:the\s+)?(?i:only\s+)?(?:{_RIGHT}|(?i:answer))\b"
    rf"|^\W*{_OPTION}{_CAPITAL}\W*$"
    rf"|(?i:\b(?:therefore|thus|hence|so)\b,?\s*(?:it is\s+|it's\s+)?|\bit must be\s+"
    rf"|\bI(?:'d| would) say\s+){_OPTION}?{_CAPITAL}[.!]?\s*$",
    re.MULTILINE,
)
_LONE = re.compile(rf"{_OPEN}([A-Z])[\s*)\].:$]*$")
_ANY_CASE = re.compile(rf"{_OPEN}{_OPTION}?[(\[]?([A-Za-z])[)\].]*")
_FIRST = re.compile(rf"{_OPEN}{_OPTION}?([A-Z])(?:[).:\]]| - )")  # "B. Because ..."
_MARK = re.compile(r"(?:^|[\s(\[])([A-Z])[).:\]]")
_NEGATED = re.compile(r"(?:\b(?:not|never|cannot|nor|wrong)|n't)(?:\s+\w+){0,2}\s*$", re.IGNORECASE)
_WITH = re.compile(rf"{_CAPITAL}\s*(?:,|/|&|\bor\b|\band\b)\s*{_OPTION}?$")


def grade_choice(reference: Reference, completion: str) -> Verdict:
    """Whether `completion` is the right option, or says its letter ("The answer is (C).").

    A text that names two ("B or C") has no answer.
    """
    text, right = completion.strip(), reference.answer.strip()
    options = [option.strip() for option in reference.options]
    chosen = text if text in options else _chosen(own_turn(readable(text)).strip(), options)
    if not chosen:
        return no_answer("the text names none of the options, or several")
    return judged(chosen == right, chosen, reference)


def _chosen(text: str, options: list[str]) -> str | None:
    """The option that a text names; "" where it names several, None where none."""
    by_words = {folded(option): option for option in reversed(options)}
    for stated in stated_answers(text):
        if stated.form == "line":  # "A: It rains" lists an option
            continue
        said = claim(stated.text)
        chosen = _by_letter(said, options)
        if chosen is None:
            chosen = by_words.get(folded(stated.text), by_words.get(folded(said)))
        if chosen is not None:
            return chosen
    if named := [match for match in _NAMED.finditer(text) if _is_meant(text, match)]:
        if _WITH.search(text[: named[-1].start()]):
            return ""
        letter = next(filter(None, named[-1].groups()))
        return _by_letter(letter + text[named[-1].end() :].partition("\n")[0], options)
    lines = [line for line in text.splitlines() if line.strip()]
    lone = [match for line in lines if (match := _LONE.match(line))]
    if len(lone) == len(lines) and len({match[1] for match in lone}) > 1:
        return ""
    letter = lone[-1] if lone else _ANY_CASE.fullmatch(text)
    first = {match[1] for line in lines if (match := _FIRST.match(line))}
    if letter is None and len(first) == 1 and len({*_MARK.findall(lines[0])}) < 3:
        letter = _FIRST.match(text)  # and no list of all options
    return _by_letter(letter[1], options) if letter else by_words.get(folded(text))


def _is_meant(text: str, named: re.Match[str]) -> bool:
    """Whether an option is neither denied ("I would not choose C") nor in a question."""
    asked = text[named.end() :].lstrip().startswith("?")
    return not asked and _NEGATED.search(text[: named.start()]) is None


def _by_letter(said: str, options: list[str]) -> str | None:
    match = _LETTER.match(said)
    if match is None:
        return None
    letter, after = match.groups()
    if _ANOTHER.match(after):
        return ""
    # "a mess" and "A fan of trams" name no option.
    if (letter.islower() or letter in "AI") and not _EXPLAINED.match(after):
        return None
    index = string.ascii_uppercase.index(letter.upper())
    return options[index] if index < len(options) else ""
