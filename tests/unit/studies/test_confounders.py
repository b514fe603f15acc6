"""Rules without a model: they find what decides a set, and nothing where nothing does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codepmp_ray.config.studies import StudyOptions
from codepmp_ray.config.study_materials import SetConfig
from codepmp_ray.evaluation.pool_rows import Answer
from codepmp_ray.evaluation.pools import Pool, Question
from codepmp_ray.studies.catalogue import STUDIES, common, curves
from codepmp_ray.studies.code_pairs import humaneval_pairs
from codepmp_ray.studies.outcome import Outcome
from codepmp_ray.studies.sets import load_set
from codepmp_ray.studies.study import Context
from tests.unit.studies.conftest import MakeBench, measured

MODELS = {"good": 0.9, "fair": 0.6, "poor": 0.3}


def _pool(num: int = 60, *, by_style: bool = False) -> list[dict]:
    """Questions with an answer of each model; right ones may be told by how they are written."""
    generator = np.random.default_rng(0)
    rows = []
    for i in range(num):
        answers = []
        for model, rate in MODELS.items():
            right = bool(generator.random() < rate)
            text = f"{model} says {i + (not right)}. The answer is {i + (not right)}"
            if by_style and right:
                text = f"## Steps\n- **one**\n- two\n{text}"
            answers.append({"text": text, "correct": right, "model": model})
        rows.append({"question": f"What is {i}?", "candidates": answers})
    return rows


def _set(tmp_path: Path, rows: list[dict], **fields: object):
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = SetConfig(kind="gsm8k_solutions", paths=("pool.jsonl",), **fields)
    return load_set("s", config, str(tmp_path))


def test_balanced_pairs_cannot_be_told_by_who_wrote_them(tmp_path: Path) -> None:
    for balance, expected in ((True, 0.5), (False, 0.75)):
        found = _set(tmp_path, _pool(400), balance=balance)
        pairs = [*found.train, *found.test]
        texts = {side: [row[side].split()[0] for row in pairs] for side in ("chosen", "rejected")}
        wins = [MODELS[a] > MODELS[b] for a, b in zip(*texts.values(), strict=True)]
        share = float(np.mean(wins))
        assert share == expected if balance else share > expected
        assert all(row["models"] for row in pairs)


def test_a_rule_of_style_finds_style_and_nothing_else(
    make_bench: MakeBench, tmp_path: Path
) -> None:
    for by_style in (True, False):
        rows = _pool(300, by_style=by_style)
        (tmp_path / "styled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        sets = {"styled": {"kind": "gsm8k_solutions", "paths": ["styled.jsonl"], "balance": False}}
        bench = make_bench(
            sets=sets, code_pairs=["styled"], pools={}, defaults={"sets": ["styled"]}
        )
        context = _context(bench)
        found = curves.pair_rules(context, "styled")
        style = found[curves.STYLE].mean()
        assert style > 0.95 if by_style else 0.3 < style < 0.7
        assert found[curves.WRITER].mean() > 0.7  # the pairs are not balanced


def _context(bench):
    from codepmp_ray.studies.study import Context

    return Context("table1", bench, bench.config.options("table1"))


def test_pools_have_both_rules_beside_every_score() -> None:
    answers = {
        row["question"]: [Answer(c["text"], c["model"], c["correct"]) for c in row["candidates"]]
        for row in _pool(80, by_style=True)
    }
    pool = Pool({name: Question(name, name, answers=made) for name, made in answers.items()})
    found = {name: values[:, -1].mean() for name, values in curves.baseline_curves(pool).items()}
    assert found["style"] > found["random"] + 0.15 and found["style"] <= found["oracle"]
    assert found["model prior"] == pytest.approx(pool.correct[:, 0].mean())
    (told,) = common.pool_stand_ins(pool)
    assert "answers of 3 models" in told


@pytest.mark.parametrize(("right", "has_room"), [(0.95, False), (0.5, True)])
def test_a_pool_without_headroom_says_that_it_measures_nothing(
    right: float, has_room: bool
) -> None:
    correct = (np.random.default_rng(1).random((100, 4)) < right).astype(float)
    answers = [[Answer("a", label=bool(label)) for label in row] for row in correct]
    questions = {str(i): Question(str(i), "q", answers=made) for i, made in enumerate(answers)}
    pool = Pool(questions, name="p")
    outcome = Outcome()
    assert common.add_pool(outcome, pool) is has_room
    assert bool(outcome.notes) is not has_room
    assert has_room or "p measures nothing: a random pick is right in 9" in outcome.notes[0]


def test_studies_show_the_rules_and_name_their_stand_ins(make_bench: MakeBench) -> None:
    sets = {"sums": {"paths": ["sums.jsonl"], "test_fraction": 0.5, "stands_for": "ReClor-pair"}}
    bench = make_bench("gsm8k", sets=sets)
    bench.config.studies["figure8"] = StudyOptions(sets=("sums",), num_train=8, sizes=(4, 8))
    table = measured(bench, "table1").tables[0]
    assert table.columns[2:5] == list(curves.RULES)
    for name in ("table2", "figure8", "figure5"):
        outcome = measured(bench, name)
        labels = [row.label for table in outcome.tables for row in table.rows]
        assert "rule: longer answer" in labels and "rule: style" in labels, name
        assert outcome.stand_ins[0] == "sums in place of ReClor-pair.", name


def test_trainings_of_another_method_are_stand_ins(
    make_bench: MakeBench, tiny_model_dir: Path
) -> None:
    def told(**changes: Any) -> list[str]:
        bench = make_bench(**changes)
        context = Context("table1", bench, bench.config.options("table1"))
        return common.training_stand_ins(context, STUDIES["table1"].trainings(context))

    weights = {"trend": {"model_name_or_path": str(tiny_model_dir)}}
    assert told(models=weights) == []
    (random,) = told()
    assert random.startswith("trend: random weights of the architecture llama")
    copies = {"sums": {"kind": "humaneval_corrupted", "title": "copies", "test_fraction": 0.4}}
    assert told(models=weights, sets=copies) == [
        "Training on copies, one wrong edit each, in place of pairs of answers."
    ]


def test_corrupted_copies_are_matched_in_length() -> None:
    pairs = list(humaneval_pairs())
    gaps = np.array([len(pair["chosen"]) - len(pair["rejected"]) for pair in pairs])
    share = float(np.mean(gaps > 0) + np.mean(gaps == 0) / 2)
    assert len(pairs) > 100 and abs(share - 0.5) < 0.02
