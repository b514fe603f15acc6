"""Divergences, maps and agreement on data whose answer is known."""

import numpy as np
import pytest

from codepmp_ray.analysis.embedding_map import embedding_map, hashed_tfidf
from codepmp_ray.analysis.judge_agreement import order_agreement
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
