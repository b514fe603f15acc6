"""The words sent to the models. `TEMPLATE_VERSION` is stored with every pair.

The pair's `prompt` column is the exact user message that the chosen side answered, so that the
reward model later sees what the models saw.
"""

from __future__ import annotations

TEMPLATE_VERSION = "codepmp-v1"

_LANGUAGE_NAMES = {"python": "Python"}

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


def describe_prompt(code: str, language: str) -> str:
    """Ask for an instruction from which the snippet could be written (section 3.2)."""
    return _DESCRIBE.format(language=_name(language), fence=language, code=code)


def answer_prompt(description: str, language: str) -> str:
    """Ask for code that follows `description`."""
    return _ANSWER.format(language=_name(language), description=description)


def parse_description(text: str) -> str:
    """The instruction in a model's answer: surrounding blank space and quotes removed."""
    return text.strip().strip('"').strip()


def prompt_texts() -> dict[str, str]:
    """Name of each prompt -> its template, for the dataset card."""
    return {"describe": _DESCRIBE, "answer": _ANSWER}


def _name(language: str) -> str:
    return _LANGUAGE_NAMES.get(language, language)
