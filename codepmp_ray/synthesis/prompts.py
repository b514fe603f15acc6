"""The words sent to the models, filled in. Their version is stored with every pair.

`TEMPLATE_VERSION` names the words that are the default (config/prompts.py): it changes with them,
and so does the stage's number in runs.py, since defaults are in no fingerprint.

The pair's `prompt` column is the exact user message that the chosen side answered, so that the
reward model later sees what the models saw.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from codepmp_ray.config.base import fingerprint
from codepmp_ray.config.prompts import PromptsConfig

TEMPLATE_VERSION = "codepmp-v2"

_LABEL_ANSWER = re.compile(
    r"\b(non[- ]?engineering|engineering)\b\D{0,40}?(\d+(?:\.\d+)?)(?![\d%])",
    re.IGNORECASE | re.ASCII,
)
# Each part once, so that a task that begins in such words loses no sentence of its own.
_BEFORE = re.compile(
    r"(?:(?:sure(?: thing)?|certainly|of course|absolutely|okay|ok|great question|got it"
    r"|no problem)"
    r"(?:[.!:,]|(?= (?:I|here|let|what|that)\b)[^.!:\n]{0,60}[.!:])\s*)?"
    r"(?:(?:I(?:'d| would) be (?:happy|glad) to help|I can help(?: you)?(?: with that)?"
    r"|thank you for (?:sharing|providing)[^.!\n]{0,40}|what would you like me to do)\b[.!?]\s*)?"
    r"(?:here(?:'s| is| are)\b[^.:\n]{0,80}:\s*)?"
    r"(?:[#*_ ]*(?:task|instruction|description|prompt)s?[*_ ]*:[*_ ]*\s*|#+ *task\s*\n\s*)?",
    re.IGNORECASE,
)
_BEHIND = re.compile(
    r"(?:\A|(?<=\s))(?:I hope (?:this|that) helps[^.!\n]*[.!]?\s*"
    r"|(?:please )?(?:let me know|feel free to)\b[^.!\n]*[.!]?\s*)+\Z",
    re.IGNORECASE,
)
_LANGUAGE_NAMES = {
    "c": "C",
    "cpp": "C++",
    "cuda": "CUDA C++",
    "go": "Go",
    "java": "Java",
    "javascript": "JavaScript",
    "python": "Python",
    "rust": "Rust",
    "tsx": "TSX",
    "typescript": "TypeScript",
}

_WORDS = PromptsConfig()
# Hop -> the prompts that its answer has to do with, where they are called otherwise.
_WORDS_OF = {
    "chosen": ("answer",),
    "rejected": ("answer",),
    "reference": ("answer", "reference"),
    "weak_tests": ("tests",),
}


def describe_prompt(code: str, language: str, words: PromptsConfig = _WORDS) -> str:
    """Ask for an instruction from which the snippet could be written (section 3.2)."""
    return words.describe.format(language=_name(language), fence=language, code=code)


def answer_prompt(description: str, language: str, words: PromptsConfig = _WORDS) -> str:
    """Ask for code that follows `description`."""
    return words.answer.format(language=_name(language), fence=language, description=description)


def label_prompt(code: str, language: str, words: PromptsConfig = _WORDS) -> str:
    """Ask whether the snippet is engineering work, with a confidence (the authors' extra stage)."""
    return words.label.format(language=_name(language), fence=language, code=code)


def with_signature(description: str, signature: str) -> str:
    """The task when it is to be executed: both answers then have the same name and arguments."""
    return f"{description}\n\nWrite it as one function: `{signature}`."


def tests_prompt(task: str, words: PromptsConfig = _WORDS) -> str:
    """Ask for tests of `task`, which names the function."""
    return words.tests.format(description=task)


def reference_prompt(task: str, reference: str, words: PromptsConfig = _WORDS) -> str:
    """`task` with the answer whose author the chosen side has (same policy)."""
    return words.reference.format(task=task, reference=reference)


def change_prompt(
    name: str, message: str, beginning: str, language: str, words: PromptsConfig = _WORDS
) -> str:
    """The definition `name` that `beginning` begins, as it is after what `message` tells."""
    return words.change.format(
        name=name,
        message=message,
        beginning=beginning,
        language=_name(language),
        fence=language,
    )


def template_version(words: PromptsConfig) -> str:
    """What is stored with a pair: TEMPLATE_VERSION, or the digest of a recipe's own words."""
    return TEMPLATE_VERSION if words == _WORDS else f"own-{fingerprint(words)}"


def parse_description(text: str) -> str:
    """The instruction in a model's answer: what is said around it, blank space and quotes removed.

    An answer that says nothing else stays as it is, for the gates to refuse.
    """
    text = text.strip()
    return (without_politeness(text) or text).strip('"').strip()


def without_politeness(text: str) -> str:
    """`text` without "Sure! Here is the task:" before it and "I hope this helps!" behind it."""
    text = _BEFORE.sub("", text.strip(), count=1)
    return _BEHIND.sub("", text).strip()


def parse_label(text: str) -> tuple[str, float] | None:
    """(label, confidence) in a model's answer, or None when it holds no such pair."""
    match = _LABEL_ANSWER.search(text)
    if match is None or not 0 <= (confidence := float(match.group(2))) <= 1:
        return None
    label = "non-engineering" if match.group(1).lower().startswith("non") else "engineering"
    return label, confidence


def prompt_texts(hops: Iterable[str], words: PromptsConfig = _WORDS) -> dict[str, str]:
    """Name of each prompt that `hops` ask -> its template, for the dataset card."""
    asked = {name for hop in hops for name in _WORDS_OF.get(hop, (hop,))}
    order = ("describe", "label", "tests", "answer", "reference")
    return {name: getattr(words, name) for name in order if name in asked}


def _name(language: str) -> str:
    return _LANGUAGE_NAMES.get(language, language)
