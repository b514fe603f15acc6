"""Execution feedback: scripted models, a real sandbox."""

import asyncio
from typing import Any

import pytest

from codepmp_ray.cluster import execution
from codepmp_ray.cluster.execution import execute_and_split
from codepmp_ray.config.engines import EnginesConfig, SamplingConfig
from codepmp_ray.config.evaluation import SandboxConfig
from codepmp_ray.config.synthesis import SynthesisConfig
from codepmp_ray.errors import SandboxUnavailable
from codepmp_ray.records import SNIPPET
from codepmp_ray.synthesis.engine import Completion
from codepmp_ray.synthesis.hops import RowProcessor
from codepmp_ray.synthesis.plan import plan_pools
from tests.sandbox_machine import require_sandbox

pytestmark = pytest.mark.slow

CONFIG = SynthesisConfig(
    construction="execution_feedback", sandbox=SandboxConfig(time_limit_s=2, num_parallel=2)
)
ROW = dict.fromkeys(SNIPPET.names, "x") | {
    "language": "python",
    "kind": "function",
    "name": "double",
    "code": "def double(x: int, *, by=2) -> int:\n    return x * by",
}
TESTS = "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(0) == 0"
RIGHT = "def double(x, *, by=2):\n    return x * by"
WRONG = "def double(number, *, by=1):\n    return by"
ENDLESS = "def double(value):\n    while True:\n        pass"


class Script:
    """Answers by the kind of question."""

    def __init__(self, tests: str, strong: str, weak: str, weak_tests: str = "") -> None:
        self.answers = {
            "describe": "Write a function that doubles its argument and returns the result.",
            "tests": tests,
            "weak_tests": weak_tests or tests,
            "chosen": strong,
            "rejected": weak,
        }
        self.questions: dict[str, str] = {}
        self.hop = ""

    async def generate(self, user_message: str, sampling: SamplingConfig) -> Completion:
        self.questions[self.hop] = user_message
        text = self.answers[self.hop]
        text = text if self.hop == "describe" else f"```python\n{text}\n```"
        return Completion(text, "stop", len(text))


def synthesize(script: Script, config: SynthesisConfig = CONFIG, **changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = {**ROW, **changes}
    for pool in plan_pools(config, EnginesConfig()):
        for hop in pool.hops:
            script.hop = hop
            row = asyncio.run(RowProcessor(config, (hop,))(row, script))
    return row


def outcome(row: dict[str, Any], config: SynthesisConfig = CONFIG) -> tuple[str, dict[str, Any]]:
    tables = execute_and_split([row], config, EnginesConfig())
    (name,) = [name for name, table in tables.items() if table.num_rows]
    return name, tables[name].to_pylist()[0]


@pytest.fixture
def sandbox() -> None:
    require_sandbox()


def test_the_passing_side_is_chosen_whoever_wrote_it(sandbox: None) -> None:
    table, pair = outcome(synthesize(Script(TESTS, RIGHT, WRONG)))
    assert table == "pairs" and RIGHT in pair["chosen"] and WRONG in pair["rejected"]
    assert pair["strong_model"].endswith("1.5B-Instruct") and TESTS in pair["tests"]
    table, pair = outcome(synthesize(Script(TESTS, WRONG, RIGHT)))
    assert table == "pairs" and RIGHT in pair["chosen"] and WRONG in pair["rejected"]
    assert pair["strong_model"].endswith("0.5B-Instruct")
    assert pair["weak_model"].endswith("1.5B-Instruct")
    assert pair["chosen_num_tokens"] == len(f"```python\n{RIGHT}\n```")


def test_every_test_of_both_models_is_executed_by_itself(sandbox: None) -> None:
    config = CONFIG.model_copy(update={"construction": "pass_rate"})
    script = Script(f"{TESTS}\n    assert candidate(3) == 1", RIGHT, WRONG, TESTS)
    table, pair = outcome(synthesize(script, config), config)
    # RIGHT: 2 of 3 and 2 of 2. WRONG gives `by`, 1: the third of the first suite only.
    assert table == "pairs" and RIGHT in pair["chosen"] and WRONG in pair["rejected"]
    assert pair["margin"] == pytest.approx((2 / 3 + 1) / 2 - (1 / 3) / 2)
    assert pair["tests"].count("def check") == 2
    table, rejected = outcome(synthesize(Script(TESTS, WRONG, ENDLESS), config), config)
    assert table == "rejected" and rejected["reason"] == "both_fail"


@pytest.mark.parametrize(
    ("tests", "strong", "weak", "reason"),
    [
        (TESTS, RIGHT, RIGHT.replace("x", "value"), "both_pass"),
        (TESTS, WRONG, ENDLESS, "both_fail"),
        (TESTS, "def other(x):\n    return 2 * x", WRONG, "both_fail"),
        ("def check(candidate):\n    raise SystemExit", RIGHT, WRONG, "no_tests"),
        ("assert double(2) == 4", RIGHT, WRONG, "no_tests"),
        ("def check(candidate: assert", RIGHT, WRONG, "no_tests"),
        (TESTS + "\n    import os; os._exit(0)", RIGHT, WRONG, "both_fail"),
    ],
)
def test_no_difference_is_a_typed_reject(
    sandbox: None, tests: str, strong: str, weak: str, reason: str
) -> None:
    table, row = outcome(synthesize(Script(tests, strong, weak)))
    assert (table, row["reason"]) == ("rejected", reason) and row["detail"]


def test_both_models_and_the_tests_see_the_signature() -> None:
    script = Script(TESTS, RIGHT, WRONG)
    synthesize(script)
    line = "Write it as one function: `def double(x: int, *, by=2)`."
    assert all(line in script.questions[hop] for hop in ("tests", "chosen", "rejected"))
    assert RIGHT not in script.questions["tests"]


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "class", "code": "class double: pass"},
        {"name": "A.double"},
        {"language": "java"},
        {"name": "check", "code": "def check(x):\n    return x"},
        {"code": "async def double(x):\n    return x"},
        {"code": "def double(:"},
    ],
)
def test_what_cannot_be_called_alone_costs_no_tokens(changes: dict[str, str]) -> None:
    script = Script(TESTS, RIGHT, WRONG)
    row = synthesize(script, **changes)
    assert row["reject_reason"] == "not_executed" and script.questions == {}


def test_without_a_sandbox_nothing_runs_and_the_row_says_why(monkeypatch) -> None:
    def unavailable(config):
        raise SandboxUnavailable("Nothing works here.", "Install bubblewrap.")

    monkeypatch.setattr(execution.Sandbox, "detect", staticmethod(unavailable))
    table, row = outcome(synthesize(Script(TESTS, RIGHT, WRONG)))
    assert (table, row["reason"]) == ("rejected", "not_executed")
    assert "Install bubblewrap" in row["detail"]


def test_the_strong_pool_does_its_three_hops_with_one_copy_of_the_weights() -> None:
    strong, weak = plan_pools(CONFIG, EnginesConfig())
    assert (strong.hops, weak.hops) == (("describe", "tests", "chosen"), ("rejected",))
    weak_first = CONFIG.model_copy(update={"describer": "weak"})
    weak, strong = plan_pools(weak_first, EnginesConfig())
    assert (weak.hops, strong.hops) == (("describe", "rejected"), ("tests", "chosen"))
