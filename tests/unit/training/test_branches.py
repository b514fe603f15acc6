"""Which shorter runs leave the trunk, and where."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codepmp_ray.config.branches import BranchesConfig, branch_config, plan_branches
from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.training.schedule import learning_rate

CONFIG = TrainingConfig()  # Table 7


def test_lengths_are_geometric_and_the_decay_is_a_share_of_each() -> None:
    planned = plan_branches(CONFIG, BranchesConfig(num_branches=8), 27_000)
    lengths = [branch.total_steps for branch in planned]
    assert lengths[3] == 13_500 and lengths[7] == 6_750  # four times 2^(1/4) is a half
    for longer, shorter in zip([27_000, *lengths], lengths, strict=False):
        assert longer / shorter == pytest.approx(2**0.25, rel=1e-3)
    for branch in planned:
        assert branch.total_steps - branch.leaves_at == -(-branch.total_steps // 10)


def test_no_branch_leaves_during_warmup() -> None:
    config = TrainingConfig(warmup_ratio=0.3)
    planned = plan_branches(config, BranchesConfig(num_branches=50), 1000)
    assert 2 < len(planned) < 50
    assert all(branch.leaves_at >= 300 for branch in planned)


@given(st.integers(1, 3000), st.floats(1.01, 3.0), st.integers(1, 30), st.floats(0.0, 0.7))
def test_until_a_branch_leaves_its_rates_are_the_trunks(
    steps: int, factor: float, num: int, decay: float
) -> None:
    config = TrainingConfig(decay_ratio=decay)
    planned = plan_branches(config, BranchesConfig(factor=factor, num_branches=num), steps)
    lengths = [branch.total_steps for branch in planned]
    assert lengths == sorted(set(lengths), reverse=True) and len(planned) <= num
    for branch in planned:
        own = branch_config(config, branch, steps)
        assert branch.total_steps < steps
        for step in {0, branch.leaves_at // 2, branch.leaves_at - 1}:
            assert learning_rate(own, step, branch.total_steps) == learning_rate(
                config, step, steps
            )
