import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from codepmp_ray.analysis import plots
from codepmp_ray.analysis.closing import LABELS, Rule
from codepmp_ray.analysis.text import duration, fenced, inline_code, percent, shortened, visible


def _texts(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return [e.text or "" for e in root.iter("{http://www.w3.org/2000/svg}text")]


def test_colours_are_the_pages_and_ids_are_prefixed(make_step):
    svg = plots.loss_curve([make_step(i) for i in range(1, 4)], [], "first")
    assert not re.search(r"#[0-9a-f]{6}\b", svg), "a colour that does not follow the page"
    assert "var(--blue)" in svg and "<style" not in svg
    assert all(name.startswith("first-") for name in re.findall(r'\bid="([^"]*)"', svg))
    assert 'role="img" aria-label="Training loss by optimizer step"' in svg


def test_references_inside_a_plot_lead_somewhere():
    svg = plots.length_histogram(np.array([1, 5, 9]), np.array([2, 5, 30]), "second")
    used = set(re.findall(r"url\(#([^)]*)\)", svg)) | set(re.findall(r'href="#([^"]*)"', svg))
    assert used and used <= set(re.findall(r'\bid="([^"]*)"', svg))


def test_one_loss_line_where_there_is_one_loss(make_step):
    steps = [{**make_step(i), "loss": 0.5, "loss_rm": 0.5, "loss_lm": None} for i in (1, 2)]
    texts = _texts(plots.loss_curve(steps, [], "x"))
    assert "reward (RM)" in texts and "total" not in texts and "language (LM)" not in texts


def test_series_differ_without_colour():
    ks = [1, 2, 4]
    names = ("reward_model", "random", "majority", "length", "oracle")
    curve = {"accuracy": [0.1, 0.2, 0.3], "low": [0.0, 0.1, 0.2], "high": [0.2, 0.3, 0.4]}
    svg = plots.best_of_n_curve(ks, dict.fromkeys(names, curve), "x")
    styles = plots._BON_STYLES.values()
    assert len({(style, marker) for _, style, marker in styles}) == len(styles) == 7
    assert [t for t in _texts(svg) if t in {"1", "2", "4"}] == ["1", "2", "4"]
    assert len(set(re.findall(r"stroke-dasharray: ([^;\"]*)", svg))) >= 4


def test_differences_have_a_row_for_each_rule_but_the_oracle():
    none = Rule("random", (0.2, 0.1, 0.3), None)
    shown = [Rule(n, (0.3, 0.2, 0.4), (0.1, 0.0, 0.2)) for n in ("reward_model", "oracle")]
    texts = _texts(plots.differences_chart([shown[0], none, shown[1]], "x"))
    assert "reward model" in texts and "points against a random pick" in texts
    assert LABELS["oracle"] not in texts and "random pick" not in texts


def test_many_steps_are_averaged(make_step):
    x, y = plots._thinned(np.arange(10_000.0), np.arange(10_000.0))
    assert len(x) == len(y) == plots.MAX_POINTS
    assert x.mean() == y.mean() == 4_999.5


def test_labels_are_text_not_formulas_or_markup():
    svg = plots.reasons_chart({"$\\frac{1}{$": 3, "</text><script>": 1_234}, "x")
    assert "1,234" in _texts(svg) and "</text><script>" in _texts(svg)


def test_lengths_of_zero_tokens():
    zero = np.zeros(3, dtype=np.int64)
    assert "mean chosen: 0.0" in _texts(plots.length_histogram(zero, zero, "x"))


def test_hidden_characters_are_spelled_out():
    assert visible("a\x00b\u202ec\x1b[31m\ufeff") == "a\\u0000b\\u202ec\\u001b[31m\\ufeff"
    assert visible("\ud800") == "\\ud800"


def test_ordinary_text_is_left_alone():
    text = "tab\there\nnew line, grüße, 数, שלום, 👩‍👩‍👧"
    assert visible(text) == text
    assert visible("dos\r\nline") == "dos\nline"


@pytest.mark.parametrize("run", ["```", "````", "`````python"])
def test_no_text_can_leave_its_fence(run: str):
    lines = fenced(f"before\n{run}\nafter").split("\n")
    ticks = len(lines[0])
    assert lines[-1] == lines[0] == "`" * ticks
    assert all(line.count("`") < ticks for line in lines[1:-1])


def test_inline_code_stays_in_its_table_cell():
    assert inline_code("a|b\nc") == "`a\\|b c`"
    assert inline_code("x`y``z") == "``` x`y``z ```"


def test_shortened_says_what_is_left_out():
    assert shortened("abc", 3) == "abc"
    assert shortened("a" * 1_500, 10) == "a" * 10 + "\n... (1,490 more characters)"


def test_numbers_in_words():
    assert duration(3.25) == "3.2 s"
    assert duration(119.7) == "2 min 0 s"
    assert duration(3_700) == "1 h 1 min"
    assert duration(None) == "not recorded"
    assert percent(0.6151) == "61.5\u00a0%" and percent(math.nan) == "-"
