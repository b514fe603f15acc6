"""Quality gates and the parser of model answers, under every kind of text."""

import asyncio
import random
import time
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from codepmp_ray.config.engines import EnginesConfig, SamplingConfig
from codepmp_ray.config.synthesis import GatesConfig, SynthesisConfig
from codepmp_ray.records import SNIPPET, table_from_rows
from codepmp_ray.reject_reasons import RejectReason
from codepmp_ray.synthesis.answers import as_code_block, find_code
from codepmp_ray.synthesis.engine import Completion
from codepmp_ray.synthesis.gates import judge_pair, judge_text
from codepmp_ray.synthesis.hops import IN_FLIGHT, RowProcessor
from codepmp_ray.synthesis.pairs import split_rows

GATES = GatesConfig()
OPEN = GatesConfig(
    code="none",
    stubs="none",
    refusals=False,
    min_description_words=None,
    description_without_code=False,
    english_description=False,
    max_echo=None,
    max_compression_ratio=None,
    max_similarity=None,
    max_length_ratio=None,
)
NESTED = '''Here it is:
```python
def f():
  """Use it so:

  ```
  f()
  ```
  """
  return 1
```
'''
TASK = "Write a function that returns one."
ROW = dict.fromkeys(SNIPPET.names, "x") | {"language": "python", "start_line": 1, "end_line": 2}


class Replies:
    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)

    async def generate(self, user_message: str, sampling: SamplingConfig) -> Completion:
        text = self.texts.pop(0)
        return Completion(text, "stop", len(text.split()))


def judged(text: str, gates: GatesConfig = GATES) -> str | None:
    rejection = judge_text("chosen", text, "stop", 1, "python", gates)
    return rejection and rejection.reason.value


def run(*texts: str, config: SynthesisConfig) -> dict[str, Any]:
    processor = RowProcessor(config, ("describe", "chosen", "rejected"))
    return asyncio.run(processor(dict(ROW), Replies(*texts)))


# Whatever a model may write: fences of all kinds, other languages, loops, NUL, half surrogates.
PIECES = st.sampled_from(
    ["```python\n", "```\n", "~~~~\n", "```java\n", "def f():\n", "    return 1\n", "class A {}\n",
     "`", "\0", "\ud800", "\udfff", '"""', "I'm sorry, ", "é\u202e", "> ", "- ", "\t", "\r\n"]
)  # fmt: skip
ANSWERS = st.one_of(
    st.lists(st.one_of(PIECES, st.text(max_size=8)), max_size=12).map("".join),
    st.text(st.characters(exclude_categories=()), max_size=40),
    st.builds(lambda piece, times: piece * times, PIECES, st.sampled_from([100, 10_000])),
)


@settings(deadline=None)
@given(ANSWERS, ANSWERS, ANSWERS)
@example(TASK, "```python\n" * 10_000, "x")
@example(TASK, "```python\n(\n```\n" * 10_000, "x")
@example(TASK, NESTED, NESTED.replace("1", "2"))
@example("<think>\n" * 10_000, "x", "x")
def test_any_answer_is_a_pair_or_a_typed_reject(a: str, b: str, c: str) -> None:
    config = SynthesisConfig()
    row = run(a, b, c, config=config)
    # As between two pools: what a hop made has to fit into a block.
    (row,) = table_from_rows([row], IN_FLIGHT).to_pylist()
    tables = split_rows([row], config, EnginesConfig())
    assert sum(table.num_rows for table in tables.values()) == 1
    if rejected := tables["rejected"].to_pylist():
        assert RejectReason(rejected[0]["reason"]) and rejected[0]["detail"]


@settings(deadline=None)
@given(ANSWERS)
def test_open_gates_leave_only_what_cannot_be_stored(answer: str) -> None:
    left = (None, "chosen_not_text", "chosen_empty", "chosen_unclosed_thought")
    assert judged(answer, OPEN) in left


