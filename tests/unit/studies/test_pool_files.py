"""Damaged and repeated rows of a study's pool: counted, put together, and said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from codepmp_ray.cluster.study_run import run_study
from codepmp_ray.config.studies import StudyOptions
from codepmp_ray.config.study_materials import PoolConfig
from codepmp_ray.errors import InputError
from codepmp_ray.studies.catalogue import STUDIES
from codepmp_ray.studies.pools import load_pool, pool_notes, read_pool
from tests.unit.studies.conftest import MakeBench, measured


def _row(question: str | None, *answers: object, **others: object) -> str:
    return json.dumps({"question": question, "candidates": list(answers), **others})


def _answer(text: str, correct: object = True, model: str = "a") -> dict[str, object]:
    return {"text": text, "correct": correct, "model": model}


@pytest.fixture
def pool(tmp_path: Path) -> PoolConfig:
    lines = [
        _row("one", _answer("1"), _answer("2", False)),
        "{broken",
        _row("two", _answer("3"), _answer(" "), {"model": "a"}),
        _row(" one ", _answer("4"), problem_id="p1"),  # the same question, with spaces
        _row(None, _answer("5")),
        _row("three", _answer("6", None)),
        _row("four", _answer("7", 0.5)),
        _row("two", _answer("8", False)),
        _row("five", problem_id="p5"),
    ]
    (tmp_path / "pool.jsonl").write_text("\n".join(lines) + "\n")
    return PoolConfig(path="pool.jsonl")


def test_every_row_that_is_left_out_is_counted_by_reason(pool: PoolConfig, tmp_path: Path) -> None:
    found = read_pool("p", pool, str(tmp_path))
    assert found.reject_counts == {
        "bad_label": 2,  # none, and a half
        "empty": 2,  # a blank text, and none
        "prompt_empty": 1,
        "too_few_answers": 1,
        "unreadable": 1,
    }
    assert found.num_repeats == 2
    (left_out, repeated) = pool_notes("p", found)
    assert "7 rows or answers" in left_out and "2 bad_label" in left_out
    assert "2 rows repeat a question" in repeated


def test_rows_with_one_question_are_one_problem(pool: PoolConfig, tmp_path: Path) -> None:
    first, second = read_pool("p", pool, str(tmp_path))
    assert (first.text, first.given_id) == ("one", "p1")
    assert [a.text for a in first.answers] == ["1", "2", "4"]
    assert [a.text for a in second.answers] == ["3", "8"]
    assert load_pool("p", pool, str(tmp_path), None, 10, 2).size == (2, 2)


def test_only_answers_of_the_generators_that_are_named_count(make_bench: MakeBench) -> None:
    pools = {"gsm8k": {"path": "gsm8k.jsonl", "test_of": "sums", "generators": ["b", "d"]}}
    bench = make_bench("gsm8k", pools=pools)
    made = bench.pool("gsm8k", StudyOptions(num_candidates=2), "all")
    assert {text.split(" by ")[1] for texts in made.texts for text in texts} == {"b", "d"}
    with pytest.raises(InputError, match="4 answers of all generators of b, d") as few:
        bench.pool("gsm8k", StudyOptions(num_candidates=4), "all")
    assert "pools.gsm8k.generators" in few.value.remedy
    for name in ("table3", "table14"):
        bench.config.studies[name] = StudyOptions(pools=("gsm8k",), num_candidates=2)
        outcome = measured(bench, name)
        assert any("answers of b, d alone" in text for text in outcome.differs)
        assert any("answers of 2 models to each" in text for text in outcome.stand_ins)


def test_generators_that_a_pool_does_not_have_are_named_with_those_that_it_has(
    pool: PoolConfig, tmp_path: Path
) -> None:
    asked = pool.model_copy(update={"generators": ("a", "z")})
    with pytest.raises(InputError, match=r"pools\.p\.generators names 'z'") as caught:
        load_pool("p", asked, str(tmp_path), None, 10, 2)
    assert "It has answers of a." in caught.value.remedy
    nameless = [
        {"question": f"q{i}", "candidates": [{"text": "1", "correct": True}]} for i in range(3)
    ]
    (tmp_path / "pool.jsonl").write_text("\n".join(map(json.dumps, nameless)))
    with pytest.raises(InputError, match="does not say which model gave an answer"):
        load_pool("p", asked, str(tmp_path), None, 10, 2)
    with pytest.raises(InputError, match="weaker half of 0 generators"):
        load_pool("p", pool, str(tmp_path), None, 10, 2, "weaker")


def test_256_of_many_samples_are_chosen_from(make_bench: MakeBench, tmp_path: Path) -> None:
    """Rows of samples as OVM's generators wrote them, and the paper's largest N."""
    rows = [
        {"idx": i, "question": f"{i}?\n", "gold": str(i), "outputs": [
            {"response": f"sample {j} of {i}", "answer": str(j % 7), "label": j % 7 == i % 7}
            for j in range(300)
        ]}
        for i in range(10)
    ]  # fmt: skip
    bench = make_bench(pools={"gsm8k": {"path": "ovm.jsonl", "test_of": "sums"}})
    (tmp_path / "ovm.jsonl").write_text("\n".join(map(json.dumps, rows)))
    bench.config.studies["table3"] = StudyOptions(pools=("gsm8k",), num_candidates=256)
    outcome = measured(bench, "table3")
    table = outcome.tables[0]
    last = table.rows[-1]
    assert last.label == "N=256" and None not in last.ours
    assert last.paper[:2] == [0.8249, 0.84]
    by_label = {series.label: series for series in outcome.plots[0].series}
    assert by_label["with PMP"].x[-1] == 256 and by_label["oracle"].y[-1] == 1.0
    assert "majority" in by_label
    assert outcome.stand_ins == []  # none is named


def test_a_file_that_changes_is_read_again(pool: PoolConfig, tmp_path: Path) -> None:
    assert len(read_pool("p", pool, str(tmp_path)).questions) == 2
    (tmp_path / "pool.jsonl").write_text(_row("x", _answer("1", None)) + "\n")
    with pytest.raises(InputError, match=r"rejected: \{'bad_label': 1\}"):
        read_pool("p", pool, str(tmp_path))


def test_the_study_says_it(make_bench: MakeBench, tmp_path: Path) -> None:
    bench = make_bench("gsm8k", pools={"gsm8k": {"path": "gsm8k.jsonl"}})
    file = tmp_path / "gsm8k.jsonl"
    row = json.loads(file.read_text().splitlines()[0])
    rows = [row | {"question": f"{i} dollars?"} for i in range(12)]
    file.write_text("".join(json.dumps(r) + "\n" for r in [*rows, rows[3]]) + "{broken\n")
    options = StudyOptions(pools=("gsm8k",), generator_pairs={"two": ("a", "b")})
    bench.config.studies["figure13"] = options
    record = run_study(STUDIES["figure13"], bench)
    notes = record["outcome"]["notes"]
    assert record["outcome"]["status"] == "measured", record["outcome"]
    assert "Pool gsm8k: 1 rows or answers are of no use (1 unreadable)." in notes
    assert any("1 rows repeat a question" in note for note in notes)
    assert "money (12)" in [r["label"] for r in record["outcome"]["tables"][0]["rows"]]
