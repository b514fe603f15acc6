"""Divergences, maps, abilities and agreement on data whose answer is known; their plots."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from codepmp_ray.analysis import study_plots
from codepmp_ray.analysis.abilities import compare_abilities
from codepmp_ray.analysis.curves import curve
from codepmp_ray.analysis.embedding_map import embedding_map, hashed_tfidf
from codepmp_ray.analysis.judge_agreement import cohen_kappa, fleiss_kappa, order_agreement
from codepmp_ray.analysis.ngrams import bucket_table, divergences, kl_divergence
from codepmp_ray.analysis.sample_efficiency import equivalent_samples
from codepmp_ray.analysis.scaling_laws import fit_scaling
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


def test_better_everywhere_is_a_claim_about_all_dimensions():
    generator = np.random.default_rng(0)
    weak = {name: generator.random(200) for name in "abc"}
    strong = {name: value + 0.1 for name, value in weak.items()}
    assert compare_abilities(strong, weak, num_bootstrap=500).is_better_everywhere
    mixed = {**strong, "b": weak["b"] - 0.1}
    found = compare_abilities(mixed, weak, num_bootstrap=500)
    assert found.inverted == ["b"] and not found.is_better_everywhere
    noise = {name: generator.permutation(value) for name, value in weak.items()}
    unclear = compare_abilities(noise, weak, num_bootstrap=500)
    assert unclear.inverted == [] and not unclear.is_better_everywhere
    slight = {n: v + g - g.mean() + 0.005
              for n, v in weak.items() for g in [generator.normal(size=200)]}  # fmt: skip
    close = compare_abilities(slight, weak, num_bootstrap=500)
    assert min(item.difference.mean for item in close.dimensions.values()) > 0
    assert not close.is_better_everywhere  # by their means, not by their intervals
    with pytest.raises(InputError, match="same dimensions"):
        compare_abilities(strong, {"a": weak["a"]})


def test_kappas_of_the_textbooks():
    left = ["y"] * 25 + ["n"] * 25
    right = ["y"] * 20 + ["n"] * 5 + ["y"] * 10 + ["n"] * 15
    assert cohen_kappa(left, right) == pytest.approx(0.4)
    # Fleiss 1971 as in most tutorials: 10 items, 14 raters, 5 labels, kappa 0.210.
    table = [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    items = [[str(label) for label, n in enumerate(row) for _ in range(n)] for row in table]
    found = fleiss_kappa(np.array(items).T.tolist())
    assert found.mean == pytest.approx(0.2099, abs=1e-4)
    assert found.low < found.mean < found.high
    assert np.isnan(cohen_kappa(["y", "y"], ["y", "y"]))
    with pytest.raises(InputError, match="two judges or more"):
        fleiss_kappa([["a"]])


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


def _charts():
    generator = np.random.default_rng(0)
    difficulty = generator.random(300)
    sizes = [500 * 2**i for i in range(6)]
    rising = curve(sizes, [difficulty < 0.4 + 0.07 * i for i in range(6)], 200)
    higher = curve(sizes, [difficulty < 0.5 + 0.07 * i for i in range(6)], 200)
    texts = {"human": _documents(WORDS, 20, 0), "strong": _documents(WORDS, 20, 1)}
    ability = {name: difficulty + 0.01 * i for i, name in enumerate(("code", "<math>", "logic"))}
    band = {"mean": [0.1, 0.2, 0.3], "low": [0.0, 0.1, 0.2], "high": [0.2, 0.3, 0.4]}
    return {
        "sizes": study_plots.size_curves({"with PMP": higher, "without": rising}, "a", "samples"),
        "multiples": study_plots.multiples_chart(equivalent_samples(higher, rising), "b"),
        "laws": study_plots.scaling_laws_chart(rising, fit_scaling(rising), "c", "pairs"),
        "by_k": study_plots.by_k_chart([1, 2, 4], {"gold": band, "proxy": band}, "d", "accuracy"),
        "radar": study_plots.radar_chart(list(ability), {"strong": [0.9, 0.8, 0.7]}, "e", "radar"),
        "map": study_plots.points_chart({"a": ([0.0, 1.0], [1.0, 0.0])}, "f", "map", ("x", "y")),
        "kl": study_plots.divergence_chart(divergences(texts["human"], texts, 10), "g"),
        "buckets": study_plots.bucket_chart(bucket_table(texts), 1, "h"),
    }


def test_plots_are_svg_in_the_colours_of_the_page_and_readable_without():
    styles = study_plots.STYLES
    assert len({str(line) for _, line, _ in styles}) == len({m for *_, m in styles}) == len(styles)
    for name, drawn in _charts().items():
        root = ElementTree.fromstring(drawn)
        texts = [e.text for e in root.iter("{http://www.w3.org/2000/svg}text")]
        assert texts, name
        assert not re.search(r"#[0-9a-f]{6}\b", drawn), f"{name}: a colour of its own"
        assert root.get("aria-label"), name
        if name == "radar":
            assert "<math>" in texts
