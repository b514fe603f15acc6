"""Names of metrics are those that TRL's RewardTrainer logs, and of DPO those of its DPOTrainer."""

import inspect
import re

import pytest

from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.modeling.objectives import make_objective
from codepmp_ray.preference.items import EncodedItem
from codepmp_ray.training.evaluation import _merged
from codepmp_ray.training.step import StepResult
from codepmp_ray.training.task import best_step

# Of its tokens, not of the two responses; what a run of ours knows is in other columns.
NOT_OURS = {"entropy", "mean_token_accuracy", "aux_loss"}


def names_of(trainer: type) -> set[str]:
    return set(re.findall(r'self\._metrics\[mode\]\["([\w/]+)"\]', inspect.getsource(trainer)))


def test_rewards_have_trls_names() -> None:
    trl = pytest.importorskip("trl", reason="an extra that the dev extra installs")
    theirs = names_of(trl.RewardTrainer)
    rewards = dict.fromkeys(StepResult.REWARDS, 0.5)
    ours = StepResult(0.1, {"rm": 0.1}, rewards, num_pairs=2, num_tokens=9).row()
    assert {"accuracy", "margin", "mean_reward", "num_tokens"} <= theirs <= set(ours)


def test_dpo_has_the_names_of_trls_dpo_beside() -> None:
    trl = pytest.importorskip("trl", reason="an extra that the dev extra installs")
    theirs = names_of(trl.DPOTrainer) - NOT_OURS
    rewards = dict.fromkeys(StepResult.REWARDS, 0.5)
    policy = dict.fromkeys(StepResult.POLICY, 0.25)
    ours = StepResult(0.1, {"dpo": 0.1}, rewards, 2, 9, policy).row()
    assert set(StepResult.POLICY) <= theirs <= set(ours)
    assert ours["accuracy"] == 0.5 and ours["rewards/accuracies"] == 0.25


def test_parts_of_an_evaluation_are_weighted_by_pairs_and_by_the_tokens_of_each_side() -> None:
    class Runner:
        objective = make_objective("dpo")

    chunks = [
        [EncodedItem.of_pair("a", [1], [2] * 3, [3])],
        [
            EncodedItem.of_pair("b", [1], [2], [3] * 2),
            EncodedItem.of_pair("c", [1], [2] * 4, [3] * 5),
        ],
    ]
    counts = Runner.objective.counts(chunks[1])
    assert (counts["pair"], counts["token"], counts["rejected_token"]) == (2, 5, 7)
    parts = [
        (
            chunk,
            StepResult(
                value, {"dpo": value}, dict.fromkeys(StepResult.REWARDS, value), len(chunk), 9,
                dict.fromkeys(StepResult.POLICY, value),
            ),
        )
        for chunk, value in zip(chunks, (0.0, 1.0), strict=True)
    ]  # fmt: skip
    row = _merged(Runner(), parts)  # pyright: ignore[reportArgumentType]
    for name in ("rewards/chosen", "rewards/margins", "logps/rejected", "accuracy", "loss_dpo"):
        assert row[name] == pytest.approx(2 / 3), name
    assert row["logits/chosen"] == pytest.approx(5 / 8)
    assert row["logits/rejected"] == pytest.approx(7 / 8)


def test_the_best_step_is_found_by_the_names_of_dpo_and_only_with_dpo() -> None:
    settings = {"eval_steps": 2, "best_metric": "eval_rewards/accuracies"}
    config = TrainingConfig.model_validate({**settings, "objective": "dpo"})
    rows = [{"step": i, "eval_loss": i, "eval_rewards/accuracies": (i * 3) % 7} for i in range(7)]
    assert best_step(config, rows) == 2
    with pytest.raises(ValueError, match=r"eval_rewards/accuracies is not measured.*objective=rm"):
        TrainingConfig.model_validate({**settings, "objective": "rm"})
