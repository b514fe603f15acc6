"""One process and a cluster decide the same, whatever the order, the cut, the number of tasks."""

from __future__ import annotations

import hashlib
import pickle
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codepmp_ray.config.corpus import CorpusConfig, DeduplicationConfig, NearDuplicateConfig
from codepmp_ray.corpus import keep_index
from codepmp_ray.corpus.assembly import build_shard, plan_shards
from codepmp_ray.corpus.clusters import Forest, first_of_clusters
from codepmp_ray.corpus.deduplication import deduplicate
from codepmp_ray.corpus.extraction import EXTRACTED, EXTRACTED_REJECTED
from codepmp_ray.corpus.fates import SampleLimit
from codepmp_ray.corpus.keep_index import open_keep_index, sketch_columns, sketch_names
from codepmp_ray.corpus.minhash import Sketches
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.records import table_from_rows
from codepmp_ray.storage import LocalStore

NEAR = NearDuplicateConfig(num_bands=3, rows_per_band=4)
LETTERS = "abcdefghijkl"
_RNG = np.random.default_rng(5)
# Few keys and few bytes: long chains, crowded keys, and neighbours that are not alike.
KEYS = {c: _RNG.integers(0, 4, 3).astype(np.uint64) for c in LETTERS}
SIGNATURES = {c: (_RNG.random(12) < 0.25).astype(np.uint8) for c in LETTERS}
Fate = tuple[str, str, str | None]


def sketches_of(letters: str) -> Sketches:
    keys = np.array([KEYS[c] for c in letters], dtype=np.uint64).reshape(-1, 3)
    return Sketches(keys, np.array([SIGNATURES[c] for c in letters]).reshape(-1, 12))


def with_sketches(rows: pa.Table, letters: str) -> pa.Table:
    for name, column in sketch_columns(sketches_of(letters), NEAR).items():
        rows = rows.append_column(name, column)
    return rows


def extract(store: LocalStore, units: Sequence[str]) -> None:
    """A unit is a string: a letter is a snippet with that code, "-" a rejected row."""
    for unit, text in enumerate(units):
        snippets = [
            {
                "snippet_id": f"{unit}.{i}",
                "code": letter,
                "ordinal": i,
                "dedup_key": hashlib.sha256(letter.encode()).digest()[:16],
            }
            for i, letter in enumerate(text)
            if letter != "-"
        ]
        rejected = [
            {"row_id": f"{unit}.{i}", "reason": "empty", "ordinal": i}
            for i, letter in enumerate(text)
            if letter == "-"
        ]
        table = with_sketches(table_from_rows(snippets, EXTRACTED), text.replace("-", ""))
        tables = {"snippets": table, "rejected": table_from_rows(rejected, EXTRACTED_REJECTED)}
        ShardLedger(store).commit(unit, len(text), tables)


def keep(store: LocalStore, shards: Sequence[str]) -> None:
    """An earlier corpus that kept these letters."""
    index = open_keep_index(store.uri, NEAR)
    for shard, letters in enumerate(shards):
        ids = pa.array([f"old.{shard}.{i}" for i in range(len(letters))], pa.string())
        table = with_sketches(pa.table({"snippet_id": ids}), letters)
        index.commit(shard, table.num_rows, {keep_index.TABLE: table})
    store.put("complete.json", b"{}")


