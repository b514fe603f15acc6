"""Stages before the reward: who falls out where."""

import pytest

from codepmp_ray.config.evaluation import SandboxConfig
from codepmp_ray.errors import DeadlineError, InputError, SandboxUnavailable
from codepmp_ray.evaluation import stages
from codepmp_ray.evaluation.sandbox import Execution, Sandbox
from codepmp_ray.evaluation.stages import Screen
from codepmp_ray.scoring.stages import STAGES, AnswerTests, StagesAsked
from tests.sandbox_machine import MECHANISMS

TEST = "def check(candidate):\n    assert candidate(2) == 4\n"
TESTS = AnswerTests("f", TEST)
GOOD = "Sure.\n```python\ndef f(x):\n    return x + 2\n```"
WRONG = "```python\ndef f(x):\n    return x\n```"
CUT = "```python\ndef f(x):\n    return (x +\n```"
OTHER = "```python\ndef g(x):\n    return x + 2\n```"
PROSE = "I would rather not say."


def go_on():
    pass


def fates(candidates, names, tests=None, check=go_on):
    found = Screen(SandboxConfig(time_limit_s=60)).survivors(
        candidates, StagesAsked(names, tests), check
    )
    return list(found.fell_at), found.all_fell_at, found.places


@pytest.fixture
def executor(monkeypatch):
    """In the place of the sandbox: knows the right program by its text, counts what it is given."""

    class Executor:
        def __init__(self):
            self.jobs = []

        def run(self, job):
            self.jobs.append(job)
            return Execution("passed" if "x + 2" in job.program else "failed", "", 0.0)

    made = Executor()
    monkeypatch.setattr(stages.Sandbox, "detect", lambda config: made)
    return made


def test_each_falls_out_at_its_stage(executor):
    candidates = [PROSE, CUT, OTHER, WRONG, GOOD]
    fell_at, all_fell_at, places = fates(candidates, STAGES, TESTS)
    assert fell_at == ["extract", "parse", "parse", "run", None]
    assert (all_fell_at, places) == (None, [4])
    assert len(executor.jobs) == 2  # what fell out before is not executed


def test_equal_texts_and_equal_programs_are_run_once(executor):
    same = GOOD.replace("Sure.", "Here it is.")
    assert fates([GOOD, WRONG, GOOD, same, WRONG], STAGES, TESTS)[2] == [0, 2, 3]
    assert len(executor.jobs) == 2


@pytest.mark.parametrize(
    "candidates, names, fell_at, places",
    [
        ([PROSE, "No."], STAGES, ["extract", "extract"], [0, 1]),
        ([PROSE, CUT, OTHER], STAGES, ["extract", "parse", "parse"], [1, 2]),
        ([CUT, WRONG, WRONG + "\n"], STAGES, ["parse", "run", "run"], [1, 2]),
        ([PROSE, WRONG], ("run",), ["run", "run"], [0, 1]),
    ],
)
def test_where_all_fall_out_the_last_survivors_are_left(
    executor, candidates, names, fell_at, places
):
    assert fates(candidates, names, TESTS) == (fell_at, fell_at[-1], places)


@pytest.mark.parametrize(
    "text, names, falls",
    [
        ("The answer is 18.", ("extract", "parse"), None),
        ("\\boxed{7}", ("extract", "parse"), None),
        (PROSE, ("extract", "parse"), "extract"),
        (PROSE, ("parse",), None),  # there is no code that could be wrong
        (OTHER, ("extract", "parse"), None),
        (CUT, ("extract", "parse"), "parse"),
        (f"{CUT}\nAgain:\n{GOOD}", ("extract", "parse"), None),
        ("```\nx = (\n```", ("parse",), "parse"),
        ("```\n3 apples\n```\nThe answer is 3.", ("parse",), None),
        ("```java\nint x = ;\n```", ("extract", "parse"), None),  # not looked at
    ],
)
def test_without_tests_an_answer_is_a_final_answer_or_code(text, names, falls):
    assert fates([text, GOOD], names)[0] == [falls, None]


@pytest.mark.parametrize(
    "text, falls",
    [
        ("The answer is 18.", "extract"),  # a number is no program
        ("def f(x):\n    return x + 2", None),
        ("We need f, which adds two.", "parse"),
        ("```java\nint f(int x) { return x + 2; }\n```", "parse"),
    ],
)
def test_with_tests_an_answer_is_a_program(text, falls):
    assert fates([text, GOOD], ("extract", "parse"), TESTS)[0] == [falls, None]


def test_a_stub_may_be_completed_and_helpers_are_there(executor):
    stub = AnswerTests("f", TEST, "import math\n\ndef f(x):\n    '''Add two.'''\n")
    body = "    return x + 2"
    assert fates([body, PROSE], STAGES, stub)[0] == [None, "extract"]
    helpers = AnswerTests("f", TEST, "def two():\n    return 2\n")
    assert fates([GOOD, PROSE], STAGES, helpers)[0] == [None, "extract"]
    assert "def two" in executor.jobs[-1].program and executor.jobs[-1].setup == helpers.setup


@pytest.mark.parametrize(
    "tests, words",
    [
        (AnswerTests("f(", TEST), "entry_point"),
        (AnswerTests("f", "def check(c:"), "tests.test"),
        (AnswerTests("f", "assert f(2) == 4"), "tests.test"),
        (AnswerTests("f", TEST, "def ("), "tests.setup"),
        (None, "no tests"),
    ],
)
def test_tests_that_are_none_are_refused(tests, words):
    with pytest.raises(InputError, match=words):
        fates([GOOD], ("run",), tests)


@pytest.mark.parametrize("names", [("extract",), ("parse",), ("run",)])
def test_who_has_left_is_not_worked_for(executor, names):
    def stop():
        raise DeadlineError("late")

    with pytest.raises(DeadlineError):
        fates([GOOD, WRONG], names, TESTS, stop)
    assert executor.jobs == []


def test_nothing_is_executed_where_no_sandbox_works(monkeypatch):
    def refuse(config):
        raise SandboxUnavailable("none")

    monkeypatch.setattr(stages.Sandbox, "detect", refuse)
    assert fates([CUT, GOOD], ("extract", "parse"), TESTS)[2] == [1]
    with pytest.raises(SandboxUnavailable):
        fates([GOOD], STAGES, TESTS)


@pytest.mark.skipif(not MECHANISMS, reason="no sandbox can be had on this machine")
def test_programs_run_in_the_sandbox_with_its_limits():
    endless = "```python\ndef f(x):\n    while True: pass\n```"
    asked = StagesAsked(STAGES, TESTS)
    patient, hasty = (SandboxConfig(time_limit_s=limit) for limit in (60, 1))
    assert isinstance(Sandbox.detect(patient), Sandbox)
    found = Screen(patient).survivors([WRONG, GOOD, CUT], asked, go_on)
    assert list(found.fell_at) == ["run", None, "parse"]
    assert Screen(hasty).survivors([endless, CUT], asked, go_on).all_fell_at == "run"
