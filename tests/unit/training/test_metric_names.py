"""Names of metrics are those that TRL's RewardTrainer logs."""

import inspect
import re

import pytest

from codepmp_ray.training.step import StepResult


def test_rewards_have_trls_names() -> None:
    trl = pytest.importorskip("trl", reason="an extra that the dev extra installs")
    source = inspect.getsource(trl.RewardTrainer)
    theirs = set(re.findall(r'self\._metrics\[mode\]\["(\w+)"\]', source))
    rewards = dict.fromkeys(StepResult.REWARDS, 0.5)
    ours = StepResult(0.1, {"rm": 0.1}, rewards, num_pairs=2, num_tokens=9).row()
    assert {"accuracy", "margin", "mean_reward", "num_tokens"} <= theirs <= set(ours)
