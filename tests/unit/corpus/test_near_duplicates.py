"""Near-duplicates: planted ones are found, the first stays, and order and batches do not matter."""

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codepmp_ray.config.corpus import CorpusConfig, NearDuplicateConfig
from codepmp_ray.corpus import keep_index
from codepmp_ray.corpus.assembly import build_shard, plan_shards
from codepmp_ray.corpus.clusters import first_of_clusters
from codepmp_ray.corpus.deduplication import deduplicate
from codepmp_ray.corpus.extraction import EXTRACTED, EXTRACTED_REJECTED, dedup_key
from codepmp_ray.corpus.keep_index import (
    check_earlier,
    open_keep_index,
    sketch_columns,
    sketch_names,
)
from codepmp_ray.corpus.minhash import similarity, sketch
from codepmp_ray.errors import ConfigError
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.records import table_from_rows
from codepmp_ray.storage import LocalStore

CONFIG = NearDuplicateConfig()
GOLDEN_KEYS = [4593762759734886128, 9117598348307816109]
GOLDEN_BYTES = [216, 189, 60, 197]


def function(seed: int, num_lines: int = 30) -> list[str]:
    rng = random.Random(seed)
    names = [f"v{rng.randrange(10_000)}" for _ in range(12)]
    lines = [
        f"    {rng.choice(names)} = {rng.choice(names)}({rng.choice(names)}, {rng.randrange(99)})"
        for _ in range(num_lines)
    ]
    return [f"def f{seed}({names[0]}):", *lines]


def changed(lines: list[str], seed: int) -> list[str]:
    """The same function under another name, with one statement replaced and other spacing."""
    lines = [lines[0].replace("def f", "def g"), *lines[1:]]
    lines[random.Random(seed).randrange(1, len(lines))] = "    raise ValueError(seed)"
    return [line.replace(", ", " ,  ") for line in lines]


def firsts(codes: list[str], config: NearDuplicateConfig = CONFIG) -> list[int]:
    found = sketch(codes, config)
    return first_of_clusters(list(found.keys.T), found.signatures, config.min_similarity).tolist()


def test_planted_near_duplicates_are_found_and_others_are_not() -> None:
    originals = [function(i) for i in range(200)]
    copies = [changed(lines, i) for i, lines in enumerate(originals[:100])]
    found = firsts(["\n".join(lines) for lines in originals + copies])
    assert found[:200] == list(range(200))
    assert sum(first == i for i, first in enumerate(found[200:])) >= 97
    assert all(first in (i, 200 + i) for i, first in enumerate(found[200:]))


def test_short_functions_with_the_same_body_but_other_names_are_no_cluster() -> None:
    codes = [f"def own_{i}(x):\n    y = x\n    z = y\n    return z" for i in range(300)]
    assert firsts(codes) == list(range(300))


def test_a_row_depends_on_its_code_alone() -> None:
    codes = ["\n".join(function(i, num_lines=i % 7)) for i in range(20)] + ["x", "", "é ß"]
    whole = sketch(codes, CONFIG)
    alone = [sketch([code], CONFIG) for code in codes]
    assert np.array_equal(whole.keys, np.concatenate([s.keys for s in alone]))
    assert np.array_equal(whole.signatures, np.concatenate([s.signatures for s in alone]))
    assert len(set(map(bytes, whole.keys))) == len(codes)
    respaced = sketch(["DEF f ( x ) :\n\n return x+y"], CONFIG).keys
    assert np.array_equal(respaced, sketch(["def f(x):\n    return x + y"], CONFIG).keys)
    assert sketch([], CONFIG).keys.shape == (0, 16)


def test_keys_are_those_of_every_earlier_run() -> None:
    """A stored index is worth nothing if a library moves its hashes without saying so."""
    found = sketch(["def f(x):\n    return x + 1"], CONFIG)
    assert [int(key) for key in found.keys[0][:2]] == GOLDEN_KEYS
    assert found.signatures[0][:4].tolist() == GOLDEN_BYTES


def test_the_estimate_is_the_similarity() -> None:
    shared = [f"w{i}" for i in range(400)]
    left = " ".join(shared)
    right = " ".join([*shared[:300], *(f"u{i}" for i in range(100))])
    exact = 296 / (2 * 396 - 296)
    config = NearDuplicateConfig(num_bands=100, rows_per_band=10)
    found = sketch([left, right], config).signatures
    assert similarity(found[:1], found[1:])[0] == pytest.approx(exact, abs=0.05)


