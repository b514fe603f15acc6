"""Figures of diversity against texts whose diversity is known, and the page that shows them."""

from __future__ import annotations

import json
import math
import random
import re
from itertools import chain

import pytest

from codepmp_ray.analysis import diversity
from codepmp_ray.analysis.diversity import (
    compression_ratio,
    effective_number,
    measure_diversity,
    ngram_figures,
)
from codepmp_ray.analysis.diversity_report import write_diversity
from codepmp_ray.errors import InputError


def words(num: int, seed: int) -> str:
    rng = random.Random(seed)
    return " ".join(f"w{rng.randrange(10**6)}" for _ in range(num))


def test_n_grams_of_known_texts() -> None:
    same = ngram_figures([["a"] * 50], 2)
    assert same == {"num": 49, "bucket_entropy_bits": 0.0, "distinct": 1 / 49}
    spread = ngram_figures([words(20_000, 0).split()], 1)
    assert spread["distinct"] > 0.98
    assert math.log2(100) - 0.02 < spread["bucket_entropy_bits"] <= math.log2(100)
    assert ngram_figures([["a"], ["b"]], 2)["distinct"] is None


def test_repetition_across_texts_compresses() -> None:
    once, many = [words(50, i) for i in range(40)], [words(50, 0)] * 40
    assert compression_ratio(many) > 10 * compression_ratio(once)
    assert compression_ratio([]) is None


def test_the_effective_number_is_that_of_equal_shares() -> None:
    assert effective_number([5, 5, 5]) == pytest.approx(3)
    assert 1 < effective_number([98, 1, 1]) < 1.2
    assert effective_number([]) is None


def test_numbers_of_a_set(maker, make_pair) -> None:
    texts = [words(60, i) for i in range(20)] + [words(60, 0)] * 5
    stage = maker.synthesis(
        [make_pair(i, description=text, repo=f"r{i % 5}") for i, text in enumerate(texts)]
    )
    found = measure_diversity(stage)
    assert found["set"]["num_pairs"] == found["sample"]["num_pairs"] == 25
    assert found["set"]["num_rejected"] == 2
    assert found["likeness"]["share_near_duplicates"] == 5 / 25
    assert 0 < found["likeness"]["mean"] < 0.1
    assert found["provenance"]["repo"]["effective_number"] == pytest.approx(5)
    assert found["lengths"]["chosen"]["mean"] == 22.0 and found["lengths"]["unit"] == "tokens"
    assert sum(found["lengths"]["chosen"]["counts"]) == 25
    # The paper's density: n-grams over 100 buckets, of each of 25 texts one less for each n more.
    density = found["ngrams"]["description"]["density"]
    assert density == pytest.approx({"1": 15.0, "2": 14.75, "3": 14.5})
    words_, pairs, triples = (found["ngrams"]["rejected"][str(n)]["num"] for n in (1, 2, 3))
    assert words_ == found["ngrams"]["num_words_compared"]
    assert words_ - pairs == pairs - triples > 1
    assert found["length_bias"]["chosen_longer"] == 0
    json.dumps(found, allow_nan=False)


def test_the_sample_is_the_same_each_time_and_reads_few_shards(
    maker, make_pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = maker.synthesis([make_pair(i) for i in range(40)])  # in two shards
    names = sorted(row["pair_id"] for row in stage.ledger.read("pairs").to_pylist())
    whole = diversity.sample_pairs(stage.ledger, 100, ["chosen"])
    assert whole["pair_id"].to_pylist() == names
    ten = diversity.sample_pairs(stage.ledger, 10, ["chosen"])
    expected = [
        sorted(stage.ledger.read_shard("pairs", shard)["pair_id"].to_pylist())[:5]
        for shard in (0, 1)
    ]
    assert ten["pair_id"].to_pylist() == sorted(chain(*expected))
    monkeypatch.setattr(diversity, "MAX_SHARDS", 1)
    one = diversity.sample_pairs(stage.ledger, 100, ["chosen"])["pair_id"].to_pylist()
    assert len(one) == 20 and set(one) < set(names)


def test_the_page_shows_the_numbers_and_loads_nothing(maker, make_pair) -> None:
    evil = '</pre><script>alert(1)</script>\u202e"'
    maker.synthesis(
        [make_pair(i, repo=evil if i % 2 else "good", description=words(9, i)) for i in range(12)]
    )
    path = write_diversity(maker.recipe)
    with open(path, encoding="utf-8") as file:
        page = file.read()
    with open(path.replace(".html", ".json"), encoding="utf-8") as file:
        numbers = json.load(file)
    assert "<script" not in page and "\u202e" not in page
    assert not re.search(r"(?:src|href)=\"(?!#)", page)
    assert page.count("<svg") == 3  # lengths, likeness, repositories
    assert f"{100 * numbers['length_bias']['accuracy']:.1f}" in page
    assert "All pairs have the language <code>python</code>." in page
    # The same numbers make the same page.
    write_diversity(maker.recipe)
    with open(path, encoding="utf-8") as file:
        assert file.read() == page


def test_a_set_without_pairs_and_one_that_is_not_there(maker) -> None:
    with pytest.raises(InputError, match="not complete"):
        write_diversity(maker.recipe)
    maker.synthesis([], ("description_empty",))
    with open(write_diversity(maker.recipe), encoding="utf-8") as file:
        page = file.read()
    assert "This set has no pairs." in page and "nan" not in page.lower()
