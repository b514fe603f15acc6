"""Row types: ids, tables and the reasons that are stored."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codepmp_ray import records
from codepmp_ray.records import PAIR, REJECTED, stable_id, table_from_rows
from codepmp_ray.reject_reasons import RejectReason

# Surrogates too: a file name that is not UTF-8 carries them.
_TEXT = st.text(st.characters(exclude_characters="\x1f", exclude_categories=[]))


@given(st.lists(_TEXT, min_size=1, max_size=4), st.lists(_TEXT, min_size=1, max_size=4))
def test_ids_differ_exactly_when_the_parts_differ(first: list[str], second: list[str]) -> None:
    assert (stable_id(*first) == stable_id(*second)) == (first == second)


def test_ids_are_the_same_in_every_process_and_version() -> None:
    # sha256("a\x1fbc"), first 32 digits: stored ids would lose their meaning if this changed.
    assert stable_id("a", "bc") == "624ce4e22aa197da43bff3bcb4717e5b"


def test_missing_columns_become_null() -> None:
    table = table_from_rows([{"pair_id": "x", "prompt": "p"}], PAIR)
    assert table.schema == PAIR
    assert table.column("margin").to_pylist() == [None]


def test_an_unknown_column_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="promt"):
        table_from_rows([{"promt": "typo"}], PAIR)


def test_a_value_of_the_wrong_type_is_refused() -> None:
    with pytest.raises(pa.ArrowException):
        table_from_rows([{"chosen_num_tokens": "many"}], PAIR)


def test_no_rows_still_make_a_table_with_all_columns() -> None:
    table = table_from_rows([], REJECTED)
    assert (table.num_rows, table.schema) == (0, REJECTED)


def test_reasons_are_stored_as_their_own_lower_case_names() -> None:
    assert all(reason.value == reason.name.lower() for reason in RejectReason)


def test_pairs_carry_the_columns_that_preference_trainers_read() -> None:
    assert {"prompt", "chosen", "rejected"} <= set(records.PAIR.names)