def by_brute_force(units: Sequence[str], earlier: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Id of every duplicate -> (how, id of the winner), from the definition in plain Python."""
    old = [(f"old.{s}.{i}", c) for s, text in enumerate(earlier) for i, c in enumerate(text)]
    new = [(f"{u}.{i}", c) for u, text in enumerate(units) for i, c in enumerate(text) if c != "-"]
    rows = old + new
    parent = list(range(len(rows)))

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    for band in range(3):
        groups = defaultdict(list)
        for i, (_, letter) in enumerate(rows):
            groups[KEYS[letter][band]].append(i)
        for members in groups.values():
            for _ in range(16):
                if not members:
                    break
                leader, *others = members
                members = []
                for other in others:
                    share = np.mean(SIGNATURES[rows[leader][1]] == SIGNATURES[rows[other][1]])
                    if (share - 1 / 256) / (1 - 1 / 256) >= NEAR.min_similarity:
                        low, high = sorted((root(leader), root(other)))
                        parent[high] = low
                    else:
                        members.append(other)
    lost = {}
    first_of_code: dict[str, str] = {}
    for i, (name, letter) in enumerate(rows):
        if i < len(old):
            continue
        if letter in first_of_code:
            lost[name] = ("same code as", first_of_code[letter])
            continue
        first_of_code[letter] = name
        if root(i) != i:
            lost[name] = ("nearly the code of", rows[root(i)][0])
    return lost


@pytest.fixture(autouse=True)
def no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of small commits, none of which has to outlive a power cut."""
    monkeypatch.setattr("os.fsync", lambda _: None)


class Killed(Exception):
    pass


class Cluster:
    """Runs tasks in any order, some twice, each on pickled copies; dies before task `dies_at`."""

    def __init__(self, seed: int, dies_at: int = -1) -> None:
        self.rng = random.Random(seed)
        self.left = dies_at
        self.labels: list[str] = []

    def __call__(self, label: str, task: Callable[[Any], None], items: Sequence[Any]) -> None:
        self.labels.append(label)
        order = [*items, *self.rng.sample(list(items), len(items) // 3)]
        self.rng.shuffle(order)
        for item in order:
            self.left -= 1
            if self.left == 0:
                raise Killed
            pickle.loads(pickle.dumps(task))(pickle.loads(pickle.dumps(item)))


def decide(
    store: LocalStore,
    folder: str,
    corpus: CorpusConfig,
    run: Callable[..., None],
    rows_per_shard: int = 3,
) -> list[dict[str, Any]]:
    """All shards of the corpus, tables and sketches as plain values."""
    extracted = store.sub("extracted").uri
    decided = deduplicate(corpus, store.sub(folder).uri, extracted, run)
    names = sketch_names(corpus.near_duplicates)
    shards = []
    for plan in plan_shards(decided, corpus.max_snippets, rows_per_shard):
        shard = build_shard(extracted, decided.fates.store.uri, plan, names)
        tables = {name: table.to_pylist() for name, table in shard.tables.items()}
        assert shard.num_input_rows == sum(map(len, tables.values()))
        shards.append({**tables, "sketches": shard.sketches.to_pylist()})
    return shards


def cluster_settings(rows_per_chunk: int, rows_per_partition: int) -> DeduplicationConfig:
    return DeduplicationConfig(
        max_rows_in_process=0, rows_per_chunk=rows_per_chunk, rows_per_partition=rows_per_partition
    )


UNITS = st.lists(st.text(LETTERS + "-", max_size=8), min_size=1, max_size=5)


@pytest.mark.slow
@pytest.mark.slow
@settings(
    derandomize=True,
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    units=UNITS,
    earlier=st.lists(st.text(LETTERS, max_size=4), max_size=2),
    limit=st.one_of(st.none(), st.integers(1, 6)),
    cut=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 99),
)
def test_both_ways_and_brute_force_agree(
    tmp_path_factory: pytest.TempPathFactory,
    units: list[str],
    earlier: list[str],
    limit: int | None,
    cut: tuple[int, int],
    seed: int,
) -> None:
    store = LocalStore(tmp_path_factory.mktemp("d"))
    extract(store.sub("extracted"), units)
    keep(store.sub("old"), earlier)
    near = NEAR.model_copy(update={"earlier": (store.sub("old").uri,)})
    corpus = CorpusConfig(near_duplicates=near, max_snippets=limit, sample_seed=seed)
    one_process = decide(store, "one", corpus, Cluster(seed))
    spread = corpus.model_copy(update={"deduplication": cluster_settings(*cut)})
    assert decide(store, "many", spread, Cluster(seed)) == one_process

    lost = by_brute_force(units, earlier)
    rejected = {row["row_id"]: row for shard in one_process for row in shard["rejected"]}
    for name, row in rejected.items():
        if row["reason"].endswith("_duplicate"):
            assert row["detail"] == " ".join(lost.pop(name))
    assert not lost


@pytest.mark.slow
def test_a_search_that_is_killed_anywhere_goes_on(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    extract(store.sub("extracted"), ["abca", "-bdee", "fgh", "kka"])
    near = NEAR.model_copy(update={"num_bands": 3})
    corpus = CorpusConfig(
        near_duplicates=near, max_snippets=4, deduplication=cluster_settings(4, 5)
    )
    undisturbed = Cluster(0)
    expected = decide(store, "whole", corpus, undisturbed)
    assert {label.split(":")[0] for label in undisturbed.labels} == {
        "exact", "band_000", "band_001", "band_002", "fates",
    }  # fmt: skip
    num_tasks = -undisturbed.left - 1
    # Other settings change nothing once it is begun.
    other = corpus.model_copy(update={"deduplication": DeduplicationConfig()})
    for step in range(1, num_tasks + 1, 3):
        with pytest.raises(Killed):
            decide(store, f"killed{step}", corpus, Cluster(step, dies_at=step))
        assert decide(store, f"killed{step}", other, Cluster(step)) == expected


def test_equal_hashes_are_sampled_in_corpus_order() -> None:
    hashes = np.array([3, 5, 5, 7], dtype=np.uint64)
    excluded = SampleLimit(5, 1).excludes(hashes, np.arange(4))
    assert excluded.tolist() == [False, False, True, True]


def test_scattered_keys_are_removed(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    extract(store.sub("extracted"), ["abca", "-bd"])
    corpus = CorpusConfig(near_duplicates=NEAR, deduplication=cluster_settings(2, 2))
    decide(store, "d", corpus, Cluster(0))
    assert not list((tmp_path / "d").rglob("part_*"))


@settings(derandomize=True, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-5, 15), st.integers(-5, 15)), max_size=30),
    st.integers(1, 5),
    st.randoms(use_true_random=False),
)
def test_a_forest_does_not_depend_on_blocks(
    edges: list[tuple[int, int]], size: int, rng: random.Random
) -> None:
    parent = {i: i for i in range(-5, 16)}
    for _ in edges:
        for a, b in edges:
            low = min(parent[a], parent[b])
            parent[a] = parent[b] = low
    rng.shuffle(edges)
    forest = Forest()
    for start in range(0, len(edges), size):
        block = np.array(edges[start : start + size], dtype=np.int64)
        forest.add(block[:, 0], block[:, 1])
    losers, winners = forest.losers()
    assert dict(zip(losers.tolist(), winners.tolist(), strict=True)) == {
        i: first for i, first in parent.items() if i != first
    }


def test_crowded_keys_are_the_same_in_every_cut() -> None:
    """More unlike leaders than are compared with all others: the bound must not depend on cuts."""
    keys = np.zeros(60, dtype=np.uint64)
    signatures = np.random.default_rng(1).integers(0, 255, (30, 8)).astype(np.uint8)
    signatures = np.concatenate([signatures, signatures])
    first = first_of_clusters([keys], signatures, 0.7)
    assert first[30:46].tolist() == list(range(16)) and first[46:].tolist() == list(range(46, 60))
