"""Schedules of Tables 7 to 9."""

import pytest

from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.training.schedule import learning_rate


def rates(total: int, **settings: object) -> list[float]:
    config = TrainingConfig.model_validate({"learning_rate": 1.0, **settings})
    return [learning_rate(config, step, total) for step in range(total)]


def test_wsd_warms_up_stays_and_decays() -> None:
    curve = rates(100, schedule="wsd", warmup_ratio=0.03, decay_ratio=0.1)
    assert curve[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert set(curve[3:90]) == {1.0}
    assert curve[90:] == pytest.approx([1 - i / 10 for i in range(10)])


def test_cosine_warms_up_and_falls_to_its_floor() -> None:
    curve = rates(100, schedule="cosine", warmup_ratio=0.25, min_lr_ratio=0.1)
    assert max(curve) == curve[24] == 1.0
    assert curve[25:] == sorted(curve[25:], reverse=True)
    assert curve[62] == pytest.approx(0.55, abs=0.02)
    assert 0.1 < curve[-1] < 0.11


def test_linear_falls_on_a_line_and_constant_stays() -> None:
    line = rates(10, schedule="linear", warmup_ratio=0.2, min_lr_ratio=0.2)
    assert line == pytest.approx([0.5, 1.0, *(1.0 - 0.1 * i for i in range(8))])
    flat = rates(10, schedule="constant", warmup_ratio=0.2)
    assert flat == [0.5, *[1.0] * 9]


def test_borders_of_table_7_at_a_thousand_steps() -> None:
    """0.03 warmup and 0.1 decay: 30 steps up, 870 stable, 100 down, each border exact."""
    curve = rates(1000, schedule="wsd", warmup_ratio=0.03, decay_ratio=0.1)
    assert curve[0] == 1 / 30 and curve[28] == 29 / 30 and curve[29] == 1.0
    assert curve[30] == curve[900] == 1.0 and curve[901] == 1 - 1 / 100
    assert curve[999] == pytest.approx(1 / 100)


def test_borders_of_tables_8_and_9_at_a_hundred_steps() -> None:
    for warmup, top in ((0.03, 3), (0.25, 25)):
        curve = rates(100, schedule="cosine", warmup_ratio=warmup)
        assert curve[top - 2] < curve[top - 1] == curve[top] == 1.0 > curve[top + 1]
        middle = (100 + top) / 2
        assert curve[int(middle)] == pytest.approx(0.5, abs=0.03)


def test_a_share_that_is_whole_is_not_rounded_up() -> None:
    assert 0.07 * 100 > 7  # in floating point
    assert rates(100, warmup_ratio=0.07)[6] == 1.0


def test_a_branch_warms_up_as_its_trunk_and_decays_over_its_own_share() -> None:
    trunk = rates(100, warmup_ratio=0.2, decay_ratio=0.1)
    settings = {"max_steps": 50, "trunk_steps": 100}
    branch = rates(50, warmup_ratio=0.2, decay_ratio=0.1, **settings)
    assert branch[:45] == trunk[:45]
    assert branch[45:] == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])


@pytest.mark.parametrize("schedule", ["wsd", "cosine", "linear", "constant"])
@pytest.mark.parametrize("total", [1, 2, 3])
def test_no_step_is_wasted_on_a_rate_of_zero(schedule: str, total: int) -> None:
    assert min(rates(total, schedule=schedule, warmup_ratio=0.1, decay_ratio=0.2)) > 0
