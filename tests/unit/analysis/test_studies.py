"""Equivalent samples and scaling laws on curves whose answer is known."""

import numpy as np
import pytest

from codepmp_ray.analysis.curves import Curve, curve, equivalent_samples
from codepmp_ray.analysis.scaling_laws import (
    EXPONENT_RANGE,
    FALLING,
    POWER,
    SATURATING,
    UNDECIDED,
    fit_scaling,
)
from codepmp_ray.errors import InputError
from codepmp_ray.estimates import estimate

SIZES = [1_000 * 2**i for i in range(8)]


def _problems(means, num_problems, seed=0):
    """Outcomes of the same problems at every size: a problem is solved above its own difficulty."""
    difficulty = np.random.default_rng(seed).random(num_problems)
    return [(difficulty < mean).astype(float) for mean in means]


def _trainings(means, num_problems=400, seed=0, sd=0.004, num=4):
    """[trainings, problems] at every size; trainings differ by `sd`."""
    generator = np.random.default_rng(seed)
    difficulty = generator.random(num_problems)
    shifts = generator.normal(0, sd, (len(means), num, 1))
    return [
        (difficulty < mean + shift).astype(float) for mean, shift in zip(means, shifts, strict=True)
    ]


def test_a_shifted_curve_is_its_shift_times_as_efficient():
    def accuracy(sizes):
        return [0.5 + 0.05 * np.log2(size / 500) for size in sizes]

    sizes = [500 * 2**i for i in range(8)]
    without = _trainings(accuracy(sizes), 3_000)
    shifted = _trainings(accuracy([6 * size for size in sizes]), 3_000, sd=0.003)
    found = equivalent_samples(sizes, shifted, without)
    assert found.multiple == pytest.approx(6, rel=0.15)
    assert 3 < found.low <= found.multiple <= found.high < 12 and found.largest == 128
    back = equivalent_samples(sizes, without, shifted)
    assert back.multiple == pytest.approx(1 / 6, rel=0.15) and back.high < 1
    same = equivalent_samples(sizes, without, without)
    assert same.multiple == 1 and same.low <= 1 <= same.high


def test_what_the_other_curve_never_reaches_is_a_bound():
    sizes = [10, 20, 40]
    without = _trainings([0.3, 0.4, 0.5])
    above = equivalent_samples(sizes, _trainings([0.9] * 3), without)
    assert np.isinf([above.multiple, above.low, above.high]).all()
    assert above.text == "more than 4 (more than 4 to more than 4)"
    assert above.as_json()["multiple"] is None and above.as_json()["largest"] == 4
    below = equivalent_samples(sizes, _trainings([0.1] * 3), without)
    assert below.multiple == 0 and below.text.startswith("less than 0.25 (")
    with pytest.raises(InputError, match="two sizes or more"):
        equivalent_samples([10], without[:1], without[:1])


def test_two_trainings_bound_no_multiple():
    sizes = [10, 20, 40]
    few = [values[:2] for values in _trainings([0.3, 0.4, 0.5])]
    found = equivalent_samples(sizes, [values + 0.2 for values in few], few)
    assert (found.low, found.high) == (0.0, np.inf)


def test_a_multiple_leaves_out_one_only_where_the_curves_are_told_apart():
    """The comparison of all sizes together and the multiple have one error."""
    sizes = [24, 48, 96, 192, 384]
    for seed in range(12):
        gain = 0.02 * (seed % 4)
        without = _trainings([0.60, 0.64, 0.68, 0.72, 0.76], 260, seed, 0.02)
        higher = _trainings([m + gain for m in (0.60, 0.64, 0.68, 0.72, 0.76)], 260, seed, 0.02)
        higher = [np.roll(values, 1, axis=0) for values in higher]
        found = equivalent_samples(sizes, higher, without)
        together = estimate(np.mean(higher, axis=0) - np.mean(without, axis=0)).interval(0.95)
        if found.low > 1:
            assert together.low > 0
        if together.low <= 0 <= together.high:
            assert found.low <= 1 <= found.high


def _law(floor, factor, exponent):
    return 1 - floor - factor * (np.array(SIZES) / SIZES[0]) ** -exponent


def _noisy(means, sd, num=800, seed=1):
    generator = np.random.default_rng(seed)
    noise = generator.normal(scale=sd, size=(num + 1, len(means)))
    noise[0] *= 0.5
    return Curve(np.array(SIZES, float), means + noise[0], means + noise[0] + noise[1:])


