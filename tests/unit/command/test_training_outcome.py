"""The last line of the training jobs: objective, model, accuracy, and what went wrong."""

from typing import Any

import pytest

from codepmp_ray.command.train import outcome
from codepmp_ray.config.recipe import Recipe

SUMMARY = {
    "num_steps": 14,
    "num_pairs": 120,
    "sources": {},
    "best_step": None,
    "num_skipped_steps": 0,
    "final_loss": 0.25,
    "eval_loss": 0.5,
    "eval_num_pairs": 13,
    "eval_accuracy_before": 0.0,
    "eval_accuracy": 1.0,
}
OF_SETS = {
    "eval/hard/num_pairs": 7,
    "eval/hard/loss": 0.5,
    "eval/hard/accuracy": 0.75,
    "eval/hard/accuracy_before": 0.25,
}


@pytest.mark.parametrize(("stage", "objective"), [("finetuning", "rm"), ("pretraining", "pmp")])
def test_the_line_names_objective_accuracy_and_model(stage: str, objective: str, tmp_path) -> None:
    line = outcome(Recipe(name="a", run_dir=str(tmp_path)), stage, SUMMARY)
    assert line.startswith(
        f"{objective}: 14 steps on 120 pairs; accuracy on 13 held-out pairs 0.00 -> 1.00; "
    )
    folder = line.split("; model in ")[1]
    assert folder.startswith(f"{tmp_path}/{stage}-") and folder.endswith("/model")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"eval_num_pairs": 0, "eval_loss": None, "eval_accuracy": None}, "no pairs were held out"),
        ({"eval_accuracy": None}, "; loss on 13 held-out pairs 0.500; model"),
        ({"num_skipped_steps": 2}, ", 2 steps skipped (gradient not finite); accuracy"),
        ({"eval_loss": float("nan")}, ", the last loss is not finite; accuracy"),
        ({"final_loss": float("inf")}, ", the last loss is not finite; accuracy"),
        ({"best_step": 8}, ", exported step 8; accuracy"),
        (
            {"best_step": 8, "stopping_step": 12},
            ", stopped early after step 12, exported step 8; accuracy",
        ),
        (OF_SETS, "; accuracy on 13 held-out pairs 0.00 -> 1.00; accuracy on 7 pairs of hard 0.25"),
        (
            OF_SETS | {"eval_num_pairs": 0, "eval_loss": None, "eval_accuracy": None},
            "120 pairs; accuracy on 7 pairs of hard 0.25 -> 0.75; model",
        ),
        ({"eval/hard/num_pairs": 7, "eval/hard/loss": 0.5}, "; loss on 7 pairs of hard 0.500; mo"),
    ],
)
def test_what_is_odd_is_said(changes: dict[str, Any], words: str, tmp_path) -> None:
    assert words in outcome(
        Recipe(name="a", run_dir=str(tmp_path)), "finetuning", SUMMARY | changes
    )
