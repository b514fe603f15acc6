import json

import pytest

from codepmp_ray.config.evaluation import CandidatesConfig, SandboxConfig
from codepmp_ray.errors import InputError, SandboxUnavailable
from codepmp_ray.evaluation import grading
from codepmp_ray.evaluation.grading import grade_candidates, grade_counts
from codepmp_ray.evaluation.problems import load_problems
from codepmp_ray.records import GRADE, table_from_rows
from tests.sandbox_machine import require_sandbox

CONFIG = SandboxConfig(time_limit_s=2, num_parallel=2)
TASK = CandidatesConfig()
PROBLEM = load_problems("humaneval")["HumanEval/53"]


def _candidates(*completions):
    return [
        {"candidate_id": f"c{i}", "problem_id": PROBLEM.problem_id, "completion": text}
        for i, text in enumerate(completions)
    ]


@pytest.mark.slow
def test_outcomes_of_right_wrong_endless_and_absent_code():
    require_sandbox()
    rows = grade_candidates(
        _candidates(
            PROBLEM.canonical_answer,
            "```python\ndef add(x, y):\n    return x - y\n```",
            "```python\ndef add(x, y):\n    raise ValueError('\\ud800')\n```",
            "```python\ndef add(x, y):\n    while True: pass\n```",
            "I would rather not.",
            "",
        ),
        TASK,
        CONFIG,
    )
    outcomes = [row["outcome"] for row in rows]
    assert outcomes == ["passed", "failed", "failed", "timeout", "no_code", "no_code"]
    assert [row["passed"] for row in rows] == [True] + [False] * 5
    assert [row["candidate_id"] for row in rows] == ["c0", "c1", "c2", "c3", "c4", "c5"]
    assert "\\ud800" in rows[2]["detail"] and rows[3]["duration_s"] >= 2
    assert table_from_rows(rows, GRADE).num_rows == 6
    assert grade_counts(rows) == {"failed": 2, "no_code": 2, "passed": 1, "timeout": 1}


def test_without_a_sandbox_nothing_runs_and_grading_fails(monkeypatch):
    def unavailable(config):
        raise SandboxUnavailable("Nothing works here.", "Install bubblewrap.")

    monkeypatch.setattr(grading.Sandbox, "detect", staticmethod(unavailable))
    with pytest.raises(SandboxUnavailable, match=r"Nothing works here\. Install bubblewrap"):
        grade_candidates(
            _candidates("```python\ndef add(x, y):\n    return x + y\n```"), TASK, CONFIG
        )


OBJECTS = {
    "task_id": 1,
    "text": "Add up.",
    "code": "class P:\n    def __init__(self, a):\n        self.a = a\n"
    "def total(ps):\n    return sum(p.a for p in ps)",
    "test_list": ["assert total([P(2), P(3)]) == 5"],
}
NUMBERS = {"task_id": 2, "text": "Double.", "code": "def double(x):\n    return 2 * x"}
NUMBERS["test_list"] = ["assert double(3) == 6"]


def test_problems_whose_own_solution_fails_are_not_gradable_unless_they_may_share(tmp_path):
    require_sandbox()
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, (OBJECTS, NUMBERS))))
    task = CandidatesConfig(task="mbpp", task_path=str(path))
    right = [f"```python\n{row['code']}\n```" for row in (OBJECTS, NUMBERS)]
    wrong = "```python\ndef total(ps):\n    return 0\n```"
    rows = [
        {"candidate_id": str(index), "problem_id": problem, "completion": text}
        for index, (problem, text) in enumerate(
            [("MBPP/1", right[0]), ("MBPP/1", "no code"), ("MBPP/2", right[1]), ("MBPP/1", wrong)]
        )
    ]
    grades = grade_candidates(rows, task, CONFIG)
    assert [row["outcome"] for row in grades] == ["not_gradable"] * 2 + ["passed", "not_gradable"]
    assert [row["passed"] for row in grades] == [None, None, True, None]
    assert grades[0]["detail"].startswith("its own solution ends as failed: NameError")
    sharing = CONFIG.model_copy(update={"shared_process": ["MBPP/1"]})
    grades = grade_candidates(rows, task, sharing)
    assert [row["outcome"] for row in grades] == ["passed", "no_code", "passed", "failed"]
    assert "could be forged" in grades[0]["detail"] and grades[2]["detail"] == ""


def test_unknown_problem_is_an_input_error():
    with pytest.raises(InputError, match="HumanEval/4000"):
        grade_candidates(
            [{"candidate_id": "a", "problem_id": "HumanEval/4000", "completion": ""}], TASK, CONFIG
        )
