"""Selection and shards: one winner per duplicate, equal shards, every row in exactly one place."""

import hashlib
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codepmp_ray.config.corpus import CorpusConfig, NearDuplicateConfig
from codepmp_ray.corpus.assembly import build_shard, plan_shards
from codepmp_ray.corpus.deduplication import deduplicate
from codepmp_ray.corpus.extraction import EXTRACTED, EXTRACTED_REJECTED
from codepmp_ray.corpus.selection import DUPLICATE, KEPT, OVER_MAX, select_snippets
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.records import REJECTED, SNIPPET, table_from_rows
from codepmp_ray.storage import LocalStore


def key(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:16]


def test_the_first_of_equal_snippets_stays() -> None:
    selection = select_snippets(b"".join(map(key, "abacab")), None, 0)
    assert selection.fates.tolist() == [KEPT, KEPT, DUPLICATE, KEPT, DUPLICATE, DUPLICATE]
    assert selection.first.tolist() == [0, 1, 0, 3, 0, 1]
    assert selection.num_kept == 3
    assert select_snippets(b"", 5, 0).num_kept == 0


@settings(derandomize=True, deadline=None)
@given(st.lists(st.sampled_from("abcdefgh"), max_size=30), st.integers(1, 6), st.integers(0, 3))
def test_selection_against_plain_sets(names: list[str], limit: int, seed: int) -> None:
    selection = select_snippets(b"".join(map(key, names)), limit, seed)
    fates = selection.fates.tolist()
    assert selection.num_kept == min(limit, len(set(names)))
    for i, name in enumerate(names):
        assert names.index(name) == selection.first[i]
        assert (fates[i] == DUPLICATE) == (names.index(name) < i)
    # The sample is one of content: order does not matter.
    kept = {name for name, fate in zip(names, fates, strict=True) if fate == KEPT}
    turned = list(reversed(names))
    again = select_snippets(b"".join(map(key, turned)), limit, seed).fates.tolist()
    assert kept == {name for name, fate in zip(turned, again, strict=True) if fate == KEPT}


def test_another_seed_takes_another_sample() -> None:
    keys = b"".join(key(str(i)) for i in range(100))
    samples = [select_snippets(keys, 50, seed).fates.tolist() for seed in (0, 0, 1)]
    assert samples[0] == samples[1] != samples[2]
    assert samples[0].count(OVER_MAX) == 50


def commit_units(store: LocalStore, units: list[str]) -> None:
    """A unit is a string: letters are snippets with that code, "-" is a rejected row."""
    for unit_id, letters in enumerate(units):
        snippets, rejected = [], []
        for i, letter in enumerate(letters):
            name = f"{unit_id}.{i}"
            if letter == "-":
                rejected.append({"row_id": name, "reason": "empty", "ordinal": i})
            else:
                row = {"snippet_id": name, "code": letter, "dedup_key": key(letter)}
                snippets.append({**row, "ordinal": i})
        tables = {
            "snippets": table_from_rows(snippets, EXTRACTED),
            "rejected": table_from_rows(rejected, EXTRACTED_REJECTED),
        }
        ShardLedger(store).commit(unit_id, len(letters), tables)


def assemble(
    store: LocalStore, rows_per_shard: int, max_snippets: int | None = None
) -> list[dict[str, pa.Table]]:
    near = NearDuplicateConfig(enabled=False)
    corpus = CorpusConfig(max_snippets=max_snippets, near_duplicates=near)
    decided = deduplicate(corpus, store.sub("duplicates").uri, store.uri, run_nothing)
    shards = []
    for plan in plan_shards(decided, max_snippets, rows_per_shard):
        shard = build_shard(store.uri, decided.fates.store.uri, plan, [])
        assert shard.tables["snippets"].schema == SNIPPET
        assert shard.tables["rejected"].schema == REJECTED
        assert shard.num_input_rows == sum(table.num_rows for table in shard.tables.values())
        shards.append(shard.tables)
    return shards


def run_nothing(label: str, *_: object) -> None:
    raise AssertionError(f"so few snippets need no task: {label}")


def test_shards_are_cut_after_their_last_snippet(tmp_path: Path) -> None:
    commit_units(LocalStore(tmp_path), ["-ab-a", "", "c-", "-", "bd-"])
    shards = assemble(LocalStore(tmp_path), 2)
    assert [shard["snippets"]["code"].to_pylist() for shard in shards] == [["a", "b"], ["c", "d"]]
    assert [shard["rejected"]["row_id"].to_pylist() for shard in shards] == [
        ["0.0"],
        ["0.3", "0.4", "2.1", "3.0", "4.0", "4.2"],
    ]
    details = dict(
        zip(
            shards[1]["rejected"]["row_id"].to_pylist(),
            shards[1]["rejected"]["detail"].to_pylist(),
            strict=True,
        )
    )
    assert details["0.4"] == "same code as 0.1"
    assert details["4.0"] == "same code as 0.2"


@settings(derandomize=True, deadline=None, max_examples=25)
@given(
    st.lists(st.text("abcdefg-", max_size=6), min_size=1, max_size=4),
    st.integers(1, 4),
    st.one_of(st.none(), st.integers(1, 4)),
)
def test_every_row_ends_in_exactly_one_shard(
    tmp_path_factory: pytest.TempPathFactory,
    units: list[str],
    rows_per_shard: int,
    max_snippets: int | None,
) -> None:
    store = LocalStore(tmp_path_factory.mktemp("units"))
    commit_units(store, units)
    shards = assemble(store, rows_per_shard, max_snippets)
    snippets = [row for shard in shards for row in shard["snippets"].to_pylist()]
    rejected = [row for shard in shards for row in shard["rejected"].to_pylist()]
    ids = [row["snippet_id"] for row in snippets] + [row["row_id"] for row in rejected]
    assert sorted(ids) == sorted(
        f"{unit_id}.{i}" for unit_id, letters in enumerate(units) for i in range(len(letters))
    )
    num_unique = len({letter for unit in units for letter in unit} - {"-"})
    assert len(snippets) == min(num_unique, max_snippets or num_unique)
    full = [shard["snippets"].num_rows for shard in shards[:-1]]
    assert full == [rows_per_shard] * len(full)
