"""MBPP rows of each schema become problems whose canonical answers pass."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from codepmp_ray.config.evaluation import CandidatesConfig, SandboxConfig
from codepmp_ray.errors import ConfigError, InputError
from codepmp_ray.evaluation.grading import grade_candidates
from codepmp_ray.evaluation.problems import load_problems, problems_by_id, split_problems
from tests.sandbox_machine import require_sandbox

# Of the exact schemas, with contents of our own.
ORIGINAL = {
    "task_id": 601,
    "text": "Write a function to count how often a digit occurs in a number.",
    "code": "import math\r\ndef helper(x):\r\n  return str(abs(x))\r\n"
    "def count_digit(number, digit=0):\r\n  return helper(number).count(str(digit))",
    "test_list": [
        "assert count_digit(1221, 2) == 2",
        "assert math.isclose(count_digit(-7, 7), 1)",
        "assert count_digit(10) == 1",
    ],
    "test_setup_code": "import math",
    "challenge_test_list": [],
}
SANITIZED = {
    "task_id": 2,
    "prompt": "Write a function to double a list.",
    "code": "def double(xs):\n    return xs + xs",
    "test_imports": ["import math"],
    "test_list": ["assert double([math.pi]) == [math.pi, math.pi]"],
}
HUMANEVAL_FORM = {
    "task_id": "MBPP/3",
    "prompt": '\n\ndef half(x):\n\t"""\n\tHalve.\n\t"""\n',
    "canonical_solution": "\treturn x / 2",
    "entry_point": "half",
    "test": "def check(candidate):\n    assert candidate(4) == 2\n",
}


def _write(path: Path, *rows: object) -> str:
    text = "\n".join(json.dumps(row) for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return str(path)


@pytest.fixture
def task(tmp_path: Path) -> CandidatesConfig:
    path = _write(tmp_path / "mb pp.jsonl.gz", ORIGINAL, SANITIZED, HUMANEVAL_FORM)
    return CandidatesConfig(task="mbpp", task_path=path)


def test_rows_of_three_schemas_are_read(task: CandidatesConfig) -> None:
    problems = load_problems(task.task, task.task_path)
    assert list(problems) == ["MBPP/601", "MBPP/2", "MBPP/3"]
    first = problems["MBPP/601"]
    assert first.entry_point == "count_digit"
    assert "def count_digit(number, digit=0):" in first.prompt
    assert "how often a digit occurs" in first.prompt
    assert "Example: assert count_digit(1221, 2) == 2" in first.prompt
    assert "isclose" not in first.prompt  # further tests stay hidden
    assert first.prelude.strip() == ""


def test_canonical_answers_pass_and_wrong_ones_fail(task: CandidatesConfig) -> None:
    config = SandboxConfig(time_limit_s=5)
    require_sandbox()
    problems = load_problems(task.task, task.task_path).values()
    rows = [(p.problem_id, p.canonical_answer) for p in problems]
    rows.append(("MBPP/601", "```python\ndef count_digit(number, digit=0):\n    return 2\n```"))
    grades = grade_candidates(
        [
            {"candidate_id": str(i), "problem_id": p, "completion": c}
            for i, (p, c) in enumerate(rows)
        ],
        task,
        config,
    )
    assert [row["outcome"] for row in grades] == ["passed"] * 3 + ["failed"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([SANITIZED, ORIGINAL | {"code": "def f(:"}], r"Row 2 \('601'\) of .*rows.jsonl"),
        ([ORIGINAL | {"test_list": ["assert other(1) == 1"]}], "'601'.* is no problem of MBPP"),
        ([ORIGINAL | {"test_list": None}], "'601'.* is no problem of MBPP"),
        ([{"task_id": "MBPP/9", "prompt": "def f(): pass"}], "'MBPP/9'.*'canonical_solution'"),
        ([ORIGINAL, SANITIZED, ORIGINAL], "Row 3 .*the id 'MBPP/601' is that of row 1, too"),
        (["text"], "row 1: holds str, not an object"),
        ([], "has no problems"),
    ],
)
def test_rows_that_cannot_be_problems_are_named(tmp_path: Path, rows: list, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_problems("mbpp", _write(tmp_path / "rows.jsonl", *rows))


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    for name, content in (
        ("cut.jsonl.gz", b"\x1f\x8b\x08"),
        ("x.parquet", b"PAR1"),
        ("b", b"\xff"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"the task mbpp: path=.*{name}.* cannot be read"):
            load_problems("mbpp", str(tmp_path / name))
    with pytest.raises(InputError, match=r"missing does not exist"):
        load_problems("mbpp", str(tmp_path / "missing"))


def _ids(problems):
    return [problem.problem_id for problem in problems]


def test_there_are_164_problems_with_every_part():
    problems = load_problems("humaneval")
    assert len(problems) == 164
    for problem in problems.values():
        assert f"def {problem.entry_point}(" in problem.stub
        assert "def check(" in problem.test
        assert problem.prompt.endswith("\n```")


def test_split_is_disjoint_deterministic_and_covers_everything():
    config = CandidatesConfig(num_train_problems=100, num_eval_problems=64)
    first, again = split_problems(config), split_problems(config)
    assert first == again
    assert len(first["train"]) == 100 and len(first["eval"]) == 64
    assert set(_ids(first["train"])) | set(_ids(first["eval"])) == set(load_problems("humaneval"))


def test_more_evaluation_problems_do_not_move_training_problems():
    small = split_problems(CandidatesConfig(num_train_problems=20, num_eval_problems=10))
    large = split_problems(CandidatesConfig(num_train_problems=20, num_eval_problems=90))
    assert small["train"] == large["train"]
    assert small["eval"] == large["eval"][:10]


def test_another_seed_gives_another_split():
    config = CandidatesConfig(num_train_problems=20, num_eval_problems=20)
    other = config.model_copy(update={"split_seed": 1})
    assert _ids(split_problems(config)["train"]) != _ids(split_problems(other)["train"])


def test_too_many_problems_are_refused_with_the_number():
    with pytest.raises(ConfigError, match=r"165, but humaneval has 164.*Lower one of them by 1"):
        split_problems(CandidatesConfig(num_train_problems=100, num_eval_problems=65))


def test_prelude_keeps_imports_and_helpers_only():
    problem = load_problems("humaneval")["HumanEval/32"]
    assert "import math" in problem.prelude and "def poly(" in problem.prelude
    assert "find_zero" not in problem.prelude


def test_unknown_problem_is_named():
    with pytest.raises(InputError, match="HumanEval/999"):
        problems_by_id(CandidatesConfig(), ["HumanEval/1", "HumanEval/999"])
