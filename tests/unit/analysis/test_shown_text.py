import math

import pytest

from codepmp_ray.analysis.text import duration, fenced, inline_code, percent, shortened, visible


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
