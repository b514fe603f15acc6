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


@pytest.mark.parametrize("schedule", ["wsd", "cosine"])
@pytest.mark.parametrize("total", [1, 2, 3])
def test_no_step_is_wasted_on_a_rate_of_zero(schedule: str, total: int) -> None:
    assert min(rates(total, schedule=schedule, warmup_ratio=0.1, decay_ratio=0.2)) > 0
