"""Graded answers become a pool that studies read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from codepmp_ray.command import answers
from codepmp_ray.config.study_materials import PoolConfig
from codepmp_ray.errors import ConfigError, InputError
from codepmp_ray.evaluation.pool_files import graded_pool
from codepmp_ray.studies.pools import read_questions
from tests.unit.evaluation.test_finetuning_pairs import PROBLEMS, answers_to, recipe_with


def test_a_pool_has_what_was_graded_and_counts_the_rest(tmp_path: Path) -> None:
    answers = answers_to(PROBLEMS[1], [False, True, None, True])
    answers[3]["completion"] = " "
    shown = [{**answer, "prompt": PROBLEMS[1].prompt, "model": "m"} for answer in answers]
    recipe = recipe_with(
        tmp_path, [("eval", shown[::-1]), ("train", answers_to(PROBLEMS[0], [True]))]
    )
    (row,), counts = graded_pool(recipe)
    assert counts == {"num_used": 2, "num_without_grade": 1, "num_empty": 1}
    assert (row["problem_id"], row["question"]) == (PROBLEMS[1].problem_id, PROBLEMS[1].prompt)
    assert [(c["text"][:8], c["correct"]) for c in row["candidates"]] == [
        ("answer 0", False),
        ("answer 1", True),
    ]
    (tmp_path / "pool.jsonl").write_text(json.dumps(row) + "\n")
    (question,) = read_questions("mine", PoolConfig(path="pool.jsonl"), str(tmp_path))
    assert (question.text, question.given_id) == (PROBLEMS[1].prompt, PROBLEMS[1].problem_id)
    assert [(a.label, a.model) for a in question.answers] == [(False, "m"), (True, "m")]


def test_nothing_graded_says_what_to_run(tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path, [("eval", answers_to(PROBLEMS[0], [None, None]))])
    with pytest.raises(InputError, match="2 could not be graded"):
        graded_pool(recipe)
    with pytest.raises(ConfigError, match=r"--output=s3://bucket/pool\.jsonl"):
        answers.export(recipe, "s3://bucket/pool.jsonl")


def test_the_job_writes_the_file(tmp_path: Path, capsys) -> None:
    shown = [{**a, "prompt": "p"} for a in answers_to(PROBLEMS[0], [True, False])]
    recipe = recipe_with(tmp_path / "run", [("eval", shown)])
    file = tmp_path / "new folder" / "pool.jsonl"
    answers.export(recipe, str(file))
    assert "1 questions, 2 answers; left out: 0 without a grade, 0 empty" in capsys.readouterr().out
    (row,) = map(json.loads, file.read_text().splitlines())
    assert len(row["candidates"]) == 2
