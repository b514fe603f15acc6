"""The scaling curve: finished runs only, each with what was measured on it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from codepmp_ray.analysis.report import write_report
from codepmp_ray.analysis.scaling import load_scaling, print_scaling
from codepmp_ray.analysis.trainlog import load_training
from codepmp_ray.config.branches import plan_branches
from codepmp_ray.config.recipe import branch_recipe
from codepmp_ray.runs import open_stage


def write(recipe, name: str, num_steps: int, accuracy: float, make_held_out) -> None:
    stage = open_stage(recipe, name)
    stage.start()
    row = make_held_out(num_steps, accuracy)
    stage.store.put("metrics.jsonl", json.dumps(row).encode())
    counts = {"num_pairs_seen": 64 * num_steps, "num_tokens": 9_000 * num_steps}
    stage.complete({"num_steps": num_steps, **counts, "duration_s": 1.0})


@pytest.fixture
def family(make_recipe, make_held_out):
    recipe = make_recipe(
        pretraining={"decay_ratio": 0.2}, branches={"factor": 2.0, "num_branches": 3}
    )
    planned = plan_branches(recipe.pretraining, recipe.branches, 80)
    assert [(b.total_steps, b.leaves_at) for b in planned] == [(40, 32), (20, 16), (10, 8)]
    branches = [branch_recipe(recipe, branch, 80) for branch in planned]
    return recipe, branches


def test_no_branch_means_no_curve(family, make_held_out) -> None:
    recipe, _ = family
    assert load_scaling(recipe) == []
    write(recipe, "pretraining", 80, 0.9, make_held_out)
    assert load_scaling(recipe) == []
    assert 'id="scaling"' not in Path(write_report(recipe)).read_text()


def test_points_are_the_finished_runs_shortest_first(family, make_held_out, maker) -> None:
    recipe, (longest, middle, shortest) = family
    write(recipe, "pretraining", 80, 0.9, make_held_out)
    write(longest, "pretraining", 40, 0.8, make_held_out)
    open_stage(middle, "pretraining").start()  # begun, not finished
    write(shortest, "pretraining", 10, 0.6, make_held_out)
    write(shortest, "finetuning", 5, 0.7, make_held_out)
    evaluated = type(maker)(shortest)
    evaluated.evaluation()

    points = load_scaling(recipe)
    assert [point.num_steps for point in points] == [10, 40, 80]
    assert [point.leaves_at for point in points] == [8, 32, None]
    assert [point.num_pairs for point in points] == [640, 2560, 5120]
    assert [p.pretrained.accuracy for p in points if p.pretrained] == [0.6, 0.8, 0.9]
    first = points[0]
    assert first.finetuned and first.finetuned.accuracy == 0.7
    assert first.best_of_n and (first.best_of_n.k, first.best_of_n.accuracy) == (4, 0.333)
    assert first.best_of_n.random == 0.25 and points[2].best_of_n is None

    page = Path(write_report(recipe)).read_text()
    assert 'id="scaling"' in page and "Accuracy by number of pretraining pairs" in page
    screen = io.StringIO()
    print_scaling(recipe, Console(file=screen, width=200))
    printed = screen.getvalue()
    assert "5,120" in printed and "whole run" in printed and "33.3" in printed


def test_the_held_out_figure_is_that_of_the_exported_step(make_recipe, make_held_out) -> None:
    recipe = make_recipe()
    stage = open_stage(recipe, "pretraining")
    stage.start()
    rows = [make_held_out(2, 0.9), make_held_out(4, 0.5)]
    stage.store.put("metrics.jsonl", "\n".join(map(json.dumps, rows)).encode())
    stage.complete({"best_step": 2})
    held_out = load_training(stage).held_out
    assert held_out and (held_out.step, held_out.accuracy) == (2, 0.9)


def test_evaluations_without_rewards_are_no_optimizer_steps(make_recipe) -> None:
    stage = open_stage(make_recipe(), "pretraining")
    rows = [{"step": 0, "eval_loss": 2.0, "eval_num_pairs": 3}, {"step": 1, "loss": 1.0}]
    stage.store.put("metrics.jsonl", "\n".join(map(json.dumps, rows)).encode())
    data = load_training(stage)
    assert [row["step"] for row in data.steps] == [1] and len(data.evals) == 1
