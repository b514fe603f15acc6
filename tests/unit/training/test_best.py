"""The best evaluated step, and what can be asked for."""

import pytest

from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.training.task import best_step, stopping_step

ROWS = [
    {"step": 0, "eval_loss": 0.1, "eval_accuracy": 0.9},
    {"step": 2, "eval_loss": 0.7, "eval_accuracy": 0.5},
    {"step": 4, "eval_loss": 0.5, "eval_accuracy": 0.8},
    {"step": 6, "eval_loss": 0.5, "eval_accuracy": 0.8},
    {"step": 8, "eval_loss": float("nan"), "eval_accuracy": 0.6},
]
HARD = [{"name": "hard", "path": "hard.jsonl"}]


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
        ({"best_metric": "eval/hard/accuracy"}, "eval/hard/accuracy is not measured"),
        (
            {"best_metric": "eval/hard/loss_lm", "eval_data": HARD, "objective": "rm"},
            "eval/hard/loss_lm is not measured.*eval/hard/loss_rm",
        ),
        ({"best_metric": "eval/hard/loss", "eval_data": HARD, "eval_steps": None}, "eval_steps"),
        ({"early_stopping_patience": 2}, "early_stopping_patience=2.*best_metric"),
        ({"early_stopping_min_delta": 0.1}, "early_stopping_min_delta=0.1.*early_stopping_pat"),
        (
            {
                "best_metric": "eval_loss",
                "early_stopping_patience": 2,
                "trunk_steps": 10,
                "max_steps": 5,
            },
            "trunk_steps=10.*early_stopping_patience=2",
        ),
        ({"eval_data": [*HARD, *HARD]}, "two sources are called 'hard'"),
        ({"data": HARD, "eval_data": HARD}, "two sources are called 'hard'"),
        ({"eval_data": [{**HARD[0], "weight": 2}]}, "'hard' has weight=2"),
        ({"eval_data": [{**HARD[0], "name": "run"}]}, "is called 'run'"),
        ({"trunk_steps": 10, "max_steps": 11}, "max_steps=11"),
        ({"trunk_steps": 10, "max_steps": 5, "schedule": "cosine"}, "schedule=cosine"),
        ({"min_workers": 4, "num_workers": 2}, "min_workers=4"),
    ],
)
def test_what_cannot_be_is_refused_with_its_value(settings: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        config(**settings)


def test_metrics_of_a_named_set_choose_as_those_of_held_out_pairs_do() -> None:
    for name in ("loss", "accuracy"):
        rows = [{"step": r["step"], f"eval/hard/{name}": r[f"eval_{name}"]} for r in ROWS]
        own = config(best_metric=f"eval/hard/{name}", eval_data=HARD, eval_fraction=0)
        assert best_step(own, rows) == best_step(config(best_metric=f"eval_{name}"), ROWS) == 4


def stops_at(values: list[float], patience: int, **settings: object) -> int | None:
    """Of an accuracy that is 1 before training and then has these values."""
    own = config(best_metric="eval_accuracy", early_stopping_patience=patience, **settings)
    rows = [{"step": step, "eval_accuracy": v} for step, v in enumerate([1.0, *values])]
    found = [stopping_step(own, rows[: n + 1]) for n in range(len(rows))]
    # A resumed run sees fewer rows, and decides no earlier and no otherwise.
    assert [step for step in found if step is not None] == [
        step for n, step in enumerate(found) if step is not None and step <= n
    ]
    return found[-1]


def test_early_stopping_counts_evaluations_in_a_row_that_are_not_better() -> None:
    assert stops_at([0.5, 0.6, 0.6, 0.7, 0.7, 0.6], 2) == 6
    assert stops_at([0.5, 0.6, 0.6, 0.7, 0.7], 2) is None
    assert stops_at([0.5, 0.5], 1) == 2
    assert stops_at([0.5, float("nan"), float("nan"), 0.9], 2) == 3
    assert stops_at([float("nan")] * 2, 2) == 2
    assert stops_at([0.5, 0.4, 0.6, 0.5, 0.4], 1, greater_is_better=False) == 3
    # What is better by less counts once it has added up.
    assert stops_at([0.5, 0.54, 0.58, 0.62], 2, early_stopping_min_delta=0.05) is None
    assert stops_at([0.5, 0.54, 0.54, 0.62], 2, early_stopping_min_delta=0.05) == 3
    assert stopping_step(config(best_metric="eval_accuracy"), ROWS) is None
