"""Divergences, maps and agreement on data whose answer is known."""

import math

import numpy as np
import pytest

from codepmp_ray.analysis.embedding_map import embedding_map, hashed_tfidf
from codepmp_ray.analysis.judge_agreement import order_agreement
from codepmp_ray.analysis.lengths import LengthStats, length_bias, wilson_interval
from codepmp_ray.analysis.ngrams import bucket_table, divergences, kl_divergence
from codepmp_ray.errors import InputError


def _documents(words, num, seed, skew=1.0):
    """Texts of 30 words; with more skew the first words are more frequent."""
    generator = np.random.default_rng(seed)
    shares = np.arange(1, len(words) + 1) ** -skew
    return [" ".join(generator.choice(words, size=30, p=shares / shares.sum())) for _ in range(num)]


WORDS = [f"w{i}" for i in range(60)]


def test_divergence_by_hand():
    left, right = np.array([3.0, 1.0, 0.0]), np.array([1.0, 1.0, 0.0])
    p, q = np.array([3.5, 1.5]) / 5, np.array([1.5, 1.5]) / 3
    assert kl_divergence(left, right) == pytest.approx((p * np.log(p / q)).sum())
    assert kl_divergence(left, left) == 0.0


def test_equal_sources_are_as_far_apart_as_the_human_bootstrap():
    human, alike = _documents(WORDS, 40, 0), _documents(WORDS, 60, 1)
    other = _documents(WORDS[::-1], 40, 2)
    for row in divergences(human, {"alike": alike, "other": other}, num_bootstrap=40):
        own, same = row["human_bootstrap"], row["against_human"]["alike"]
        far = row["against_human"]["other"]
        assert same["low"] < own["high"] * 1.6 and far["low"] > own["high"]
        assert own["low"] <= own["mean"] <= own["high"]
    with pytest.raises(InputError, match="thin has 1 documents"):
        divergences(human, {"thin": ["one text only"]}, 10)


def test_density_is_length_and_entropy_is_not():
    sources = {"short": _documents(WORDS, 10, 0), "long": _documents(WORDS, 40, 0)}
    table = bucket_table(sources)
    density = {name: found["1"]["density"] for name, found in table["sources"].items()}
    assert density == {"short": 3.0, "long": 12.0} and table["num_words_compared"] == 300
    entropies = [found["1"]["bucket_entropy_bits"] for found in table["sources"].values()]
    assert entropies[0] == pytest.approx(entropies[1], abs=0.01)
    assert sum(table["sources"]["short"]["2"]["bucket_shares"]) == pytest.approx(1.0)
    with pytest.raises(InputError, match="without words"):
        bucket_table({"a": ["word"], "b": ["!!"]})


def test_a_map_tells_unlike_sources_apart_and_like_ones_not():
    vectors = hashed_tfidf({"a": _documents(WORDS, 60, 0), "b": _documents(WORDS, 60, 1),
                            "c": _documents([w + "x" for w in WORDS], 60, 2)})  # fmt: skip
    found = embedding_map(vectors)
    assert found.same_source["c"].low > 0.95 > 0.7 > found.same_source["a"].high
    assert found.by_chance["a"] == pytest.approx(59 / 179)
    alike = embedding_map({name: vectors[name] for name in ("a", "b")})
    assert alike.same_source["a"].low < 0.55
    cloud = np.random.default_rng(3).normal(size=(600, 20))
    chance = embedding_map({"one": cloud[:300], "two": cloud[300:]})
    # A text is not its own neighbour: that alone would be a tenth more.
    assert chance.same_source["one"].mean == pytest.approx(chance.by_chance["one"], abs=0.03)
    assert found.points["c"].shape == (60, 2) and 0 < found.explained < 1
    np.testing.assert_allclose(np.linalg.norm(vectors["a"], axis=1), 1, rtol=1e-5)


def test_the_plane_is_that_of_the_largest_variance():
    generator = np.random.default_rng(0)
    cloud = generator.normal(size=(300, 5)) * [9, 4, 1, 0.5, 0.1]
    found = embedding_map({"only": cloud[:150], "too": cloud[150:]})
    points = np.concatenate(list(found.points.values()))
    axes = np.abs(np.corrcoef(points.T, cloud[:, :2].T)[:2, 2:])
    assert axes[0, 0] > 0.99 and axes[1, 1] > 0.98
    variances = cloud.var(axis=0)
    assert found.explained == pytest.approx(variances[:2].sum() / variances.sum(), rel=0.02)
    small = embedding_map({"one": cloud[:2, :], "two": cloud[2:4, :]})  # fewer texts than features
    assert small.points["one"].shape == (2, 2) and small.explained > 0.5
    with pytest.raises(InputError, match="1 texts"):
        embedding_map({"a": cloud[:1]})
    with pytest.raises(InputError, match="one length"):
        embedding_map({"a": cloud, "b": cloud[:, :3]})


