"""All figures of a pool at once."""

import json

import numpy as np
import pytest

from benchmarks.evaluation_statistics import made_up_pool
from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.pool_report import MAIN, PoolArrays, Settings, measure_pools

FEW = Settings(num_bootstrap=400, num_draws=20)


def test_a_made_up_pool_is_measured_as_it_was_made():
    found = measure_pools(made_up_pool(60, 16), settings=FEW)
    json.dumps(found, allow_nan=False)
    assert found["k"] == [1, 2, 4, 8, 16]
    last = {name: curve["accuracy"][-1] for name, curve in found["series"].items()}
    assert last["oracle"] >= last[MAIN] > last["second"] - 0.05 > last["random"]
    # Length and generator know nothing in a pool that was drawn without them.
    assert abs(last["length"] - last["random"]) < 0.2
    for curve in found["series"].values():
        assert all(np.less_equal(curve["low"], curve["high"]))
        assert curve["accuracy"][0] == pytest.approx(last["random"], abs=0.05)
    random = next(c for c in found["comparisons"] if (c["left"], c["right"]) == (MAIN, "random"))
    assert random["low"] > 0
    assert random["holm_p_value"] >= random["test_p_value"]
    assert found["note"].startswith("Of 9 comparisons")


def test_without_scores_there_are_baselines_and_no_comparison():
    found = measure_pools(PoolArrays(passed=[[1, 0], [0, 0]]), settings=FEW)
    assert set(found["series"]) == {"random", "oracle"}
    assert found["comparisons"] == [] and found["note"] == ""


def test_one_candidate_equal_scores_and_nan_have_defined_values():
    one = measure_pools(PoolArrays([[1], [0]], {MAIN: [[3.0], [3.0]]}), settings=FEW)
    assert one["series"][MAIN]["accuracy"] == [0.5]
    nan = float("nan")
    pools = PoolArrays([[1, 0], [1, 0]], {MAIN: [[nan, nan], [1.0, 1.0]]}, groups=[[0, 1], [0, 1]])
    with pytest.raises(InputError, match="not a number"):
        measure_pools(pools, settings=FEW)
    lenient = Settings(num_bootstrap=400, num_draws=20, nan_scores="last")
    found = measure_pools(pools, settings=lenient)
    assert found["num_nan_scores"] == 2
    assert found["series"][MAIN]["accuracy"] == [0.5, 0.5]
    assert found["series"]["weighted_majority"]["accuracy"] == [0.5, 0.5]


def test_short_and_empty_pools_are_counted():
    pools = PoolArrays([[1, 1], [1, 0]], present=[[True, False], [False, False]])
    found = measure_pools(pools, settings=FEW)
    assert (found["num_short_pools"], found["num_empty_pools"]) == (2, 1)
    assert found["series"]["oracle"]["accuracy"] == [0.5, 0.5]
