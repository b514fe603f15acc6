"""The arm without PMP: what it shares, what is its own, and what is made of both."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from codepmp_ray.analysis.outcomes import load_evaluation
from codepmp_ray.command import run as pipeline
from codepmp_ray.config.recipe import Recipe, parse_recipe
from codepmp_ray.errors import ConfigError, InputError
from codepmp_ray.evaluation.scoring_run import compare_with, recipe_without_pmp
from codepmp_ray.runs import STAGE_JOBS, base_model, open_stage, stage_fingerprints
from codepmp_ray.storage.uris import written_name

OWN = ("finetuning", "evaluation", "scoring")


def recipe(folder: Path, **sections: Any) -> Recipe:
    return parse_recipe({"run_dir": str(folder), **sections}, "test")


def results(right: list[float]) -> dict[str, Any]:
    """Of as many problems, solved or not."""
    share = sum(right) / len(right)
    curve = {"accuracy": [0.2, share], "low": [0.1, share - 0.1], "high": [0.3, share + 0.1]}
    return {
        "num_problems": len(right),
        "bon": {"k": [1, 4], "reward_model": curve},
        "differences": {"reward_model": {"mean": 0.1, "low": 0.0, "high": 0.2, "p_value": 0.1}},
        "picked": {str(number): value for number, value in enumerate(right)},
        "verdict": "It is better.",
    }


def evaluated(of: Recipe, found: dict[str, Any]) -> None:
    stage = open_stage(of, "evaluation")
    stage.start()
    stage.store.put("results.json", json.dumps(found).encode())
    stage.complete({})


@pytest.mark.parametrize(
    "sections",
    [{}, {"pretraining": {"model_name_or_path": "me/base", "revision": "v1"}}],
)
def test_the_arms_share_everything_but_finetuning_and_what_follows(
    tmp_path: Path, sections: dict[str, Any]
) -> None:
    ours = recipe(tmp_path, **sections)
    other = recipe_without_pmp(ours)
    prints = stage_fingerprints(ours), stage_fingerprints(other)
    assert {name for name in prints[0] if prints[0][name] != prints[1][name]} == set(OWN)
    start = other.finetuning
    assert written_name(str(start.model_name_or_path), start.revision) == base_model(ours)
    assert start.learning_rate == ours.finetuning.learning_rate


@pytest.mark.parametrize("key", ["finetuning.model_name_or_path", "serving.model_path"])
def test_a_reward_model_without_this_pmp_has_nothing_to_be_compared(
    tmp_path: Path, key: str
) -> None:
    section, name = key.split(".")
    with pytest.raises(ConfigError, match=rf"{key}=x.*nothing to compare"):
        recipe_without_pmp(recipe(tmp_path, **{section: {name: "x"}}))


def test_the_difference_is_paired_over_problems(tmp_path: Path) -> None:
    ours = recipe(tmp_path)
    other = recipe_without_pmp(ours)
    with pytest.raises(InputError, match="evaluation"):
        compare_with(ours, other)
    left, right = [1.0] * 30 + [0.0] * 30, [1.0] * 15 + [0.0] * 45
    evaluated(ours, results(left))
    evaluated(other, results(right) | {"picked": dict(reversed(results(right)["picked"].items()))})
    found = compare_with(ours, other)
    assert found["difference"]["mean"] == pytest.approx(0.25) and found["difference"]["low"] > 0
    assert (found["accuracy"], found["num_problems"]) == (0.25, 60)
    assert load_evaluation(open_stage(ours, "evaluation"), None, None).without_pmp == found
    assert load_evaluation(open_stage(other, "evaluation"), None, None).without_pmp == {}


def test_results_of_an_earlier_version_are_not_compared(tmp_path: Path) -> None:
    ours = recipe(tmp_path)
    for arm in (ours, recipe_without_pmp(ours)):
        evaluated(arm, {"bon": {}, "verdict": ""})
    with pytest.raises(InputError, match="no picks by problem"):
        compare_with(ours, recipe_without_pmp(ours))


def test_the_main_job_runs_the_other_arm_after_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[tuple[str, bool]] = []

    def stage(name: str) -> Callable[[Recipe], None]:
        def run(of: Recipe) -> None:
            ran.append((name, of.finetuning.model_name_or_path is None))
            if name == "evaluation":
                evaluated(of, results([1.0, 0.0] if ran[-1][1] else [0.0, 0.0]))
            else:
                open_stage(of, name).complete({})

        return run

    monkeypatch.setattr(pipeline, "_makers", lambda: {name: stage(name) for name in STAGE_JOBS})
    monkeypatch.setattr("codepmp_ray.cluster.connect.connect", nullcontext)
    monkeypatch.setattr("codepmp_ray.analysis.report.write_report", lambda _: None)
    ours = recipe(tmp_path)
    pipeline.run(ours)
    assert ran == [(name, True) for name in STAGE_JOBS]
    pipeline.run(ours, compare=True)
    assert ran[len(STAGE_JOBS) :] == [("finetuning", False), ("evaluation", False)]
    told = capsys.readouterr()
    assert "[9/9] evaluation without PMP: running" in told.err
    assert "[7/9] evaluation: done before" in told.err and "It is better." in told.out
    stored = open_stage(ours, "evaluation").store.read_bytes("without_pmp.json")
    assert json.loads(stored)["difference"]["mean"] == 0.5
