"""Words: the fast way and the plain way give the same."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from codepmp_ray.corpus.words import split_words


@settings(derandomize=True, deadline=None, max_examples=500)
@given(st.one_of(st.text(st.characters(max_codepoint=127)), st.text()))
def test_words_are_those_of_the_regular_expression(text: str) -> None:
    assert split_words(text) == re.findall(r"\w+", text.lower())


def test_words_of_code() -> None:
    assert split_words("def F(x_1): # né") == ["def", "f", "x_1", "né"]
