"""Label noise through the real stages: answers of two roles are graded and compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from codepmp_ray.config.recipe import Recipe, parse_recipe
from codepmp_ray.errors import ConfigError, SandboxUnavailable
from codepmp_ray.evaluation.problems import split_problems
from codepmp_ray.records import CANDIDATE, table_from_rows
from codepmp_ray.runs import open_stage
from tests.sandbox_machine import require_sandbox


def recipe_in(run_dir: Path, weak: str = "small") -> Recipe:
    engines = {"strong": {"kind": "fake", "model_name_or_path": "large"},
               "weak": {"kind": "fake", "model_name_or_path": weak}}  # fmt: skip
    candidates = {"num_train_problems": 1, "num_eval_problems": 2, "num_eval_samples": 1}
    return parse_recipe(
        {
            "run_dir": str(run_dir),
            "engines": engines,
            # Which takes one model in both roles, too.
            "synthesis": {"construction": "description_clip"},
            "candidates": candidates,
        },
        "test",
    )


def write_answers(recipe: Recipe, right: list[bool]) -> None:
    """The candidates stage as sampling leaves it; problems in the order of the split."""
    stage = open_stage(recipe, "candidates")
    rows = [
        {
            "candidate_id": problem.problem_id,
            "problem_id": problem.problem_id,
            "split": "eval",
            "sample_index": 0,
            "prompt": problem.prompt,
            "completion": problem.canonical_answer if is_right else "I do not know.",
        }
        for problem, is_right in zip(split_problems(recipe.candidates)["eval"], right, strict=True)
    ]
    stage.ledger.commit(0, len(rows), {"candidates": table_from_rows(rows, CANDIDATE)})
    stage.complete({})


@pytest.mark.rehearsal
def test_noise_is_the_share_of_orders_that_the_weak_model_wins(
    ray_cluster: None, tmp_path: Path
) -> None:
    from codepmp_ray.cluster.label_noise import measure_label_noise, recipe_of_role

    recipe = recipe_in(tmp_path / "a run")
    require_sandbox()
    # Train and eval problems together, each sampled as its side of a pair is.
    strong, weak = recipe_of_role(recipe, "strong"), recipe_of_role(recipe, "weak")
    assert strong.candidates.sampling == recipe.synthesis.chosen
    write_answers(strong, [True, True, False])
    write_answers(weak, [False, True, True])
    result, where = measure_label_noise(recipe)
    assert result.num_problems == 3
    shares = (result.right, result.wrong, result.both_pass, result.both_fail)
    assert [round(share.mean, 3) for share in shares] == [0.333, 0.333, 0.333, 0.0]
    assert result.noise is not None and result.noise.mean == 0.5
    stored = json.loads(Path(where).read_text())
    assert stored["noise"]["mean"] == 0.5 and stored["strong_model"] == "large"
    assert len(stored["pass_rates"]) == 3


def test_one_model_in_both_roles_is_refused(tmp_path: Path) -> None:
    from codepmp_ray.cluster.label_noise import measure_label_noise

    with pytest.raises(ConfigError, match="are the same \\(large\\)"):
        measure_label_noise(recipe_in(tmp_path, weak="large"))


@pytest.mark.parametrize(("task", "reached"), [("humaneval", False), ("gsm8k", True)])
def test_only_tasks_of_code_ask_for_the_sandbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, reached: bool
) -> None:
    from codepmp_ray.cluster import label_noise

    class Sampled(Exception):
        pass

    def no_sandbox(*_: object) -> None:
        raise SandboxUnavailable("No isolation here.")

    def sample(*_: object) -> None:
        raise Sampled

    monkeypatch.setattr(label_noise.Sandbox, "detect", no_sandbox)
    monkeypatch.setattr(label_noise, "sample_candidates", sample)
    recipe = recipe_in(tmp_path)
    candidates = recipe.candidates.model_copy(update={"task": task})
    with pytest.raises(Sampled if reached else SandboxUnavailable):
        label_noise.measure_label_noise(recipe.model_copy(update={"candidates": candidates}))
