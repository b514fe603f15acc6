"""The words sent to the models that write pairs; a recipe may have its own."""

from __future__ import annotations

import difflib
import string

from pydantic import ValidationInfo, field_validator

from codepmp_ray.config.base import Section, later

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

_TESTS = """\
Write tests for the following task: a Python function `check(candidate)` with at least five \
assert statements, each calling `candidate`, which is the function that was asked for. Test normal \
and edge cases that the task decides. Do not write the function itself. Reply with one code block.

{description}"""

_LABEL = """\
Is the {language} code below "engineering" (plumbing: interfaces, configuration, input, output, \
framework calls) or "non-engineering" (an algorithm, mathematics, reasoning)? Answer with the \
label and your confidence between 0 and 1, for example: non-engineering 0.8

```{fence}
{code}
```"""

_REFERENCE = """\
{task}

Answer as the author of this reference would:

{reference}"""

_CHANGE = """\
Write the {language} code of `{name}` as it is after this change:

{message}

It begins:

```{fence}
{beginning}
```"""

# Prompt -> what has to stand in it, and what may.
_PLACEHOLDERS = {
    "describe": ({"code"}, {"language", "fence"}),
    "answer": ({"description"}, {"language", "fence"}),
    "tests": ({"description"}, set()),
    "reference": ({"task", "reference"}, set()),
    "label": ({"code"}, {"language", "fence"}),
    "change": ({"message"}, {"name", "beginning", "language", "fence"}),
}


class PromptsConfig(Section):
    """The user messages of the hops. A placeholder stands for a value, {{ and }} for braces.

    `describe` and `label` need {code}; `answer` and `tests` need {description}, to which the
    function's signature is added where answers are executed. All but `tests` may hold {language},
    as people write it, and {fence}, as it stands behind the backticks of a code block.

    Attributes:
        describe: asks for an instruction from which {code} could be written (section 3.2).
        answer: asks for code that follows {description}; it is the pair's prompt.
        tests: of `execution_feedback` and `pass_rate`: asks for tests of {description}, a function
            `check(candidate)`.
        reference: of `same_policy`: the pair's prompt, of {task}, which is what `answer` asked, and
            {reference}, the first answer. No model is asked it.
        change: of `commits`: the pair's prompt, of a commit's {message} and the {name} and
            {beginning} of what it changes. No model is asked it.
        label: of `label_domain`: asks whether {code} is engineering work; the answer is read as
            "engineering" or "non-engineering" followed by a number from 0 to 1.
    """

    describe: str = _DESCRIBE
    answer: str = _ANSWER
    tests: str = _TESTS
    label: str = _LABEL
    reference: str = later(_REFERENCE)
    change: str = later(_CHANGE)

    @field_validator("*")
    @classmethod
    def _placeholders_are_known(cls, text: str, info: ValidationInfo) -> str:
        needed, allowed = _PLACEHOLDERS[str(info.field_name)]
        try:
            parts = list(string.Formatter().parse(text))
        except ValueError as error:
            raise ValueError(f"{error}; write {{{{ and }}}} for braces") from error
        found = {name for _, name, _, _ in parts if name is not None}
        known = ", ".join(f"{{{name}}}" for name in sorted(needed | allowed))
        for name in sorted(found - needed - allowed):
            close = difflib.get_close_matches(name, needed | allowed, n=1)
            hint = f"did you mean {{{close[0]}}}?" if close else f"known: {known}"
            raise ValueError(f"unknown placeholder {{{name}}} ({hint}; {{{{ and }}}} are braces)")
        if any(spec or conversion for _, _, spec, conversion in parts):
            raise ValueError(f"placeholders are plain names: {known}")
        if missing := sorted(needed - found):
            raise ValueError(f"the placeholder {{{missing[0]}}} is missing")
        return text
