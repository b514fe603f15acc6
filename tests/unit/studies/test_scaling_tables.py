"""Figure 5 and seed 000 show the laws that were fitted, on the page and in Markdown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from codepmp_ray.analysis.scaling_laws import POWER, SATURATING, UNDECIDED
from codepmp_ray.studies.catalogue import scaling
from codepmp_ray.studies.markdown import to_markdown
from codepmp_ray.studies.outcome import Outcome, Table
from codepmp_ray.studies.report import render, summary_of
from codepmp_ray.studies.study import Context
from codepmp_ray.studies.trainings import Arm
from tests.unit.studies.conftest import MakeBench, measured

SIZES = (128, 256, 512, 1024, 2048)
# Of accuracies by size: a clean fall of the error, one that ends at 0.2, and no trend.
CURVES = {
    POWER: lambda x: 1 - 2 * x**-0.3,
    SATURATING: lambda x: 1 - (0.2 + 50 * x**-1.0),
    UNDECIDED: lambda x: np.full_like(x, 0.6),
}


def _laws(bench: Any, curve: Any) -> tuple[Outcome, Table]:
    random = np.random.default_rng(0)
    right = curve(np.array(SIZES, float))
    arms = [Arm("no PMP", (), 0.0, "g"), *(Arm(f"{x}", (), float(x), "g") for x in SIZES)]
    values = [random.normal(mean, 0.004, (4, 400)).clip(0, 1) for mean in (0.5, *right)]
    outcome = Outcome()
    context = Context("seed000", bench, bench.config.options("seed000"))
    scaling._add_curves(context, outcome, "accuracy", arms, values)
    return outcome, outcome.tables[-1]


@pytest.mark.parametrize("verdict", CURVES)
def test_both_laws_have_exponents_with_intervals_and_one_verdict(
    make_bench: MakeBench, verdict: str
) -> None:
    outcome, table = _laws(make_bench(), CURVES[verdict])
    assert table.headings == ["exponent c", "floor f", "verdict"]
    assert [row.label for row in table.rows] == ["g, power law", "g, saturating"]
    assert [row.remark for row in table.rows] == [verdict, verdict]
    power, saturating = (row.ours for row in table.rows)
    assert power[1] is None and saturating[1] is not None
    laws = outcome.facts["laws"]["accuracy, g"]
    for values, name in ((power, "power"), (saturating, "saturating")):
        exponent = values[0]
        assert exponent is not None and exponent.low is not None and exponent.high is not None
        assert exponent.mean == laws[name]["exponent"]["mean"]
    if verdict == POWER:
        assert power[0] is not None and power[0].mean == pytest.approx(0.3, abs=0.02)


def test_the_page_and_the_document_show_them(make_bench: MakeBench) -> None:
    bench = make_bench()
    outcome, table = _laws(bench, CURVES[SATURATING])
    assert Outcome.from_json(outcome.to_json()) == outcome
    record = {
        "name": "seed000", "place": "HH", "title": "t", "question": "q", "spent_s": 1.0,
        "estimated_s": None, "budget_s": None, "outcome": outcome.to_json(),
    }  # fmt: skip
    values = summary_of(bench, [record], "make reproduce")
    exponent = table.cells[1][1]
    assert " to " in exponent
    assert f'<td class="n">{exponent}</td>' in render(values)
    assert f"| g, saturating | {exponent} |" in to_markdown(values)
    assert "| exponent c | floor f | verdict |" in to_markdown(values)


def test_too_few_sizes_are_undecided_and_the_summary_says_why(make_bench: MakeBench) -> None:
    outcome = measured(make_bench("gsm8k"), "figure5")  # one branch and the whole run
    laws = [table for table in outcome.tables if table.remarks]
    assert len(laws) == 2  # pairs and pool
    for table in laws:
        assert table.headings == ["verdict"]
        assert {row.remark for row in table.rows} == {UNDECIDED}
    assert "2 sizes show no law" in outcome.summary and "cannot be said" in outcome.summary
    assert not any(
        series.low for plot in outcome.plots for series in plot.series if not series.is_baseline
    )  # two trainings have no band
