"""The paper's values stand beside what they are of, and nowhere else."""

from __future__ import annotations

import pytest

from codepmp_ray.config.studies import StudyOptions
from codepmp_ray.config.study_materials import PoolConfig
from codepmp_ray.studies import paper
from codepmp_ray.studies.catalogue import STUDIES, common
from codepmp_ray.studies.outcome import Table
from codepmp_ray.studies.study import Context
from codepmp_ray.studies.verdicts import judge
from tests.unit.studies.conftest import MakeBench, measured


def _of_paper(table: Table, column: str) -> dict[str, float | None]:
    at = table.columns.index(column)
    return {row.label: row.paper[at] for row in table.rows}


@pytest.mark.parametrize(
    ("name", "stands_for", "benchmark"),
    [
        ("math", None, "MATH"),
        ("GSM8k", None, "GSM8K"),
        ("humaneval", None, "HumanEval"),
        ("math", "GSM8K", "GSM8K"),
        ("ours", "MATH", "MATH"),
        ("ours", None, None),
    ],
)
def test_a_pools_benchmark_is_what_it_says_or_is_named_after(
    name: str, stands_for: str | None, benchmark: str | None
) -> None:
    assert paper.benchmark_of(name, PoolConfig(path="x", stands_for=stands_for)) == benchmark


def test_table_2_holds_a_pool_against_its_own_benchmark(make_bench: MakeBench) -> None:
    outcome = measured(make_bench("gsm8k", "math", "ours", with_models=False), "table2")
    _, gsm8k, math, ours = outcome.tables
    assert outcome.stand_ins == []  # these pools name no generator
    assert _of_paper(gsm8k, "N=256") == {"RM only": 0.8271, "LM only": 0.8226, "RM + LM": 0.8484}
    assert _of_paper(math, "N=256") == {"RM only": 0.362, "LM only": 0.372, "RM + LM": 0.41}
    assert gsm8k.paper_source.endswith("GSM8K") and math.paper_source.endswith("MATH")
    assert not ours.has_paper and not ours.paper_source and ours.columns == ["N=2", "N=4"]
    gaps = {c.question: c.paper_difference for c in outcome.comparisons}
    assert gaps["RM + LM against LM only, best of 4 on math-all"] == pytest.approx(0.41 - 0.372)
    assert gaps["RM + LM against LM only, best of 4 on gsm8k-all"] == pytest.approx(0.0258)
    assert gaps["RM + LM against LM only, best of 4 on ours-all"] is None
    assert any("pools.ours.stands_for" in text for text in outcome.differs)


def test_best_of_n_tables_do_so_too(make_bench: MakeBench) -> None:
    outcome = measured(make_bench("math", "ours", with_models=False), "table3")
    math, ours = (t for t in outcome.tables if "Best-of-N" in t.title)
    assert _of_paper(math, "with PMP")["N=256"] == 0.514
    assert not ours.has_paper


def test_values_of_7b_stand_beside_those_of_1_5b(make_bench: MakeBench) -> None:
    sets = {"sums": {"paths": ["sums.jsonl"], "test_fraction": 0.5, "paper_set": "ReClor-pair"}}
    outcome = measured(make_bench(sets=sets), "table1")
    (table,) = outcome.tables
    ours = ["without PMP", "with PMP", "longer answer", "style"]
    assert table.headings == [
        *ours, "paper: without PMP", "paper: with PMP", "paper: without PMP (7B)",
        "paper: with PMP (7B)",
    ]  # fmt: skip
    assert table.cells[0][5:] == ["75.8", "79.4", "86.2", "87.4"]
    assert outcome.comparisons[0].paper_difference == pytest.approx(0.794 - 0.758)
    unknown = measured(make_bench(), "table1").tables[0]
    assert unknown.headings == ours
    # A stand-in has the paper's difference as a mark in the figure, and none of its columns.
    stand_in = {"sums": {**sets["sums"], "paper_set": None, "stands_for": "ReClor-pair"}}
    (outcome,) = judge([measured(make_bench(sets=stand_in), "table1")], 0.95).outcomes
    assert outcome.tables[0].headings == ours and outcome.is_stand_in
    assert outcome.shown_status == "a stand-in"
    (comparison,) = outcome.comparisons
    assert comparison.paper_difference is not None and comparison.power_for_paper is None
    with pytest.raises(ValueError, match="give one of them"):
        make_bench(sets={"sums": {**sets["sums"], "stands_for": "ReClor-pair"}})


@pytest.mark.parametrize(
    ("name", "generator", "half"),
    [
        ("table4", "Qwen2-Math-7B-Instruct", "weaker"),
        ("table5", "Qwen2.5-32B-Instruct", "stronger"),
    ],
)
def test_tables_4_and_5_say_whose_answers_stand_for_whose(
    make_bench: MakeBench, name: str, generator: str, half: str
) -> None:
    bench = make_bench("gsm8k")
    bench.config.studies[name] = StudyOptions(num_candidates=2)
    outcome = measured(bench, name)
    assert generator in STUDIES[name].title and half in STUDIES[name].title
    (note,) = (text for text in outcome.stand_ins if "none of which is" in text)
    assert f"answers of {generator}, which is stronger than Table 3's" in note
    assert f"the {half} half" in note and "% of them are right" in note
    assert not any("none of which is" in text for text in measured(bench, "table3").stand_ins)
    (told,) = judge([outcome], 0.95).outcomes
    assert outcome.tables[0].has_paper and not any(table.has_paper for table in told.tables)


def test_what_differs_is_of_the_models_that_were_measured(make_bench: MakeBench) -> None:
    small = {"tokenizer": "", "warmup_pairs": 4}
    bench = make_bench(models={"trend": small, "other": small | {"pmp_pairs": 8}})
    context = Context("figure7", bench, StudyOptions())
    assert common.pmp_difference(context).startswith("PMP on 16 pairs")
    assert common.pmp_difference(context, "other").startswith("PMP on 8 pairs")
    assert "16 (trend), 8 (other) pairs" in common.pmp_difference(context, "trend", "other")
