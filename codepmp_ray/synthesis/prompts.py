"""The words sent to the models. `TEMPLATE_VERSION` is stored with every pair.

The pair's `prompt` column is the exact user message that the chosen side answered, so that the
reward model later sees what the models saw.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

TEMPLATE_VERSION = "codepmp-v2"

_LABEL_ANSWER = re.compile(
    r"\b(non[- ]?engineering|engineering)\b\D{0,40}?(\d+(?:\.\d+)?)(?![\d%])",
    re.IGNORECASE | re.ASCII,
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

_DESCRIBE = """\
Read the {language} code below and write the task that it solves, as an instruction to a \
programmer who has not seen it. Say what goes in, what comes out and which rules apply. \
Two to four sentences, no code, no preamble.

```{fence}
{code}
```"""

_ANSWER = """\
Write {language} code for the following task. Reply with one code block.

{description}"""


_LABEL = """\
Is the {language} code below "engineering" (plumbing: interfaces, configuration, input, output, \
framework calls) or "non-engineering" (an algorithm, mathematics, reasoning)? Answer with the \
label and your confidence between 0 and 1, for example: non-engineering 0.8

```{fence}
{code}
```"""

_TESTS = """\
Write tests for the following task: a Python function `check(candidate)` with at least five \
assert statements, each calling `candidate`, which is the function that was asked for. Test normal \
and edge cases that the task decides. Do not write the function itself. Reply with one code block.

{task}"""


def describe_prompt(code: str, language: str) -> str:
    """Ask for an instruction from which the snippet could be written (section 3.2)."""
    return _DESCRIBE.format(language=_name(language), fence=language, code=code)


def answer_prompt(description: str, language: str) -> str:
    """Ask for code that follows `description`."""
    return _ANSWER.format(language=_name(language), description=description)


def label_prompt(code: str, language: str) -> str:
    """Ask whether the snippet is engineering work, with a confidence (the authors' extra stage)."""
    return _LABEL.format(language=_name(language), fence=language, code=code)


def with_signature(description: str, signature: str) -> str:
    """The task when it is to be executed: both answers then have the same name and arguments."""
    return f"{description}\n\nWrite it as one function: `{signature}`."


def tests_prompt(task: str) -> str:
    """Ask for tests of `task`, which names the function."""
    return _TESTS.format(task=task)


def parse_description(text: str) -> str:
    """The instruction in a model's answer: surrounding blank space and quotes removed."""
    return text.strip().strip('"').strip()


def parse_label(text: str) -> tuple[str, float] | None:
    """(label, confidence) in a model's answer, or None when it holds no such pair."""
    match = _LABEL_ANSWER.search(text)
    if match is None or not 0 <= (confidence := float(match.group(2))) <= 1:
        return None
    label = "non-engineering" if match.group(1).lower().startswith("non") else "engineering"
    return label, confidence


def prompt_texts(hops: Iterable[str]) -> dict[str, str]:
    """Name of each prompt that `hops` ask -> its template, for the dataset card."""
    named = {"describe": _DESCRIBE, "label": _LABEL, "tests": _TESTS}
    asked = {hop if hop in named else "answer": named.get(hop, _ANSWER) for hop in hops}
    return dict(sorted(asked.items(), key=lambda item: [*named, "answer"].index(item[0])))


def _name(language: str) -> str:
    return _LANGUAGE_NAMES.get(language, language)
