import io
from pathlib import Path

from rich.console import Console

from codepmp_ray.analysis.report import write_report
from codepmp_ray.analysis.summary import print_summary


def _printed(maker) -> str:
    screen = Console(file=io.StringIO(), width=160)
    print_summary(maker.recipe, screen)
    return screen.file.getvalue()  # type: ignore[attr-defined]


def test_one_row_per_stage_and_the_headline(maker):
    maker.all_stages()
    path = Path(write_report(maker.recipe))
    text = _printed(maker)
    lines = [line for line in text.splitlines() if "done" in line]
    assert len(lines) == 7
    assert "8 pairs of 10 snippets" in lines[1] and "3 min 4 s" in lines[1]
    assert "best of 4: 33.3\u00a0% solved, random pick 25.0\u00a0%" in lines[6]
    assert "Too small to tell" in text
    assert f"Report: {path}" in text


def test_missing_stages_and_markup_in_names(make_recipe, maker):
    maker = type(maker)(make_recipe(name="[red]x[/red]\x1b[2J"))
    maker.corpus()
    text = _printed(maker)
    assert "python -m jobs.synthesize makes it" in text
    assert "[red]x[/red]\\u001b[2J" in text and "\x1b[2J" not in text
    assert "No verdict" in text and "Report:" not in text
