import pytest

from codepmp_ray.config.evaluation import CandidatesConfig
from codepmp_ray.errors import ConfigError, InputError
from codepmp_ray.evaluation.problems import load_problems, problems_by_id, split_problems


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
