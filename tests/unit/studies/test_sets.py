"""Sets: what is made here, what is read, how it is split, and what is said when it is missing."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from codepmp_ray.config.study_materials import PoolConfig, SetConfig
from codepmp_ray.errors import InputError
from codepmp_ray.records import stable_id
from codepmp_ray.studies import sets
from codepmp_ray.studies.code_pairs import function_pairs
from codepmp_ray.studies.pools import load_pool
from codepmp_ray.studies.sets import MissingSet, load_set

FUNCTION = '''def {name}(values, limit):
    """Sum of the values below a limit."""
    total = {start}
    for value in values:
        if value < limit:
            total += value
    return total
'''


def _functions(num: int) -> list[dict]:
    return [
        {"path": f"f{i // 2}.py", "code": FUNCTION.format(name=f"f{i}", start=i)}
        for i in range(num)
    ]


def test_a_pair_is_a_function_and_one_wrong_edit_of_it() -> None:
    pairs = list(function_pairs(_functions(60)))
    assert len(pairs) == 60
    for pair in pairs:
        for side in ("chosen", "rejected"):
            (node,) = ast.parse(pair[side]).body
            assert isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is None
        assert pair["chosen"] != pair["rejected"]
        assert "Sum of the values" in pair["prompt"] and "return" not in pair["prompt"]
    assert pairs == list(function_pairs(_functions(60)))
    origins = {pair["source_id"] for pair in pairs}
    assert len(origins) == 30  # a file's functions stay together


def test_what_is_no_function_makes_no_pair() -> None:
    rows = [
        {"code": "x = 1"},
        {"code": "def f(:"},
        {"code": None},
        {},
        {"code": "def f():\n    pass"},
    ]
    assert list(function_pairs(rows)) == []


def _write(file: Path, rows: list[dict]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file.name


def test_no_question_is_on_both_sides_and_more_rows_move_none(tmp_path: Path) -> None:
    rows = [
        {"question": f"q{i}", "candidates": [
            {"text": f"{i} yes {j}", "correct": True} for j in range(3)
        ] + [{"text": f"{i} no", "correct": False}]}
        for i in range(200)
    ]  # fmt: skip
    config = SetConfig(kind="gsm8k_solutions", paths=(_write(tmp_path / "a.jsonl", rows[:150]),))
    few = load_set("s", config, str(tmp_path))
    train, test = ({row["problem_id"] for row in part} for part in (few.train, few.test))
    assert train and test and not train & test and not few.has_own_split
    assert 0.1 < len(test) / 150 < 0.32
    _write(tmp_path / "a.jsonl", rows)
    many = load_set("s", config, str(tmp_path))
    assert {row["problem_id"] for row in many.test} >= test


def test_a_set_that_is_nowhere_names_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    sets.is_hub_reachable.cache_clear()
    config = SetConfig(kind="reclor", paths=("reclor/train.jsonl",))
    for data_dir in (None, str(tmp_path)):
        with pytest.raises(MissingSet, match=r"reclor/train.jsonl .*metaeval/reclor.*data_dir="):
            load_set("reclor", config, data_dir)
    sets.is_hub_reachable.cache_clear()


def test_a_set_without_usable_rows_says_what_was_wrong(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.jsonl", [{"prompt": "p", "chosen": 3, "rejected": "r"}])
    with pytest.raises(InputError, match=r"0 training and 0 test pairs.*not_text"):
        load_set("s", SetConfig(paths=(path,)), str(tmp_path))


def test_a_pool_has_as_many_answers_to_each_question_and_knows_equal_ones(tmp_path: Path) -> None:
    models = [("weak", False), ("middle", True), ("strong", True), ("best", True)]
    unusable = [{"text": "", "correct": True}, {"text": "no label"}]
    rows = [
        {"question": f"q{i}", "candidates": [
            *({"text": f"{name} {i}", "correct": ok, "answer": str(int(ok)), "model": name}
              for name, ok in models),
            *unusable,
        ]}
        for i in range(5)
    ]  # fmt: skip
    rows += [{"question": "too few", "candidates": [{"text": "a", "correct": True}]}, {"x": 1}]
    config = PoolConfig(path=_write(tmp_path / "pool.jsonl", rows))
    pool = load_pool("p", config, str(tmp_path), None, 10, 4)
    assert pool.size == (5, 4) and pool.correct.sum() == 15
    assert pool.groups is not None
    for texts, correct, answers in zip(pool.texts, pool.correct, pool.groups, strict=True):
        assert [text.split()[0] == "weak" for text in texts] == [c == 0 for c in correct]
        assert len(set(answers[correct == 1])) == 1 and len(set(answers)) == 2
    weak = load_pool("p", config, str(tmp_path), None, 10, 2, "weaker")
    assert weak.correct.mean() == 0.5 and "weaker" in weak.origin
    with pytest.raises(InputError, match="0 questions with 9 answers"):
        load_pool("p", config, str(tmp_path), None, 10, 9)
    with pytest.raises(MissingSet, match=r"pool.jsonl below data_dir, which is not set"):
        load_pool("p", config, None, None, 10, 2)


@pytest.mark.parametrize("has_own_split", [False, True])
@pytest.mark.parametrize("named", ["by text", "by id"])
def test_no_question_of_a_pool_is_one_that_trains(
    tmp_path: Path, named: str, has_own_split: bool
) -> None:
    rows = [
        {
            "problem_id": f"id/{i}",
            "question": f"q{i}",
            "candidates": [{"text": f"{i} {right}", "correct": right} for right in (True, False)],
        }
        for i in range(120)
    ]
    config = PoolConfig(path=_write(tmp_path / "pool.jsonl", rows))
    names = [stable_id(f"q{i}") if named == "by text" else f"id/{i}" for i in range(120)]
    pairs = [{"pair_id": name, "problem_id": name} for name in names]
    train = [row for row in pairs if not sets.is_test(row, 0.3)]
    test = [row for row in pairs if sets.is_test(row, 0.3)]
    of = sets.PairSet("s", "s", train, test, "", {}, has_own_split)
    pool = load_pool("p", config, str(tmp_path), (of, 0.3), 200, 2)
    trained = {row["problem_id"] for row in train}
    shown = {names[int(prompt[1:])] for prompt in pool.prompts}
    assert shown and not shown & trained and shown == {row["problem_id"] for row in test}


def test_a_pool_may_hold_lists_beside_each_other(tmp_path: Path) -> None:
    row = {"response": ["a", "b", "c"], "pred": ["1", "2", "1"], "score": [True, False, True]}
    rows = [{"idx": i, "question": f"q{i}", **row} for i in range(3)]
    config = PoolConfig(path=_write(tmp_path / "pool.jsonl", rows), num_candidates=3)
    pool = load_pool("p", config, str(tmp_path), None, 10, 16)
    assert pool.size == (3, 3) and pool.groups is not None
    for texts, correct, answers in zip(pool.texts, pool.correct, pool.groups, strict=True):
        assert [text != "b" for text in texts] == correct.astype(bool).tolist()
        groups = dict(zip(texts, answers, strict=True))
        assert groups["a"] == groups["c"] != groups["b"]
