import io
from pathlib import Path

from rich.console import Console

from codepmp_ray.analysis.closing import Rule, filled, forest, print_summary
from codepmp_ray.analysis.report import write_report


def _printed(maker, encoding: str = "utf-8", width: int = 160) -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n")
    print_summary(maker.recipe, Console(file=file, width=width))
    file.flush()
    return file.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]


def test_the_end_is_a_sentence_a_table_and_a_plot(maker):
    maker.all_stages()
    path = Path(write_report(maker.recipe))
    lines = _printed(maker).splitlines()
    assert lines[0].startswith("Too small to tell")
    assert lines[1].strip() == "Best of 4 on 36 HumanEval problems, with 95 % intervals"
    rows = [line.split("│")[1:4] for line in lines if line.startswith("│")]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["reward model", "33.3", "+8.3 (-1.7 to +18.3)"],
        ["random pick", "25.0", ""],
        ["longest answer (best null rule)", "27.0", "+2.0 (-8.0 to +12.0)"],
        ["majority vote", "30.0", "+5.0 (-5.0 to +15.0)"],
        ["any right one (oracle)", "90.0", "+65.0 (+55.0 to +75.0)"],
    ]
    assert [line.split("  ")[0] for line in lines if "●" in line] == [
        "reward model", "longest answer", "majority vote",
    ]  # fmt: skip
    assert lines[-1] == f"Report: {path}" and lines[-2].startswith("All stages: ")


def test_a_terminal_without_these_characters_gets_others(maker):
    maker.all_stages()
    text = _printed(maker, "ascii")
    assert "reward model" in text and "---o---" in text


def test_no_line_begins_with_a_percent_sign():
    text = "Best of 8 solves 40.0 % of 100 problems, a random pick 24.5 %: +15.5 (95 % interval)."
    for width in range(20, 120):
        lines = filled(text, width).splitlines()
        assert not any(line.startswith("%") for line in lines), lines
        assert max(map(len, lines)) <= width and " ".join(lines) == text


def test_intervals_stand_where_they_are():
    shown = [Rule("reward_model", (0.5, 0.4, 0.6), (0.2, 0.1, 0.3)),
             Rule("majority", (0.3, 0.2, 0.4), (-0.1, -0.2, 0.0))]  # fmt: skip
    first, second, limits = forest(shown, 72, "[-o]|")
    start = len("majority vote") + 2
    assert first[start:] == " " * 20 + "|" + " " * 9 + "[" + "-" * 9 + "o" + "-" * 9 + "]"
    assert second[start:] == "[" + "-" * 9 + "o" + "-" * 9 + "]"
    assert limits.strip() == "-20 to +30 points, | is a random pick"


def test_without_an_evaluation_that_is_said(maker):
    maker.corpus()
    lines = _printed(maker).splitlines()
    assert lines == ["No verdict: the best-of-N evaluation of this run is missing.",
                     "All stages: 3.2 s"]  # fmt: skip