def test_clear_data_decide_between_the_laws():
    power = fit_scaling(_noisy(_law(0.0, 0.5, 0.4), 1e-3))
    assert power.verdict == POWER
    assert power.power.exponent.low < 0.4 < power.power.exponent.high
    assert power.power.exponent.high - power.power.exponent.low < 0.05
    shown = power.power.accuracy(np.array(SIZES))
    np.testing.assert_allclose(shown, _law(0.0, 0.5, 0.4), atol=3e-3)
    ends = fit_scaling(_noisy(_law(0.2, 0.3, 0.7), 1e-3))
    assert ends.verdict == SATURATING
    assert ends.saturating.floor.low < 0.2 < ends.saturating.floor.high
    assert ends.saturating.exponent.low < 0.7 < ends.saturating.exponent.high
    assert ends.curvature.high < 0  # each doubling brings less
    assert ends.saturating.rms < ends.power.rms


@pytest.mark.parametrize(
    ("means", "sd", "words"),
    [
        (_law(0.1, 0.3, 0.3), 0.03, "Both laws fit"),
        (np.full(8, 0.6), 0.02, "no trend is seen"),
    ],
)
def test_noisy_data_do_not(means, sd, words):
    found = fit_scaling(_noisy(means, sd))
    assert found.verdict == UNDECIDED and words in found.reason


@pytest.mark.parametrize(
    "means",
    [[0.80, 0.75, 0.70, 0.60], [0.775, 0.652, 0.745, 0.648], [0.9, 0.9, 0.8, 0.7, 0.6]],
)
def test_a_falling_curve_has_a_verdict_of_its_own(means):
    sizes = [128 * 2**i for i in range(len(means))]
    found = fit_scaling(curve(sizes, _problems(means, 260), 1_000))
    assert found.verdict == FALLING and "falls" in found.reason and found.per_doubling.high < 0


def test_a_fit_that_is_stopped_by_its_range_decides_nothing():
    steep = _noisy(_law(0.2, 0.3, 5.0), 1e-4)
    found = fit_scaling(steep)
    assert found.verdict == UNDECIDED and "edge of its range" in found.reason
    assert found.saturating.exponent.mean > EXPONENT_RANGE[1] / 1.05


def test_an_error_below_the_floor_leaves_no_floor():
    means = _law(0.2, 0.3, 0.7)
    means[-2] += 0.08  # one size comes out far better than those after it
    found = fit_scaling(_noisy(means, 1e-3))
    assert found.verdict == UNDECIDED and "below the floor was seen" in found.reason


@pytest.mark.parametrize(("num", "verdict"), [(1, UNDECIDED), (2, UNDECIDED), (4, SATURATING)])
def test_too_few_trainings_of_a_size_decide_nothing(num, verdict):
    values = _trainings(_law(0.2, 0.3, 0.7), 4_000, 0, 0.001, num)
    found = fit_scaling(curve(SIZES, values, 500))
    assert found.verdict == verdict
    if verdict == UNDECIDED:
        assert f"{num} training(s) of every size are no result" in found.reason


def test_floors_are_seldom_seen_where_there_is_none():
    wrong = [
        fit_scaling(_noisy(_law(0.0, 0.5, 0.3), 0.01, 200, seed)).verdict == SATURATING
        for seed in range(40)
    ]
    assert np.mean(wrong) <= 0.15


def test_few_sizes_decide_nothing():
    means = _law(0.2, 0.3, 0.7)
    whole = _noisy(means, 1e-3)
    for num in (2, 3):
        found = fit_scaling(Curve(whole.sizes[:num], whole.mean[:num], whole.draws[:, :num]))
        assert found.verdict == UNDECIDED and f"{num} sizes" in found.reason


def test_curves_are_resampled_together_and_over_seeds():
    problems = _problems([0.4, 0.6], 400)
    single = curve([1, 2], problems, 400)
    # The same problems: the difference wanders less than each mean.
    assert np.ptp(single.draws[:, 1] - single.draws[:, 0]) < 0.8 * np.ptp(single.draws[:, 0]) + 0.1
    generator = np.random.default_rng(0)
    seeds = 0.5 + 0.1 * generator.normal(size=(4, 1)) + 0.1 * generator.normal(size=(4, 400))
    low, high = np.percentile(curve([1], [seeds], 20_000).draws[:, 0], [2.5, 97.5])
    limits = estimate(seeds).interval(0.95)  # the same error as a single mean has
    assert (low, high) == pytest.approx((limits.low, limits.high), abs=0.01)


@pytest.mark.parametrize(
    ("sizes", "values", "words"),
    [
        ([1, 2], [np.ones(3)], "1 figures were given for 2 sizes"),
        ([2, 1], [np.ones(3)] * 2, "positive and increase"),
        ([1, 2], [np.ones(3), np.ones(4)], "same problems"),
        ([1, 2], [np.ones((2, 3)), np.ones((3, 3))], "same problems"),
        ([1], [np.array([1.0, np.nan])], "no NaN"),
    ],
)
def test_curves_that_do_not_fit_are_refused(sizes, values, words):
    with pytest.raises(InputError, match=words):
        curve(sizes, values)
    with pytest.raises(InputError, match="between 0 and 1"):
        fit_scaling(Curve(np.array([1.0, 2.0]), np.array([0.5, 1.2]), np.zeros((2, 2))))
