"""What a report may claim: one family of comparisons, and nothing of too few trainings."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from html import unescape
from typing import Any

import numpy as np
import pytest

from codepmp_ray.studies import measures
from codepmp_ray.studies.markdown import to_markdown
from codepmp_ray.studies.outcome import Outcome
from codepmp_ray.studies.report import document, forest_of, judged_values, render
from codepmp_ray.studies.verdicts import HIGHER, LOWER, conclude, headline, judge

NUM = 120


def _compared(shift: float, num: int, about: Any = "pmp", seed: int = 0, **more: Any) -> Any:
    generator = np.random.default_rng(seed)
    base = generator.normal(0.5, 0.2, (num, NUM))
    with_pmp = base + shift + generator.normal(0, 0.05, (num, NUM))
    return measures.compare(f"by {shift}", with_pmp, base, 0.95, 0.096, about, **more)


def _values(*outcomes: Outcome) -> dict[str, Any]:
    records = [
        {"name": f"s{i}", "place": f"Table {i}", "title": "t", "question": "q?", "spent_s": 1.0,
         "estimated_s": None, "budget_s": None, "outcome": outcome.to_json()}
        for i, outcome in enumerate(outcomes)
    ]  # fmt: skip
    head = dict.fromkeys(
        ("name", "paper", "written", "command", "commit", "python", "platform"), "x"
    )
    config = {"confidence": 0.95, "data_dir": None, "run_dir": "r"}
    return judged_values(
        {**head, "versions": {"codepmp-ray": "1"}, "models": {}, "sets": {}, "config": config,
         "spent_s": 1.0, "studies": records}
    )  # fmt: skip


@pytest.mark.parametrize("num", [1, 2])
def test_one_training_is_no_result_and_takes_no_place_in_the_family(num: int) -> None:
    few, many = _compared(0.4, num), _compared(0.1, 4)
    judged = judge([Outcome(comparisons=[few] * 9), Outcome(comparisons=[many])], 0.95)
    assert (judged.num_comparisons, judged.num_results, judged.num_beyond_chance) == (10, 1, 1)
    verdicts = {c.verdict for c in judged.outcomes[0].comparisons}
    assert verdicts == {f"{'one training' if num == 1 else 'two trainings'}: not a result"}
    # Nine that are no result leave the p-value of the tenth as it is.
    alone = judge([Outcome(comparisons=[many])], 0.95).outcomes[0].comparisons
    assert judged.outcomes[1].comparisons == alone and alone[0].verdict == HIGHER
    told = conclude(judged.outcomes[0].comparisons)
    assert f"9 comparisons are not a result, with {num} training" in told
    assert not any(word in told for word in ("higher", "lower", "p =", "beyond chance"))
    text = few.difference_text
    assert "p" not in text and "to" not in text and few.power_text == "-"


def test_the_family_is_that_of_the_whole_report() -> None:
    borderline = next(
        c
        for c in (_compared(0.02, 4, seed=i) for i in range(400))
        if 0.02 < (c.p_value or 1) < 0.05
    )
    alone = judge([Outcome(comparisons=[borderline])], 0.95).outcomes[0].comparisons[0]
    others = [Outcome(comparisons=[_compared(0.0, 4, seed=i)]) for i in range(5)]
    together = judge([Outcome(comparisons=[borderline]), *others], 0.95)
    assert alone.verdict == HIGHER
    assert together.outcomes[0].comparisons[0].verdict.startswith("undecided (below")


def test_what_is_said_beside_a_verdict_waits_for_one() -> None:
    sure, unsure = _compared(0.2, 4, told="worth 6"), _compared(0.0, 4, told="worth 7")
    few = _compared(0.2, 2, told="worth 8")
    (outcome,) = judge([Outcome(comparisons=[sure, unsure, few])], 0.95).outcomes
    told = conclude(outcome.comparisons)
    assert "worth 6" in told and "worth 7" not in told and "worth 8" not in told


def test_the_first_paragraph_says_what_came_out() -> None:
    def first(*comparisons: Any) -> str:
        return headline(judge([Outcome(comparisons=list(comparisons))], 0.95))

    assert "This cannot say: none of its 2 differences" in first(_compared(0.3, 1), _compared(0, 2))
    assert "+9.6 to +9.6" in first(_compared(0.3, 1))
    assert "help here? Yes: of 1 differences" in first(_compared(0.3, 4))
    assert "help here? No:" in first(_compared(-0.3, 4))
    assert "help here? Undecided:" in first(_compared(0.0, 4))
    assert "In part:" in first(_compared(0.3, 4), _compared(-0.3, 4))
    assert first(_compared(0.3, 4, "other")).startswith("Nothing here compares models with and")


def test_page_document_and_figure_say_the_same(tmp_path: Any) -> None:
    few, many = _compared(0.3, 1), _compared(-0.2, 4)
    stand_in = Outcome(comparisons=[few], stand_ins=["a pool in place of MATH."])
    values = _values(
        stand_in, Outcome(comparisons=[many]), Outcome("not measured", "no data", "data")
    )
    page, text = render(values), to_markdown(values, "page.svg")
    for shown in (unescape(page), text):
        assert "In place of Table 0: t" in shown and "a stand-in" in shown.lower()
        assert "Table 1: t" in shown and "In place of Table 1" not in shown
        assert "one training: not a result" in shown and LOWER in shown
        assert values["headline"] in shown and "a pool in place of MATH" in shown
    assert text.index(values["headline"]) < text.index("## ") and "![" in text
    table = text.split("| study |")[1].split("\n\n")[0]
    assert "| a stand-in |" in table and "| faithful |" not in table and "| not measured |" in table
    drawn = ElementTree.fromstring(forest_of(values, standalone=True))
    labels = " ".join(e.text or "" for e in drawn.iter("{http://www.w3.org/2000/svg}text"))
    assert "no result: too few trainings" in labels and "the paper" in labels
    document(values, tmp_path / "page.md")
    assert (tmp_path / "page.md").read_text() == text
    assert "--blue: #" in (tmp_path / "page.svg").read_text()
    # The figures stay, and the rules of today are put on them again.
    assert judged_values(values) == values


def test_a_report_without_any_comparison_has_no_figure() -> None:
    values = _values(Outcome())
    assert forest_of(values) == "" and "![" not in to_markdown(values)
