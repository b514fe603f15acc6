"""The grades stage on a real Ray cluster: shards, resume, and grading anew once code can run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from codepmp_ray.config.recipe import Recipe, parse_recipe
from codepmp_ray.errors import ConfigError, InputError, SandboxUnavailable
from codepmp_ray.evaluation.problems import load_problems
from codepmp_ray.records import CANDIDATE, GRADE, table_from_rows
from codepmp_ray.runs import open_stage
from tests.processes import PATIENCE_S
from tests.sandbox_machine import require_sandbox

SIZES = [2, 0, 3]  # problems per shard; one shard is empty
WRONG = "```python\ndef {}(*a):\n    return object()\n```"


def recipe_with_candidates(run_dir: Path) -> Recipe:
    # Of the clock: on a busy machine an interpreter takes seconds to start.
    limits = {"sandbox": {"time_limit_s": PATIENCE_S}}
    recipe = parse_recipe({"run_dir": str(run_dir), "evaluation": limits}, "test")
    require_sandbox()
    stage = open_stage(recipe, "candidates")
    problems = iter(load_problems("humaneval").values())
    for shard_id, size in enumerate(SIZES):
        rows = []
        for problem in (next(problems) for _ in range(size)):
            answers = (problem.canonical_answer, WRONG.format(problem.entry_point), "no code")
            rows += [
                {
                    "candidate_id": f"{problem.problem_id}-{index}",
                    "problem_id": problem.problem_id,
                    "split": "train",
                    "sample_index": index,
                    "prompt": problem.prompt,
                    "completion": answer,
                }
                for index, answer in enumerate(answers)
            ]
        stage.ledger.commit(shard_id, len(rows), {"candidates": table_from_rows(rows, CANDIDATE)})
    stage.complete({})
    return recipe


def test_every_candidate_is_graded_once_and_under_its_shard(ray_cluster, tmp_path):
    from codepmp_ray.cluster.grading import grade

    recipe = recipe_with_candidates(tmp_path / "a run")
    summary = grade(recipe)
    assert summary["outcomes"] == {"failed": 5, "no_code": 5, "passed": 5}
    assert "rlimits" in summary["sandbox"] and summary["num_graded"] == 15
    assert summary["not_gradable"] == {} == summary["missing_packages"]
    ledger = open_stage(recipe, "grades").ledger
    assert [commit.num_rows["grades"] for commit in ledger.commits()] == [3 * n for n in SIZES]
    source = open_stage(recipe, "candidates").ledger.read("candidates", ["candidate_id"])
    assert ledger.read("grades", ["candidate_id"]).equals(source)
    assert grade(recipe) == summary  # complete: nothing is done again


def test_a_resumed_run_keeps_what_was_committed(ray_cluster, tmp_path):
    from codepmp_ray.cluster.grading import grade

    recipe = recipe_with_candidates(tmp_path)
    source = open_stage(recipe, "candidates").ledger
    first = source.store.read_table(next(source.commits()).files["candidates"]).to_pylist()
    earlier = [
        {"candidate_id": row["candidate_id"], "passed": False, "outcome": "killed"} for row in first
    ]
    stage = open_stage(recipe, "grades")
    stage.ledger.commit(0, len(earlier), {"grades": table_from_rows(earlier, GRADE)})
    assert grade(recipe)["outcomes"] == {"failed": 3, "killed": 6, "no_code": 3, "passed": 3}


def test_grading_fails_before_it_begins_where_code_cannot_be_executed(
    ray_cluster, tmp_path, monkeypatch
):
    from codepmp_ray.cluster import grading

    def unavailable(config):
        raise SandboxUnavailable("Nothing works here.", "Install bubblewrap.")

    recipe = recipe_with_candidates(tmp_path)
    monkeypatch.setattr(grading.Sandbox, "detect", staticmethod(unavailable))
    with pytest.raises(SandboxUnavailable, match="Install bubblewrap"):
        grading.grade(recipe)
    assert not open_stage(recipe, "grades").has_begun


def test_a_stage_with_too_few_grades_is_an_error_with_the_numbers(ray_cluster, tmp_path):
    from codepmp_ray.cluster.grading import grade

    recipe = recipe_with_candidates(tmp_path)
    source = open_stage(recipe, "candidates").ledger
    stage = open_stage(recipe, "grades")
    for commit in list(source.commits())[1:]:
        rows = source.store.read_table(commit.files["candidates"]).to_pylist()
        keep = ("candidate_id", "problem_id")
        none = [
            {**{k: row[k] for k in keep}, "outcome": "not_gradable", "detail": "x"} for row in rows
        ]
        stage.ledger.commit(commit.shard_id, len(none), {"grades": table_from_rows(none, GRADE)})
    with pytest.raises(InputError, match=r"Only 6 of 15 answers could be graded\. HumanEval/2: x"):
        grade(recipe)
    assert not stage.is_complete


def test_unknown_problems_cannot_share_a_process(ray_cluster, tmp_path):
    from codepmp_ray.cluster.grading import grade

    recipe = recipe_with_candidates(tmp_path)
    sandbox = recipe.evaluation.sandbox.model_copy(update={"shared_process": ["HumanEval/9999"]})
    evaluation = recipe.evaluation.model_copy(update={"sandbox": sandbox})
    other = recipe.model_copy(update={"evaluation": evaluation})
    with pytest.raises(ConfigError, match="'HumanEval/9999', which humaneval does not have"):
        grade(other)


def test_a_pool_from_a_file_is_graded_compared_with_its_labels_and_evaluated(ray_cluster, tmp_path):
    from codepmp_ray.client import CandidateScore
    from codepmp_ray.cluster.grading import grade
    from codepmp_ray.cluster.sampling import sample_candidates
    from codepmp_ray.evaluation.scoring_run import evaluate

    answers = [
        {"text": "It is 4, surely.\n#### 4", "label": True},
        {"text": "Certainly 4.00", "label": False},  # the label is wrong, not the answer
        {"text": "The answer is 5"},
        {"text": "I do not know", "label": False},
    ]
    rows = [{"question": f"{i} + {4 - i}?", "gold": "4", "outputs": answers} for i in range(4)]
    path = tmp_path / "pool.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    candidates = {
        "task": "gsm8k",
        "pool_path": str(path),
        "problems_per_shard": 3,
        "num_train_problems": 0,
        "num_eval_problems": 4,
    }
    settings = {"run_dir": str(tmp_path / "run"), "candidates": candidates}
    recipe = parse_recipe(settings, "test")
    sample_candidates(recipe)
    summary = grade(recipe)
    assert summary["outcomes"] == {"failed": 4, "no_answer": 4, "passed": 8}
    counts = [summary[name] for name in ("num_labelled", "num_agreeing", "num_only_grade")]
    assert counts == [12, 8, 4] and summary["sandbox"].startswith("none needed")
    found = open_stage(recipe, "grades").ledger.read("grades").to_pylist()
    assert {row["answer"] for row in found} == {"4", "5", None}

    class LastIsBest:
        def score(self, prompt, texts):
            return [CandidateScore(float(i), 5, False) for i in range(len(texts))]

    results = evaluate(recipe, LastIsBest(), "model")
    assert results["bon"]["oracle"]["accuracy"] == pytest.approx([0.5, 5 / 6, 1.0])
    assert results["bon"]["majority"]["accuracy"][-1] == 1.0
    assert results["bon"]["reward_model"]["accuracy"][-1] == 0.0
    assert results["bon"]["length"]["accuracy"][-1] == 1.0  # in characters: the file counts none


def test_candidates_are_required(ray_cluster, tmp_path):
    from codepmp_ray.cluster.grading import grade

    with pytest.raises(InputError, match=r"python -m jobs\.sample"):
        grade(parse_recipe({"run_dir": str(tmp_path)}, "test"))
