"""What models of all kinds write around their answers, and answers that say nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codepmp_ray.config.engines import SamplingConfig
from codepmp_ray.config.synthesis import GatesConfig, SynthesisConfig
from codepmp_ray.records import SNIPPET
from codepmp_ray.synthesis.answers import find_code
from codepmp_ray.synthesis.engine import Completion
from codepmp_ray.synthesis.gates import judge_text
from codepmp_ray.synthesis.hops import RowProcessor
from codepmp_ray.synthesis.prompts import describe_prompt
from codepmp_ray.synthesis.thoughts import split_thought

GATES = GatesConfig()
OPEN = GatesConfig(
    min_description_words=None,
    description_without_code=False,
    english_description=False,
    max_echo=None,
    refusals=False,
)
TASK = "Write a function that adds one to a number."
ROW = dict.fromkeys(SNIPPET.names, "x") | {"language": "python", "start_line": 1, "end_line": 2}

TAGS = [
    ("typescript", "tsx", "export const A = () => 1;"),
    ("tsx", "typescript", "export const A = () => <div/>;"),
    ("tsx", "ts", "const a: number = 1;"),
    ("tsx", "jsx", "export const A = () => <div/>;"),
    ("javascript", "typescript", "function f(x) { return x; }"),
    ("c", "cpp", "int f(int x) { return x; }"),
    ("c", "c++", "int f(int x) { return x; }"),
    ("cpp", "c", "int f(int x) { return x; }"),
    ("cuda", "cpp", "__global__ void k(float *x) { x[0] = 1; }"),
    ("go", "golang", "type A struct {\n\tb int\n}"),
    ("rust", "rs", "pub fn m(&self) -> u8 {\n    1\n}"),
    ("javascript", "js", "async save(x) {\n  return super.save(x);\n}"),
    ("javascript", "js", "a: function (x) {\n  return x;\n},"),
    ("typescript", "ts", "private m(x: number): void {\n  return;\n}"),
    ("java", "java", "public A(int a) {\n  super(a);\n}"),
    ("java", "java", "@Override\npublic int f(int a) {\n  return a;\n}"),
    ("cpp", "cpp", "explicit A(int x) : x_(x) {\n  f();\n}"),
    ("cpp", "cpp", "virtual ~A() override { f(); }"),
    *(("python", tag, "def f():\n    return 1") for tag in (
        "py", "Python3", "python3.11", "pyi", "src/a.py", "// a.py", "file: a.py", "lang=python",
        "language-python", "{.python .numberLines}", "python:src/a.py", 'py title="a.py"', "code",
        "text",
    )),
    *(("javascript", tag, "function f(x) { return x; }") for tag in (
        "node", "mjs", "typescriptreact", "javascriptreact", "react", "JSX",
    )),
    *((language, tag, "int f(int x) { return x; }") for language in ("c", "cpp") for tag in (
        "cc", "cxx", "h", "hpp", "cu", "c++17", "cpp17", "c99", "src/a.h",
    )),
    ("java", "java17", "int f(int x) { return x; }"),
    ("rust", "rust,no_run", "fn f() {}"),
]  # fmt: skip


@pytest.mark.parametrize(("language", "tag", "code"), TAGS)
@pytest.mark.parametrize("end", ["\n```", ""])
def test_tags_of_a_family_and_members_count(language: str, tag: str, code: str, end: str) -> None:
    text = f"Here:\n```{tag}\n{code}{end}"
    assert judge_text("chosen", text, "stop", 9, language, GATES) is None


def test_other_languages_do_not_count() -> None:
    for language, tag, code in (
        ("typescript", "tsx", "const a = <div/>;"),  # no TypeScript without JSX
        ("c", "cpp", "std::string f(int &x) { return std::string(); }"),
        ("python", "javascript", "x = 1"),
        ("go", "rust", "func f() {}"),
    ):
        text = f"```{tag}\n{code}\n```"
        assert judge_text("chosen", text, "stop", 9, language, GATES), (language, tag)


LONG_USE = "```python\n" + "print(f(1))\n" * 9 + "```"
TESTS = "```python\ndef test_f():\n    assert f(1) == 2\n    assert f(2) == 3\n    assert f(3)\n```"
UNITS = "```python\nclass FTest(TestCase):\n    def test(self):\n        assert f(1) == 2 == 2\n```"
WRONG = "```python\ndef f(x):\n    # a first try that is longer\n    y = x\n    return y\n```"
OUTPUT = "```\n" + "2 and more of what it prints\n" * 9 + "```"
RIGHT = "```python\ndef f(x):\n    return x + 1\n```"
SEVERAL = {
    "use": f"{RIGHT}\n{LONG_USE}",
    "tests": f"{RIGHT}\nTests:\n{TESTS}",
    "unit tests first": f"{UNITS}\n{RIGHT}",
    "corrected": f"{WRONG}\nThat is wrong:\n{RIGHT}",
    "output": f"{RIGHT}\n{OUTPUT}",
    "another language": f"```html\n{'<div>' * 99}\n```\n{RIGHT}",
    "closed on its last line": RIGHT.replace("\n```", "```"),
    "end of the turn": f"{RIGHT}<|im_end|>\n<|im_start|>user\nMore:\n{WRONG}",
    "marks of the turn": f"<|im_start|>assistant\n{RIGHT}\n<|endoftext|>",
}


@pytest.mark.parametrize("text", SEVERAL.values(), ids=SEVERAL)
def test_which_of_several_blocks_is_the_answer(text: str) -> None:
    found = find_code(split_thought(text)[0], "python")
    assert found is not None and found.parses
    assert found.text.strip() == "def f(x):\n    return x + 1"


def test_tests_and_uses_are_answers_where_nothing_else_is() -> None:
    for text in (TESTS, LONG_USE):
        found = find_code(f"{text}\n{OUTPUT}", "python")
        assert found is not None and found.parses and found.text in text


SHOWN = "def f(items, first):\n    total = first + len(items) * 3\n    return total // len(items)"
DESCRIPTIONS = [
    ("Write a function that adds one to every number of a list and returns it.", None),
    ("Implement binary search over sorted integers, returning the index or minus one.", None),
    ("Task", "too_short"),
    ("Two to four sentences, no code, no preamble.", "echo"),
    ("Write the task that it solves, as an instruction to a programmer.", "echo"),
    ("Write this function:\n```python\ndef f(x):\n    return x + 1\n```", "has_code"),
    ("Write total = first + len(items) * 3; return total // len(items)", "has_code"),
    ("编写一个函数 将输入加一 并返回结果", "not_english"),
    ("Écrivez une fonction qui prend une liste de nombres et renvoie leur somme.", "not_english"),
    ("Schreibe eine Funktion, die eine Liste von Zahlen nimmt und summiert.", "not_english"),
    ("I'm sorry, I cannot help with that request of yours.", "refusal"),
    (f"<think>\nHow would I say it?\n</think>\n\n{TASK}", None),
    ("<think>\nOkay, the user wants a description of the code", "unclosed_thought"),
    ("Sure! Here is the task:", "too_short"),
    ("Of course! What would you like me to do?", "too_short"),
    ("Thank you for sharing the code.", "too_short"),
    ("I hope this helps! Let me know if you have any questions.", "too_short"),
    ("Certainly! Please provide the code you would like me to describe.", "refusal"),
    ("There is no code provided in your message.", "refusal"),
    ("I'd be happy to help! However, I don't see any code.", "refusal"),
    ("It is not possible to describe this code.", "refusal"),
    ("Read the Python code below and write the task that it solves.", "echo"),
    ("def g(a, b):\n    x = a * b\n    return x", "has_code"),
    ("Write a function.\n\n    def g(p, r):\n        return p * r\n", "has_code"),
    ("first + len(items) * 3", "has_code"),
    ("Write f that gives `total = first + len(items) * 3 return total // len(items)`.", "has_code"),
    ("Write `f(items, first)` that returns the mean of the items, rounded down.", None),
    ("1. Take a list.\n2. Add its length.\n3. Return the total.", None),
    ("Write a function that reports that no code was provided when its input is empty, raises an "
     "error when the input is no text, and otherwise returns the number of its lines.", None),
]  # fmt: skip


@pytest.mark.parametrize(("text", "kind"), DESCRIPTIONS)
def test_what_a_description_says(text: str, kind: str | None) -> None:
    asked = describe_prompt(SHOWN, "python")
    arguments = ("description", text, "stop", 9, "python")
    rejection = judge_text(*arguments, GATES, snippet=SHOWN, asked=asked)
    assert (rejection and rejection.reason.value) == (kind and f"description_{kind}")
    if kind != "unclosed_thought":
        assert judge_text(*arguments, OPEN, snippet=SHOWN, asked=asked) is None


STUBS = {
    "python": ["def f(x):\n    pass", "def f(x):\n    ...", 'def f(x):\n    """Doc."""\n',
               "def f(x):\n    raise NotImplementedError", "# Your code here\npass",
               "def f(x):\n    raise Exception('Not implemented yet')",
               "class A:\n    def f(self):\n        # TODO\n        return None"],
    "javascript": ["function f(x) { /* your code here */ }",
                   "const f = (x) => { throw new Error('Not implemented'); };"],
    "cpp": ['int f() {\n  throw std::logic_error("not implemented");\n}'],
    "java": ["int f() { throw new UnsupportedOperationException(); }"],
    "go": ["func f() int {\n\t// TODO: implement\n\treturn 0\n}",
           'func f() {\n\tpanic("not implemented")\n}'],
    "rust": ["fn f() -> u8 { todo!() }", 'fn f() { unimplemented!("later") }'],
    "c": ["int f(int x) {\n  // your implementation\n  return 0;\n}"],
}  # fmt: skip
NO_STUBS = {
    "python": ["def f(x):\n    return None", "def f(x):\n    # TODO: faster\n    return x + 1",
               "class A(ABC):\n    @abstractmethod\n    def f(self):\n        ...", "x = 1",
               "def f(x):\n    raise ValueError(x)",
               "class A:\n    def f(self):\n        pass\n\n    def g(self):\n        return 1"],
    "javascript": ["function noop() {}", "function f(x) { throw new Error('bad ' + x); }"],
    "go": ["type A struct {\n\tb int\n}"],
    "typescript": ["interface A {\n  f(): void;\n}"],
}  # fmt: skip


@pytest.mark.parametrize(("cases", "kind"), [(STUBS, "chosen_stub"), (NO_STUBS, None)])
def test_stubs_are_no_chosen_answers(cases: dict[str, list[str]], kind: str | None) -> None:
    for language, codes in cases.items():
        for code in codes:
            text = f"```{language}\n{code}\n```"
            rejection = judge_text("chosen", text, "stop", 9, language, GATES)
            assert (rejection and rejection.reason.value) == kind, code
            assert judge_text("rejected", text, "stop", 9, language, GATES) is None, code


class Replies:
    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)

    async def generate(self, user_message: str, sampling: SamplingConfig) -> Completion:
        text = self.texts.pop(0)
        return Completion(text, "stop", len(text.split()))


def run(*texts: str) -> dict[str, Any]:
    processor = RowProcessor(SynthesisConfig(), ("describe", "chosen", "rejected"))
    return asyncio.run(processor(dict(ROW), Replies(*texts)))


CODE = "```python\ndef f(x):\n    return x + 1\n```"
DRAFT = "Maybe:\n```python\ndef draft(x):\n    # a long first draft\n    return x - 1\n```\nNo.\n"
THOUGHTS = {
    "qwen": f"<think>\n{DRAFT}</think>\n\n{CODE}",
    "opened by the template": f"{DRAFT}</think>\n\n{CODE}",
    "mistral": f"[THINK]{DRAFT}[/THINK]{CODE}",
    "kimi": f"◁think▷{DRAFT}◁/think▷{CODE}",
    "thoughts": f"<|begin_of_thought|>\n{DRAFT}<|end_of_thought|>\n"
    f"<|begin_of_solution|>{CODE}<|end_of_solution|>",
    "answer": f"<think>{DRAFT}</think>\n<answer>\n{CODE}\n</answer>",
    "gpt-oss": f"analysis{DRAFT}assistantfinal{CODE}",
    "about tags": f"<think>It says '</think>' in `</think>`.</think>{CODE}",
    "half a block": f"<think>\n```python\ndef draft():\n</think>\n{CODE}",
    "none": CODE,
    "capitals": f"<THINK>{DRAFT}</THINK>{CODE}",
    "spaces": f"< think >{DRAFT}</ think >{CODE}",
    "other names": f"<scratchpad>{DRAFT}</scratchpad><response>{CODE}</response>",
    "medgemma": f"<unused94>thought\n{DRAFT}<unused95>{CODE}",
    "granite": f"Here is my thought process:\n{DRAFT}\nHere is my response:\n{CODE}",
    "cohere": f"<|START_THINKING|>{DRAFT}<|END_THINKING|><|START_TEXT|>{CODE}<|END_TEXT|>",
    "gpt-oss with marks": f"<|channel|>analysis<|message|>{DRAFT}<|end|><|start|>assistant"
    f"<|channel|>final<|message|>{CODE}<|return|>",
    "answer alone": f"<answer>{CODE}</answer>",
    "end of the turn": f"<think>{DRAFT}</think>{CODE}<|im_end|>",
}


@pytest.mark.parametrize("text", THOUGHTS.values(), ids=THOUGHTS)
def test_thoughts_are_no_part_of_the_answer(text: str) -> None:
    row = run(TASK, text, text)
    assert row["chosen"].strip() == CODE and row.get("reject_reason") is None
    assert 0 < row["chosen_num_tokens"] <= len(text.split())
    assert run(text.replace(CODE, TASK), CODE, "x")["description"] == TASK


@pytest.mark.parametrize(
    "text",
    [f"<think>\n{CODE}", "<think>", f"<think>a</think>{CODE}\n<think>\nAgain", "analysisThe user"],
)
def test_a_thought_without_an_end_has_its_own_reason(text: str) -> None:
    for before, side in (((), "description"), ((TASK,), "chosen"), ((TASK, CODE), "rejected")):
        assert run(*before, text)["reject_reason"] == f"{side}_unclosed_thought"


@pytest.mark.parametrize("kind", ["Sure! Here is the task:\n\n{}", "**Task:** {}", "# Task\n{}",
                                  "Certainly! Here's the instruction: {}\n\nI hope this helps!",
                                  "Of course. {} Let me know if you need more."])  # fmt: skip
def test_what_is_said_around_a_task_is_not_part_of_it(kind: str) -> None:
    assert run(kind.format(TASK), CODE, "x")["description"] == TASK


@pytest.mark.parametrize("task", [
    "Sure-footed walkers need a route: write a function that finds it.",
    "Here a tree is given. Count its leaves.",
    "Write a function that removes everything up to </think> from a text.",
    "Task queues need workers: write one that retries.",
])  # fmt: skip
def test_tasks_that_begin_like_politeness_are_whole(task: str) -> None:
    assert run(task, CODE, "x")["description"] == task


def test_code_about_tags_is_code() -> None:
    code = "```python\nTEXT = 'a<think>b</think>c'\nLONG = '''\n<think>\n</think>\n'''\n```"
    assert split_thought(code) == (code, False)
    assert judge_text("chosen", code, "stop", 9, "python", GATES) is None


PIECES = st.sampled_from(["<think>", "</think>", "\n", "```", "a", "[/THINK]", " ", "'", "answer>"])


@given(st.lists(PIECES, max_size=20).map("".join))
def test_what_is_left_is_the_end_of_the_text(text: str) -> None:
    answer, _ = split_thought(text)
    assert text.endswith(answer)
    again, _ = split_thought(answer)
    assert again == answer or "```" in text
