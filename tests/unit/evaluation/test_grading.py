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


def test_without_a_sandbox_nothing_runs_and_every_row_says_why(monkeypatch, tmp_path):
    def unavailable(config):
        raise SandboxUnavailable("Nothing works here.", "Install bubblewrap.")

    monkeypatch.setattr(grading.Sandbox, "detect", staticmethod(unavailable))
    touched = tmp_path / "touched"
    text = f"```python\ndef add(x, y):\n    open({str(touched)!r}, 'w')\n    return x + y\n```"
    executed, empty = grade_candidates(_candidates(text, "no code"), TASK, CONFIG)
    assert (executed["passed"], executed["outcome"]) == (None, "not_executed")
    assert "Install bubblewrap" in executed["detail"]
    assert (empty["passed"], empty["outcome"]) == (False, "no_code")
    assert not touched.exists()


def test_unknown_problem_is_an_input_error():
    with pytest.raises(InputError, match="HumanEval/4000"):
        grade_candidates(
            [{"candidate_id": "a", "problem_id": "HumanEval/4000", "completion": ""}], TASK, CONFIG
        )