def test_a_verdict_that_turns_with_the_order_is_none():
    found = order_agreement(
        ["chosen", "chosen", "chosen", "rejected", "tie"],
        ["chosen", "rejected", "chosen", "rejected", "chosen"],
    )
    assert found.agreement.mean == pytest.approx(2 / 3)
    assert (found.num_pairs, found.num_undecided) == (5, 2)
    # For the first place: three "chosen" when it stood first, two "rejected" when they did.
    assert found.first_shown == pytest.approx(5 / 9)
    assert order_agreement(["chosen", "rejected"]).first_shown is None
    with pytest.raises(InputError, match="'A' is no verdict"):
        order_agreement(["A"])


@pytest.mark.parametrize(
    ("one", "other", "can_judge"),
    [
        (["chosen"] * 10, ["rejected"] * 10, False),  # the first one, whatever it is
        (["rejected"] * 10, ["chosen"] * 10, False),  # the second one
        (["tie"] * 10, ["tie"] * 10, False),
        (["chosen"] * 9 + ["rejected"], ["rejected"] * 10, False),
        (["chosen"] * 10, ["chosen"] * 6 + ["rejected"] * 4, True),
        (["rejected"] * 10, ["rejected"] * 10, True),  # it may be wrong, and judges
    ],
)
def test_a_judge_of_places_cannot_judge(one, other, can_judge):
    assert order_agreement(one, other).can_judge is can_judge


def test_no_ngram_crosses_from_one_text_to_the_next():
    sources = {"many": ["a b"] * 50, "one": ["a b " * 50]}
    table = bucket_table(sources)["sources"]
    bigrams = {name: 100 * found["2"]["density"] for name, found in table.items()}
    assert bigrams == pytest.approx({"many": 50, "one": 99})
    assert table["many"]["2"]["bucket_entropy_bits"] == 0.0  # "b a" is in no text of many


def test_statistics_of_known_lengths():
    stats = LengthStats.of(np.array([10, 20, 30, 40]))
    assert (stats.num_rows, stats.mean, stats.median, stats.max) == (4, 25.0, 25.0, 40)
    assert stats.p95 == pytest.approx(38.5)


def test_empty_column_has_no_mean_and_does_not_warn(recwarn: pytest.WarningsRecorder):
    stats = LengthStats.of(np.array([], dtype=np.int64))
    assert stats.num_rows == stats.max == 0 and math.isnan(stats.mean)
    assert math.isnan(length_bias(np.array([]), np.array([])).accuracy)
    assert not recwarn.list


def test_paired_rule_and_auc_disagree_where_they_should():
    """Chosen is one token longer in every pair: the paired rule is perfect, the AUC is not."""
    rejected = np.arange(100)
    bias = length_bias(rejected + 1, rejected)
    assert bias.accuracy == 1.0 and bias.rule == "the longer answer is the chosen one"
    wins = sum((c > r) + (c == r) / 2 for c in rejected + 1 for r in rejected)
    assert bias.auc == pytest.approx(wins / 10_000)
    assert bias.auc < 0.52


def test_the_shorter_side_can_give_the_label_away_too():
    bias = length_bias(np.array([1, 2, 3, 9]), np.array([5, 5, 5, 5]))
    assert bias.chosen_longer == bias.longer_rule == 0.25
    assert (bias.low, bias.high) == pytest.approx(wilson_interval(0.25, 4))
    assert bias.accuracy == 0.75
    assert bias.rule == "the shorter answer is the chosen one"


def test_ties_count_as_half():
    bias = length_bias(np.array([5, 5]), np.array([5, 5]))
    assert (bias.equal, bias.accuracy, bias.auc, bias.longer_rule) == (1.0, 0.5, 0.5, 0.5)


def test_sides_of_different_number_are_refused():
    with pytest.raises(ValueError, match="2 chosen lengths but 1"):
        length_bias(np.array([1, 2]), np.array([1]))


def test_wilson_interval_against_published_values():
    """Newcombe 1998 (Statistics in Medicine 17), Table I: 81/263 and 0/20."""
    assert wilson_interval(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0.0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(0.5, 0) == (0.0, 1.0)
