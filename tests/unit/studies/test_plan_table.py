"""A recipe is planned without data, hub, tokenizers or GPUs, and what is missing is named once."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from codepmp_ray.config.studies import StudiesConfig, load_studies
from codepmp_ray.studies import plan_table, sets
from codepmp_ray.studies.catalogue import STUDIES, find_studies
from codepmp_ray.studies.plan_table import StudyPlan, plan_studies, print_plans
from tests.unit.studies.conftest import MakeBench

RECIPES = sorted((Path(__file__).resolve().parents[3] / "jobs/recipes/studies").glob("*.yaml"))


@pytest.fixture
def without_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sets, "is_hub_reachable", lambda: False)
    monkeypatch.setattr(plan_table, "is_hub_reachable", lambda: False)


def _config(tmp_path: Path, **changes: Any) -> StudiesConfig:
    fields: dict[str, Any] = {
        "run_dir": str(tmp_path / "run"),
        "models": {"m": {"model_name_or_path": "someone/m"}},
        "sets": {
            "code": {"paths": ["code"], "made_by": "python -m jobs.synthesize"},
            "hh": {"kind": "hh_rlhf"},
        },
        "code_pairs": ["code"],
        "pmp_pairs": 2048,
        "pairs_per_s": 10,
        "overhead_s": 5,
        "tokens_per_pair": 300,
        "scoring": {"tokens_per_s": 1000},
        "defaults": {"seeds": 2, "num_train": 256, "num_test": 100, "sets": ["hh"]},
        "studies": {"table1": {}, "table6": {}},
    }
    return StudiesConfig.model_validate(fields | changes)


def test_trainings_tokens_and_times_follow_from_the_recipe(
    tmp_path: Path, without_hub: None
) -> None:
    first, again = plan_studies(find_studies(["table1", "table6"]), _config(tmp_path))
    # Of each seed PMP, and reward models with and without it.
    assert (first.num_trainings, first.num_new) == (6, 6)
    assert first.num_tokens == 300 * 2 * (2048 + 256 + 256)
    assert first.training_s == pytest.approx(2 * ((2048 + 2 * 256) / 10 + 3 * 5))
    # Two models of each seed score two sides of 100 test pairs.
    assert first.scoring_s == pytest.approx(2 * 2 * 100 * 2 * 200 / 1000)
    assert (again.num_trainings, again.num_new, again.num_tokens) == (6, 0, 0)  # shared
    assert not (tmp_path / "run").exists()


def test_reward_models_at_hand_are_scored_and_looked_for(tmp_path: Path, without_hub: None) -> None:
    config = _config(
        tmp_path,
        rewards={name: {"model_name_or_path": str(tmp_path / name)} for name in ("a", "b")},
        studies={
            "table1": {"rewards": ["a", "b"]},
            "table6": {"rewards": ["a"], "train_arms": False},
        },
    )
    both, alone = plan_studies(find_studies(["table1", "table6"]), config)
    own_s = 2 * 2 * 100 * 2 * 200 / 1000
    # Each scores the pairs once, as one of the four models that are trained.
    assert both.scoring_s == pytest.approx(own_s * (1 + 2 / 4))
    assert (alone.num_trainings, alone.training_s) == (0, 0)
    assert alone.scoring_s == pytest.approx(own_s / 4)
    assert {"a", "b"} <= set(both.missing) and "rewards.a.model_name_or_path" in both.missing["a"]


def test_what_is_missing_is_named_with_its_command(tmp_path: Path, without_hub: None) -> None:
    config = _config(tmp_path)
    (plan,) = plan_studies(find_studies(["table1"]), config)
    assert set(plan.missing) == {"code", "hh", "someone/m"}
    shown = io.StringIO()
    print_plans([plan, plan], config, Console(file=shown, width=400))
    text = shown.getvalue()
    assert text.count("`python -m jobs.synthesize` makes it.") == 1
    assert "Anthropic/hh-rlhf of the hub is out of reach" in text
    assert "someone/m is a model of the hub, which does not answer." in text
    assert "2 studies: 12 different trainings" in text


def test_what_is_here_is_not_called_missing_and_is_not_read(
    make_bench: MakeBench, tmp_path: Path, without_hub: None
) -> None:
    config = make_bench().config
    (tmp_path / "sums.jsonl").write_text("no JSON\n")
    (plan,) = plan_studies(find_studies(["table1"]), config)
    assert plan.missing == {} and plan.num_trainings == 7 and not plan.error  # with a warm-up


def test_a_study_that_cannot_be_planned_says_so(tmp_path: Path, without_hub: None) -> None:
    (plan,) = plan_studies(find_studies(["figure6"]), _config(tmp_path))
    assert "Set studies.figure6.train_set" in plan.error and plan.num_trainings == 0


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_can_be_planned_where_nothing_of_it_is(
    path: Path, tmp_path: Path, without_hub: None
) -> None:
    config = load_studies(path, [f"run_dir={tmp_path / 'run'}"])
    plans: list[StudyPlan] = plan_studies(find_studies(config.studies), config)
    assert [plan.error for plan in plans] == [""] * len(plans)
    by_name = dict(zip(config.studies, plans, strict=True))
    trained = {name for name, plan in by_name.items() if plan.num_trainings}
    assert trained & {"seed004", "evidence"} and len(STUDIES) >= len(plans)
    assert all(plan.training_s > 0 or not plan.num_new for plan in plans)
    if path.stem == "gpu":
        assert {"code", "Qwen/Qwen2-7B"} <= set(by_name["table3"].missing)
        missing = by_name["figure6"].missing
        assert {"description_clip", "same_model", "source_weak", "webpage"} <= set(missing)
        assert "pairs-webpage.yaml" in missing["webpage"]
