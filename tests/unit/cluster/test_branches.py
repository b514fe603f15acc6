"""What a branched run needs before it starts."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from codepmp_ray.cluster.branches import require_branchable
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.errors import ConfigError, InputError
from codepmp_ray.runs import open_stage

SET = [{"kind": "preference", "path": "pairs.jsonl"}]


def recipe_with(run_dir: Path, **sections: Any) -> Recipe:
    return Recipe.model_validate({"run_dir": str(run_dir), **sections})


def finish(recipe: Recipe, *stages: str) -> None:
    for name in stages:
        open_stage(recipe, name).complete({})


def test_sets_of_ones_own_need_no_synthesis_and_no_candidates(tmp_path: Path) -> None:
    recipe = recipe_with(
        tmp_path, pretraining={"data": SET}, finetuning={"data": SET}, branches={"evaluate": False}
    )
    require_branchable(recipe)


@pytest.mark.parametrize(
    ("sections", "finished", "missing"),
    [
        ({"branches": {"finetune": False, "evaluate": False}}, [], "synthesis"),
        ({"pretraining": {"data": SET}}, [], "candidates"),
        ({"pretraining": {"data": SET}, "finetuning": {"data": SET}}, [], "candidates"),
        ({}, ["synthesis", "candidates"], "grades"),
    ],
)
def test_what_is_missing_is_named(
    sections: dict[str, Any], finished: list[str], missing: str, tmp_path: Path
) -> None:
    recipe = recipe_with(tmp_path, **sections)
    finish(recipe, *finished)
    with pytest.raises(InputError, match=missing):
        require_branchable(recipe)


def test_branches_must_end_with_weights_of_their_own(tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path, finetuning={"model_name_or_path": "another"})
    with pytest.raises(ConfigError, match=r"finetuning\.model_name_or_path"):
        require_branchable(recipe)


def test_every_branch_is_finetuned_and_evaluated_from_its_own_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With trainings that only say where they would begin."""
    from codepmp_ray.cluster import branches, training
    from codepmp_ray.command import evaluation, train

    pmp: list[str] = []
    followed: list[tuple[str, str]] = []

    def fake_pretrain(recipe: Recipe, trunk: object = None) -> dict[str, int]:
        stage = open_stage(recipe, "pretraining")
        pmp.append(stage.uri)
        num_steps = recipe.pretraining.max_steps or 10
        counts = {"num_pairs_seen": 5 * num_steps, "num_tokens": 500 * num_steps}
        stage.complete({"num_steps": num_steps, **counts})
        return stage.summary()

    def fake_finetune(recipe: Recipe) -> None:
        followed.append(("finetune", open_stage(recipe, "pretraining").require().uri))

    def fake_evaluate(recipe: Recipe) -> None:
        followed.append(("evaluate", open_stage(recipe, "pretraining").uri))

    monkeypatch.setattr(branches, "pretrain", fake_pretrain)
    monkeypatch.setattr(training, "finetune", fake_finetune)
    monkeypatch.setattr(evaluation, "bon", fake_evaluate)
    monkeypatch.setattr("codepmp_ray.cluster.connect.connect", nullcontext)
    sections = {"pretraining": {"data": SET}, "branches": {"factor": 1.5, "num_branches": 2}}
    recipe = recipe_with(tmp_path, **sections)
    finish(recipe, "candidates", "grades")
    train.branch(recipe)
    assert len(set(pmp)) == 3
    assert followed == [(job, uri) for uri in pmp for job in ("finetune", "evaluate")]
