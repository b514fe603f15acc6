"""Every family of the table is exact, packed or in rows, or refused before weights are loaded."""

from __future__ import annotations

import pytest

from benchmarks import train_family_parity as parity
from benchmarks._families import FAMILIES, Family


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("CODEPMP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.mark.rehearsal
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_no_family_is_silently_wrong(family: Family) -> None:
    (row,) = parity.look_at([family])
    assert row.state != parity.WRONG, row
    (stored,) = [each for each in parity.stored_rows() if each.family == family.name]
    assert row.state == stored.state


def test_the_table_is_as_large_as_it_has_to_be() -> None:
    rows = parity.stored_rows()
    assert [row.family for row in rows] == [family.name for family in FAMILIES]
    states = [row.state for row in rows]
    assert len(rows) >= 40 and states.count(parity.PACKED) >= 30
    assert parity.WRONG not in states


def test_the_page_is_the_table() -> None:
    assert parity.DOCUMENT.read_text() == parity.page(parity.stored_rows())
