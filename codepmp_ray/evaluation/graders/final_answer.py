"""Where a text says its final answer: the one place that looks for it, whatever compares it.

Known forms: "#### 18" (GSM8K's own), \\boxed{18}, <answer>18</answer>, {"answer": 18}, "The answer
is 18" in a dozen languages, a heading "Final answer" with the answer below it, "A: 18" on a line of
its own (OpenAI's GSM8K solutions). The one that is said last counts, whatever its form: a text may
correct itself. What comes after the end of the turn, or with the next question of a model that goes
on by itself, is another text.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

from codepmp_ray.evaluation.graders.notation import has_digit, readable
from codepmp_ray.synthesis.thoughts import split_thought

# What generators repeat without end would cost time and says nothing new.
MAX_CHARS = 20_000
_MAX_CLAIM_CHARS = 1_000
_TURN_ENDS = re.compile(
    r"(?<=\S)\s*(?:<\|(?:im_end|eot_id|eom_id|endoftext|end_of_text|end|return|end.of.sentence)\|>"
    r"|<end_of_turn>|</s>|<eos>|\[STOP\])(?=\s|<|\Z)"
)
_NEXT_QUESTION = re.compile(
    r"^[ \t#>*]*(?:(?:next )?(?:question|problem|exercise|passage|context|instruction|input|human"
    r"|user|q|问题|题目|问)[ \t]*(?:no\.? ?|number )?\d*|example[ \t]*\d+)[ \t]*:",
    re.IGNORECASE | re.MULTILINE,
)
_IS = (
    r"(?:is|are|was|were|(?:would|will|should|must)(?:[ ]\w+ly)?[ ]be|equals?|becomes"
    r"|comes[ ](?:out[ ])?to|es|est|ist|lautet|adalah|ni|là|é|è)\b"
)
# What follows is looked at, not taken: the same line may say another one.
_FORMS = rf"""
      \#\#\#\#(?!\#)[ \t]*
      (?!(?:the[ ]|final[ ]|correct[ ]|my[ ])*(?:answer|solution|step|part|method|explanation
        |calculation|verif|check|case|problem|question|conclusion|summary)|\d+[.)][ \t]+[^\W\d])
      (?=(?P<hash>[^\n]*))
    | \\(?:boxed|fbox|framebox)[ \t]*(?:(?P<box>\{{)|(?=(?P<bare>[-+]?\.?\d[^\s{{}}$\\]*|[A-Z]\b)))
    | <(?:final_?)?ans(?:wer)?>(?=(?P<tag>.*?)(?:</|\Z))
    | ["'](?:(?:final|correct)[ _]?)?(?:answer|choice|option)["'][ \t]*[:=]\s*
      (?=(?P<json>"(?:[^"\\\n]|\\.)*"|'[^'\n]*'|\[[^\]\n]*\]|[^,}}\n]*))
    | ^[ \t>#]*(?:(?:the|my|final|correct)[ ])*answers?[ \t]*(?P<heading>$)
    | (?:\b(?:answers?|ans|antwort|respuesta|r[eé]ponse|resposta|risposta|antwoord|ответ
        |jawaban(?:nya)?|jibu|đáp[ ]án)\b
        (?:[ \t]+(?:to|for|of|in|we|you|that|choice|option|key|value
          |corr\w*|final\w*)\b[^\n.:=,;]{{0,60}}?
          |[ \t]*\([^()\n]{{0,60}}\))?[ \t]*
        (?:(?P<colon>[:=]|→|->|=>|-[ \t])
          |(?:(?:therefore|thus|then|hence|clearly|simply)[ ,]+)?
            (?:(?P<not>(?:is|are|was)(?:n't|[ ]not)\b|can(?:[ ]?not|'t)\b)|{_IS})(?:[ ]that\b)?)
      | (?:答案|答え|正解|答|정답|답|উত্তর|उत्तर|సమాధానం|คำตอบ|الإجابة(?:[ ]\w+)?|الجواب)
        (?:应该|应当|应)?[ \t]*(?:是|为|选|は|은|는|คือ|هي|هو|है|ঃ|:|(?=\())
      | (?:故|因此|所以|应)选)[ \t:]*(?=(?P<said>[^\n]*))
    | ^[ \t]*(?-i:A):[ \t]*(?=(?P<line>[^\n]*))
"""
_SAID = re.compile(
    unicodedata.normalize("NFKC", _FORMS),  # as the text will be
    re.IGNORECASE | re.MULTILINE | re.VERBOSE | re.DOTALL,
)
_BELOW = re.compile(r"\s*(?:[-=_]{3,}\s*)?(?:[-*•]\s+)?(\\\[.*?\\\]|\$\$.*?\$\$|[^\n]*)", re.DOTALL)
_EDGE = r"[\s.,;:*_()\[\]-]*"
_PLACEHOLDER = re.compile(rf"{_EDGE}(?:(?:your |the )?(?:final )?answer)?{_EDGE}", re.IGNORECASE)
_REMARK = re.compile(
    r"\W*(?:(?:therefore|thus|indeed|also|not)\s+)*(?:correct|incorrect|wrong|right|reasonable|valid"
    r"|consistent|verified|confirmed|as follows|(?:given|shown|stated|boxed|marked|found) "
    r"(?:above|below|in)|above|below|obvious|clear)"
    r"(?=\s*(?:[.,;!]|$|\b(?:because|since|as|and|so)\b))",
    re.IGNORECASE,
)

Form = Literal["hash", "box", "tag", "json", "said", "colon", "line"]


@dataclass(frozen=True)
class FinalAnswer:
    """The text of an answer as it stands.

    Attributes:
        form: how it was said; in a box nothing else stands beside it.
        after: what the text says then.
    """

    text: str
    form: Form
    after: str = ""

    @property
    def is_boxed(self) -> bool:
        return self.form == "box"

    @property
    def runs_on(self) -> bool:
        """Whether a solution begins here ("Answer: First, she has 16 eggs. ..."): sentences with
        more numbers follow the first one, so it is not the end of it.
        """
        sentence_end = r"(?<=[^\W\d][.!?])\s+|(?<=\d[.!?])\s+(?=[A-Z])"
        first, *others = re.split(sentence_end, self.text, maxsplit=1)
        if self.form not in ("colon", "line") or not has_digit(first):
            return False
        begins_with_word = re.match(r"[^\w\\]*[^\W\d_]{2,}", first) is not None
        return has_digit(" ".join(others)) or (begins_with_word and has_digit(self.after))


def stated_answers(text: str) -> list[FinalAnswer]:
    """Everything that `text` says is its answer, the last one first."""
    text = own_turn(readable(text[-MAX_CHARS:]))
    found: list[tuple[int, FinalAnswer]] = []
    for match in _SAID.finditer(text):
        answer = _answer(text, match)
        if not _PLACEHOLDER.fullmatch(answer.text) and not (
            answer.form in ("said", "colon") and _REMARK.match(answer.text)
        ):
            found.append((match.start(), answer))
    first = found[0][0] if found else len(text)
    goes_on = _NEXT_QUESTION.search(text, first)
    end = goes_on.start() if goes_on else len(text)
    return [answer for start, answer in reversed(found) if start < end]


def last_box(text: str) -> str | None:
    """The content of the last box."""
    return next((found.text for found in stated_answers(text) if found.is_boxed), None)


def own_turn(text: str) -> str:
    """What a model says as its answer: not its thoughts, nor what it invents after its turn."""
    answer, _ = split_thought(text)
    text = answer if answer.strip() else text  # all that a text may say is in its thought
    end = _TURN_ENDS.search(text)
    return text[: end.start()] if end else text


def braced(text: str, start: int) -> str:
    """The content of the brace at `start`, up to the one that closes it, or to the end."""
    depth = 0
    for position in range(start, len(text)):
        if text[position] == "{":
            depth += 1
        elif text[position] == "}":
            depth -= 1
            if depth == 0:
                return text[start + 1 : position]
    return text[start + 1 :]


def _answer(text: str, match: re.Match[str]) -> FinalAnswer:
    if match["box"]:
        return FinalAnswer(braced(text, match.start("box")).strip(), "box")
    if match["bare"]:
        return FinalAnswer(match["bare"], "box")
    if match["tag"] is not None:
        return FinalAnswer(match["tag"].strip(), "tag")
    if match["json"] is not None:
        return FinalAnswer(_json_value(match["json"].strip()), "json")
    if match["hash"] is not None:
        return FinalAnswer(match["hash"].strip(), "hash")
    is_line = match["line"] is not None
    said = (match["line"] if is_line else match["said"]) or ""
    end = match.end() + len(said)
    if not said.strip():
        below = _BELOW.match(text, match.end())
        assert below is not None  # it may be empty
        said, end = " ".join(below[1].split()), below.end()
    if match["not"]:
        said = f"not {said.strip()}"
    is_colon = match["colon"] is not None or match["heading"] is not None
    form: Form = "line" if is_line else "colon" if is_colon else "said"
    return FinalAnswer(said.strip(), form, text[end:])


def _json_value(value: str) -> str:
    """The text of a JSON or Python literal; single backslashes of LaTeX are taken as they are."""
    if value[:1] == value[-1:] and value[:1] in ("'", '"'):
        return value[1:-1].replace("\\\\", "\\").replace('\\"', '"').strip()
    return value.strip("[] \t") if value.startswith("[") else value


# --- What of a stated line is the answer ---

_NOT_BUT = re.compile(
    r"not\b.+?[,;.]?\s+(?:but|rather|instead|it(?:'s| is)|is)\s+(?:rather\s+|actually\s+)?(.+)",
    re.IGNORECASE | re.DOTALL,
)
_DOUBTED = re.compile(
    r"[^?!\n]+?(?:\?\s*(?:no|nope|wait|hmm|actually|not quite)"
    r"|(?:\.{2,}|[,;\u2026\u2013\u2014-])\s*(?:oh|no|hmm)?[\s,]*"
    r"(?:wait|scratch that|correction|i mean)"
    r"|[.]\s+(?:(?:oh[\s,]*)?no[\s,]*wait|wait[\s,]*no|scratch that))\b[\s,:;.-]*(?:no\b[\s,]*)?"
    r"(?:(?:actually|rather|it(?:'s| is)|that(?:'s| is))\s+)*(.+)",
    re.IGNORECASE | re.DOTALL,
)
_SENTENCE_END = re.compile(
    r"(?<!approx)(?<!\bca)(?<!\bi\.e)(?<!\be\.g)(?<!\bno)(?<!\bRs)(?<!\bMr)(?<!\bMrs)(?<!\bMs)(?<!\bDr)"
    r"(?<!\bSt)(?:(?<!\\)[.?!]+(?=\s(?!\s*=)|$)|\n|(?<!\\);\s(?!-?[\d.]+\W*$))"
)
_REASON = re.compile(
    r"[,;]?\s+(?:because|since|as|so|where|when|while|if|meaning|given|due to|based on|after|i hope"
    r"|which (?!(?:is|equals|gives|makes)\b)\w+|that is|i\.e\.|e\.g\.|therefore|thus|hence)\b.*",
    re.IGNORECASE | re.DOTALL,
)
_ASIDE = re.compile(
    r"(?<=\w)[.]?(?:\s*\[\d{1,3}\])+(?=\W*$)"  # a source
    r"|\s+\([^()\\$]*[^\W\d_]{3,}[^()\\$]*\)|(?<=\d)\s+\([-\d\s.,*/+=%\u00d7\u00f7]+\)$"
)


def claim(text: str) -> str:
    """A stated line without its explanation: "not 70 but 72, as ..." and "70? No, 72" say "72"."""
    text = text[:_MAX_CLAIM_CHARS].strip().lstrip(":;,= ")
    if text.lower().startswith("not "):
        match = _NOT_BUT.match(text)
        text = match[1] if match else ""
    elif match := _DOUBTED.match(text):
        text = match[1]
    text = _SENTENCE_END.split(text, maxsplit=1)[0]
    reason = _REASON.search(text)
    if reason and re.search(r"\w", text[: reason.start()]):
        head = text[: reason.start()]
        if has_digit(head) or "\\" in head or not has_digit(reason[0]):
            text = head
    aside = _ASIDE.search(text)
    if aside and has_digit(text[: aside.start()]):
        text = text[: aside.start()] + text[aside.end() :]
    return text.strip()
