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
]


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
]


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
               "class A:\n    def f(self):\n        # TODO\n        return None"],
    "javascript": ["function f(x) { /* your code here */ }",
                   "const f = (x) => { throw new Error('Not implemented'); };"],
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
}


@pytest.mark.parametrize("text", THOUGHTS.values(), ids=THOUGHTS)
def test_thoughts_are_no_part_of_the_answer(text: str) -> None:
    row = run(TASK, text, text)
    assert row["chosen"].strip() == CODE and row.get("reject_reason") is None
    assert 0 < row["chosen_num_tokens"] <= len(text.split())
    assert run(text.replace(CODE, TASK), CODE, "x")["description"] == TASK


@pytest.mark.parametrize(
    "text", [f"<think>\n{CODE}", "<think>", f"<think>a</think>{CODE}\n<think>\nAgain"]
)
def test_a_thought_without_an_end_has_its_own_reason(text: str) -> None:
    for before, side in (((), "description"), ((TASK,), "chosen"), ((TASK, CODE), "rejected")):
        assert run(*before, text)["reject_reason"] == f"{side}_unclosed_thought"


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
