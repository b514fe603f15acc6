"""The best evaluated step, and what can be asked for."""

import pytest

from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.training.task import best_step

ROWS = [
    {"step": 0, "eval_loss": 0.1, "eval_accuracy": 0.9},
    {"step": 2, "eval_loss": 0.7, "eval_accuracy": 0.5},
    {"step": 4, "eval_loss": 0.5, "eval_accuracy": 0.8},
    {"step": 6, "eval_loss": 0.5, "eval_accuracy": 0.8},
    {"step": 8, "eval_loss": float("nan"), "eval_accuracy": 0.6},
]


def config(**settings: object) -> TrainingConfig:
    return TrainingConfig.model_validate({"eval_steps": 2, **settings})


def test_losses_are_better_when_small_and_equals_go_to_the_earlier_step() -> None:
    assert best_step(config(best_metric="eval_loss"), ROWS) == 4
    assert best_step(config(best_metric="eval_accuracy"), ROWS) == 4
    assert best_step(config(best_metric="eval_loss"), ROWS[:2]) == 2  # never step 0
    assert best_step(config(best_metric="eval_loss", greater_is_better=True), ROWS) == 2
    assert best_step(config(best_metric="eval_accuracy", greater_is_better=False), ROWS) == 2
    assert best_step(config(best_metric="eval_loss"), ROWS[:1]) is None
    assert best_step(config(), ROWS) is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"best_metric": "eval_loss", "eval_steps": None}, "eval_steps"),
        ({"best_metric": "eval_loss", "eval_fraction": 0}, "eval_fraction"),
        ({"best_metric": "eval_accuracy", "objective": "sft"}, "eval_loss_lm"),
        ({"best_metric": "eval_loss_lm", "objective": "rm"}, "objective=rm"),
        ({"trunk_steps": 10, "max_steps": 11}, "max_steps=11"),
        ({"trunk_steps": 10, "max_steps": 5, "schedule": "cosine"}, "schedule=cosine"),
        ({"min_workers": 4, "num_workers": 2}, "min_workers=4"),
    ],
)
def test_what_cannot_be_is_refused_with_its_value(settings: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        config(**settings)
