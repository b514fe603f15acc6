import math

import numpy as np
import pytest

from codepmp_ray.analysis.lengths import LengthStats, length_bias, wilson_interval


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