@given(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0\r"), max_size=60))
def test_code_put_into_a_block_is_found_again(code: str) -> None:
    found = find_code(as_code_block(code, "python"), "python")
    if code.strip():
        assert found is not None


def test_a_fence_inside_a_docstring_does_not_end_the_code() -> None:
    found = find_code(NESTED, "python")
    assert found is not None and found.parses and found.text.endswith("return 1")
    assert judged(NESTED) is None


def test_lines_are_those_of_the_markdown_parser() -> None:
    separators = "Pages:\x0c\x0b\u2028\x85\n\r"
    found = find_code(separators + NESTED, "python")
    assert found is not None and found.parses and found.text.endswith("return 1")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("def f():\n    return 1", "chosen_no_code"),
        ("```java\nclass A {}\n```", "chosen_no_code"),
        ("```\nx = 1\n```", None),
        ("```py\nx = 1\n```\nUse:\n```\n>>>\n```", None),
        ("```python\nx = 1", None),  # CommonMark: the end of the text ends the block
        ("```python\nx = (1\n```", "chosen_parse_error"),
        ("I'm sorry, I cannot do that.", "chosen_refusal"),
        ("As an AI language model, I refuse.", "chosen_refusal"),
        ("Sorry for the wait:\n```python\nx = 1\n```", None),
        ("```python\n" + "self.x.append(0)\n" * 500 + "```", "chosen_repetitive"),
        # The definition is the answer, not the longer example of its use.
        ("```python\ndef f(x): return x\n```\n```python\nprint(f(1), f(2), 'long', 3)\n```", None),
        ("```python\ndef f(x): return x\n```\n```\n$ python a.py --with many arguments\n```", None),
        ("```python\nimport os\n```\nand\n```python\ndef f(x):\n    return os\n```", None),
        ("```py\ndef f(x):\n    return (\n```\n```py\nprint(1)\n```", "chosen_parse_error"),
        ("```python\ndef f(x):\n    try:\n        return x\n```", "chosen_parse_error"),
    ],
)
def test_code_of_answers(text: str, reason: str | None) -> None:
    assert judged(text) == reason


@pytest.mark.parametrize("run", ["\n", " ", "\n ", "-", "```\n", "~~~ x\n", "> ", "\u202e", "0"])
def test_long_runs_cost_linear_time(run: str) -> None:
    text = f"```java\n{run * (100_000 // len(run))}x\n```"
    start_s = time.monotonic()
    judged(text, GATES.model_copy(update={"max_compression_ratio": None}))
    assert time.monotonic() - start_s < 60


def test_each_gate_can_be_opened_alone() -> None:
    loop, prose = "```python\n" + "y = f(y)\n" * 500 + "```", "I cannot."
    assert judged(loop, GATES.model_copy(update={"max_compression_ratio": None})) is None
    assert judged(prose, GATES.model_copy(update={"refusals": False})) == "chosen_no_code"
    assert judged("prose", GATES.model_copy(update={"code": "rejected"})) is None


def test_sides_are_compared_by_likeness_and_length() -> None:
    def reason(chosen: str, rejected: str, *lengths: int | None) -> str | None:
        row = {"chosen": chosen, "rejected": rejected}
        row |= dict(zip(("chosen_num_tokens", "rejected_num_tokens"), lengths, strict=True))
        rejection = judge_pair(row, GATES)
        return rejection and rejection.reason.value

    text = " ".join(map(str, range(100)))
    assert reason(text, text + "\n", 9, 9) == "sides_equal"
    assert reason(text, text.replace("50", "5O"), 9, 9) == "sides_near_equal"
    assert reason("abc", "xyz", 40, 10) is None
    start_s = time.monotonic()
    noise = ["".join(map(chr, random.Random(i).choices(range(33, 127), k=400_000))) for i in "ab"]
    assert reason(*noise, 9, 9) is None
    assert reason(noise[0], noise[0][1:], 9, 9) == "sides_near_equal"
    assert time.monotonic() - start_s < 60
    assert reason("abc", "xyz", 41, 10) == "length_ratio" == reason("abc", "xyz", 10, 41)
    # A side that no model wrote has no tokens: characters decide.
    assert reason("abc", "x" * 12, None, 10) is None
    assert reason("abc", "x" * 13, None, 10) == "length_ratio"