@settings(derandomize=True, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 6)] * 3), max_size=25), st.permutations(range(3)))
def test_clusters_against_plain_union(rows: list[tuple[int, ...]], order: list[int]) -> None:
    expected = list(range(len(rows)))
    for _ in rows:
        for i, left in enumerate(rows):
            for j, right in enumerate(rows):
                if any(a == b for a, b in zip(left, right, strict=True)):
                    expected[i] = min(expected[i], expected[j])
    keys = np.array(rows, dtype=np.uint64).reshape(-1, 3)
    alike = np.zeros((len(rows), 4), dtype=np.uint8)
    found = first_of_clusters([keys[:, band] for band in order], alike, 0.7)
    assert found.tolist() == expected


def test_candidates_that_are_not_alike_do_not_hide_those_that_are() -> None:
    keys = np.zeros(4, dtype=np.uint64)
    signatures = np.array([[0] * 8, [1] * 8, [0] * 8, [1] * 8], dtype=np.uint8)
    assert first_of_clusters([keys], signatures, 0.7).tolist() == [0, 1, 0, 1]


def extract(store: LocalStore, units: list[list[str]], config: NearDuplicateConfig) -> ShardLedger:
    ledger = ShardLedger(store)
    for unit_id, codes in enumerate(units):
        rows = [
            {
                "snippet_id": f"{store.root.parent.name}.{unit_id}.{i}",
                "code": code,
                "ordinal": i,
                "dedup_key": dedup_key(code, "python"),
            }
            for i, code in enumerate(codes)
        ]
        table = table_from_rows(rows, EXTRACTED)
        for name, column in sketch_columns(sketch(codes, config), config).items():
            table = table.append_column(name, column)
        empty = table_from_rows([], EXTRACTED_REJECTED)
        ledger.commit(unit_id, len(codes), {"snippets": table, "rejected": empty})
    return ledger


def assemble(
    store: LocalStore, units: list[list[str]], config: NearDuplicateConfig
) -> tuple[list[str], list[tuple[str, str, str]]]:
    """Ids that stay, and (id, reason, detail) of those that leave; writes the keep-index."""
    extracted = extract(store.sub("extracted"), units, config)
    corpus = CorpusConfig(near_duplicates=config)
    decided = deduplicate(corpus, store.sub("d").uri, extracted.store.uri, run_nothing)
    (plan,) = plan_shards(decided, None, 1_000)
    names = sketch_names(config)
    shard = build_shard(extracted.store.uri, decided.fates.store.uri, plan, names)
    open_keep_index(store.uri, config).commit(
        0, shard.sketches.num_rows, {keep_index.TABLE: shard.sketches}
    )
    store.put("complete.json", b"{}")
    rejected = shard.tables["rejected"].to_pylist()
    return (
        shard.tables["snippets"]["snippet_id"].to_pylist(),
        [(row["row_id"], row["reason"], row["detail"]) for row in rejected],
    )


def run_nothing(label: str, *_: object) -> None:
    raise AssertionError(f"so few snippets need no task: {label}")


def test_the_first_stays_and_is_named_and_later_data_yields(tmp_path: Path) -> None:
    a, b, c = ("\n".join(function(i)) for i in range(3))
    near_a, near_b = "\n".join(changed(function(0), 1)), "\n".join(changed(function(1), 1))
    old = tmp_path / "old"
    kept, left = assemble(LocalStore(old), [[a, near_a], [b, a]], CONFIG)
    assert kept == ["old.0.0", "old.1.0"]
    assert left == [
        ("old.0.1", "near_duplicate", "nearly the code of old.0.0"),
        ("old.1.1", "exact_duplicate", "same code as old.0.0"),
    ]
    later = NearDuplicateConfig(earlier=(str(old),))
    kept, left = assemble(LocalStore(tmp_path / "new"), [[near_b, c], [a, near_a]], later)
    assert kept == ["new.0.1"]
    assert left == [
        ("new.0.0", "near_duplicate", "nearly the code of old.1.0"),
        ("new.1.0", "near_duplicate", "nearly the code of old.0.0"),
        ("new.1.1", "near_duplicate", "nearly the code of old.0.0"),
    ]
    # A third corpus is held against both.
    both = NearDuplicateConfig(earlier=(str(old), str(tmp_path / "new")))
    kept, left = assemble(LocalStore(tmp_path / "third"), [[c, b]], both)
    assert kept == []
    assert [detail[-7:] for _, _, detail in left] == ["new.0.1", "old.1.0"]


def test_an_index_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        check_earlier(NearDuplicateConfig(earlier=(str(tmp_path),)))
    assemble(LocalStore(tmp_path), [["def f(): pass"]], CONFIG)
    check_earlier(NearDuplicateConfig(earlier=(str(tmp_path),)))
    with pytest.raises(ConfigError, match="cannot be compared"):
        check_earlier(NearDuplicateConfig(earlier=(str(tmp_path),), ngram=4))
    (tmp_path / "complete.json").unlink()
    with pytest.raises(ConfigError, match="is not complete"):
        check_earlier(NearDuplicateConfig(earlier=(str(tmp_path),)))
