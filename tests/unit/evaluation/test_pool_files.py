"""Files of answers that were sampled elsewhere become candidates, or say why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codepmp_ray.command import answers
from codepmp_ray.config.evaluation import CandidatesConfig
from codepmp_ray.config.recipe import Recipe, parse_recipe
from codepmp_ray.config.study_materials import PoolConfig
from codepmp_ray.errors import ConfigError, InputError
from codepmp_ray.evaluation.given_candidates import are_given
from codepmp_ray.evaluation.pool_files import graded_pool, load_pool
from codepmp_ray.evaluation.pools import Pool
from codepmp_ray.evaluation.problems import problems_by_id, split_problems
from codepmp_ray.runs import open_stage
from codepmp_ray.studies.pools import read_questions
from tests.unit.evaluation.test_finetuning_pairs import PROBLEMS, answers_to, recipe_with

Row = dict[str, Any]
# The shapes of known pools, with contents of our own.
MODELS = {
    "idx": 0,
    "question": "2 + 2?",
    "gold": "4",
    "candidates": [
        {"model": "large", "text": "The answer is 4", "answer": "4", "correct": True},
        {"model": "small", "text": "The answer is 5", "answer": "5", "correct": False},
    ],
}
SAMPLES = {
    "idx": 0,
    "question": "2 + 2?\n",
    "gold": "4",
    "outputs": [
        {"response": "The answer is 4", "answer": "4", "label": True},
        {"response": "The answer is 5", "answer": "5", "label": False},
    ],
}
NAMED = {
    "question": "2 + 2?",
    "ground_truth": "2 + 2 = 4\nA: 4",
    "6b": {"is_correct": True, "solution": "The answer is 4"},
    "175b": {"is_correct": False, "solution": "The answer is 5"},
}
LISTS = {
    "idx": 0,
    "question": "2 + 2?",
    "gt": "4",
    "response": ["The answer is 4", "The answer is 5"],
    "pred": ["4", "5"],
    "score": [True, False],
}
FLAT = [
    {"problem_id": "0", "question": "2 + 2?", "reference": "4", "model": "m",
     "completion": f"The answer is {n}", "label": n == 4, "num_tokens": 4}
    for n in (4, 5)
]  # fmt: skip


def write(path: Path, *rows: Any) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return str(path)


def load(path: Path, *rows: Any, task: str = "gsm8k") -> Pool:
    return load_pool(task, write(path / "pool.jsonl", *rows), None)


@pytest.mark.parametrize(
    ("rows", "models"),
    [
        ([MODELS], ["large", "small"]),
        ([SAMPLES], [None, None]),
        ([NAMED], ["6b", "175b"]),
        ([LISTS], [None, None]),
        ([LISTS | {"model": "one"}], ["one", "one"]),
        (FLAT, ["m", "m"]),
    ],
)
def test_every_known_shape_is_read(tmp_path: Path, rows: list[Row], models: list) -> None:
    pool = load(tmp_path, *rows)
    assert list(pool.questions) == ["GSM8K/0"] and pool.rejects == []
    problem = pool.questions["GSM8K/0"].problem
    assert (problem.prompt, problem.reference.answer) == ("2 + 2?", "4")
    answers = pool.questions["GSM8K/0"].answers
    assert [(a.text, a.label) for a in answers] == [
        ("The answer is 4", True), ("The answer is 5", False)
    ]  # fmt: skip
    assert [answer.model for answer in answers] == models


def test_parquet_and_several_rows_of_one_problem(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([MODELS, MODELS]), tmp_path / "pool.parquet")
    pool = load_pool("gsm8k", str(tmp_path / "pool.parquet"), None)
    assert len(pool.questions["GSM8K/0"].answers) == 4
    assert pool.questions["GSM8K/0"].answers[0].num_tokens is None


@pytest.mark.parametrize(
    ("row", "reasons"),
    [
        ({"gold": "4", "outputs": ["4"]}, {"prompt_empty": 1}),
        (SAMPLES | {"outputs": []}, {"too_few_answers": 1}),
        ({"idx": 1, "question": "3?", "gold": "3"}, {"too_few_answers": 1}),
        (SAMPLES | {"outputs": [{"label": True}, 7, "x"]}, {"empty": 1, "not_text": 1}),
        (SAMPLES | {"outputs": [{"text": "x", "label": "yes"}]}, {"bad_label": 1}),
        (SAMPLES | {"outputs": ["half \ud83d"]}, {"not_text": 1}),
        (LISTS | {"score": [True]}, {"bad_label": 1}),
        (SAMPLES | {"gold": "5"}, {"bad_label": 1}),
        (SAMPLES | {"question": "another"}, {"bad_label": 1}),
        ({"idx": 1, "question": "3?", "gold": "none", "outputs": ["3"]}, {"bad_label": 1}),
    ],
)
def test_what_cannot_be_used_is_counted(tmp_path: Path, row: Row, reasons: dict) -> None:
    pool = load(tmp_path, MODELS, row)
    assert pool.reject_counts == reasons
    assert {reject.index for reject in pool.rejects} == {1}
    assert len(pool.questions["GSM8K/0"].answers) == (3 if "x" in row.get("outputs", []) else 2)


def test_a_file_without_any_answer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"No row of .*pool\.jsonl .*GSM8K: 1 were.*first: row 1"):
        load(tmp_path, SAMPLES | {"outputs": []})
    (tmp_path / "broken.jsonl").write_text("{")
    with pytest.raises(InputError, match=r"candidates\.pool_path=.*broken\.jsonl cannot be.*row 1"):
        load_pool("gsm8k", str(tmp_path / "broken.jsonl"), None)


def test_rows_without_references_are_matched_with_the_tasks_problems(tmp_path: Path) -> None:
    rows = [
        {"task_id": "HumanEval/3", "completion": "def f(): pass"},
        {"task_id": "HumanEval/3", "completion": "def g(): pass"},
        {"task_id": "HumanEval/900", "completion": "def g(): pass"},
    ]
    pool = load(tmp_path, *rows, task="humaneval")
    assert [answer.text for answer in pool.questions["HumanEval/3"].answers] == [
        "def f(): pass", "def g(): pass"
    ]  # fmt: skip
    assert pool.reject_counts == {"unknown_problem": 1}
    task = write(tmp_path / "task.jsonl", {"question": "2 + 2?", "answer": "#### 4"})
    path = write(tmp_path / "by_text.jsonl", {"question": "2 + 2?", "responses": ["4"]})
    assert list(load_pool("gsm8k", path, task).questions) == ["GSM8K/0"]


def recipe(tmp_path: Path, **candidates: Any) -> Recipe:
    settings = {"num_train_problems": 0, "num_eval_problems": 2, "problems_per_shard": 1}
    return parse_recipe(
        {"run_dir": str(tmp_path / "run"), "candidates": settings | candidates}, "test"
    )


def pool_recipe(tmp_path: Path, **settings: Any) -> Recipe:
    other = MODELS | {"idx": 1, "question": "1 + 1?", "gold": "2"}
    bad = SAMPLES | {"idx": 2, "outputs": []}
    path = write(tmp_path / "pool.jsonl", MODELS, bad, other)
    return recipe(tmp_path, task="gsm8k", pool_path=path, **settings)


def test_the_job_takes_the_files_answers_and_needs_no_engine(tmp_path: Path) -> None:
    from codepmp_ray.cluster.sampling import sample_candidates

    made = pool_recipe(tmp_path, num_eval_samples=1)
    summary = sample_candidates(made)
    counts = {name: summary[name] for name in ("num_problems", "num_candidates", "num_unused")}
    assert counts == {"num_problems": 2, "num_candidates": 2, "num_unused": 2}
    assert summary["num_rejected"] == 1 and summary["num_failed"] == 0
    ledger = open_stage(made, "candidates").ledger
    rows = ledger.read("candidates").to_pylist()
    assert {row["problem_id"]: (row["completion"], row["model"], row["label"]) for row in rows} == {
        "GSM8K/0": ("The answer is 4", "large", True),
        "GSM8K/1": ("The answer is 4", "large", True),
    }
    (reject,) = ledger.read("rejected").to_pylist()
    assert (reject["row_id"], reject["reason"]) == ("pool.jsonl#1", "too_few_answers")
    assert sample_candidates(made) == summary


def test_a_resumed_job_keeps_what_was_committed(tmp_path: Path, monkeypatch) -> None:
    from codepmp_ray.cluster.sampling import sample_candidates
    from codepmp_ray.ledger import ShardLedger

    made = pool_recipe(tmp_path)
    whole = ShardLedger.commit
    monkeypatch.setattr(ShardLedger, "commit", lambda self, n, *a: n == 0 and whole(self, n, *a))
    with pytest.raises(Exception, match="shards are gone"):
        sample_candidates(made)
    (first,) = open_stage(made, "candidates").ledger.commits()
    monkeypatch.undo()
    assert sample_candidates(made)["num_candidates"] == 4
    assert next(open_stage(made, "candidates").ledger.commits()).attempt == first.attempt


def test_the_files_content_is_part_of_the_stages_name(tmp_path: Path) -> None:
    made = pool_recipe(tmp_path)
    before = open_stage(made, "candidates").fingerprint
    write(tmp_path / "pool.jsonl", MODELS)
    assert open_stage(made, "candidates").fingerprint != before


def test_more_problems_than_the_file_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"= 3, but .*pool\.jsonl has 2 problems.*by 1"):
        split_problems(pool_recipe(tmp_path, num_eval_problems=3).candidates)


def test_options_are_the_candidates_of_multiple_choice(tmp_path: Path) -> None:
    from codepmp_ray.cluster.sampling import sample_candidates

    rows = [
        {"context": "c", "question": f"{i}?", "answers": ["a", "b", "c", "d"], "label": i}
        for i in range(2)
    ]
    path = write(tmp_path / "reclor.jsonl", *rows)
    made = recipe(tmp_path, task="reclor", task_path=path)
    assert are_given(made.candidates) and not are_given(CandidatesConfig())
    assert sample_candidates(made)["num_candidates"] == 8
    found = open_stage(made, "candidates").ledger.read("candidates").to_pylist()
    first = [row for row in found if row["problem_id"] == "ReClor/0"]
    assert [row["completion"] for row in first] == ["a", "b", "c", "d"]
    assert {row["model"] for row in found} == {"options"}
    problem = problems_by_id(made.candidates, ["ReClor/0"])["ReClor/0"]
    assert problem.reference.answer == "a" and problem.prompt.startswith("Passage: c")


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
