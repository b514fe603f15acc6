"""Pairs for trainings, keys of trainings and costs: functions of the recipe and the rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from codepmp_ray.config.studies import StudiesConfig, StudyOptions, load_studies
from codepmp_ray.errors import ConfigError, InputError
from codepmp_ray.studies.bench import Bench
from codepmp_ray.studies.cost import RECORD, Rates, own_pairs
from codepmp_ray.studies.trainings import Arm, Pairs

ROOT = Path(__file__).resolve().parents[3]
RECIPES = sorted((ROOT / "jobs" / "recipes" / "studies").glob("*.yaml"))
LAPTOP = ROOT / "jobs" / "recipes" / "studies" / "laptop.yaml"


@pytest.fixture
def bench(tmp_path: Path, tiny_model_dir: Path) -> Bench:
    rows = [
        {"prompt": f"p{i // 2}", "chosen": f"yes {i}" + " x" * i, "rejected": f"no {i}"}
        for i in range(60)
    ]
    for name in ("a", "b"):
        text = "".join(json.dumps({**row, "chosen": name + row["chosen"]}) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text)
    return Bench(_config(tmp_path, tiny_model_dir))


def _config(tmp_path: Path, tokenizer: Path, **changes: Any) -> StudiesConfig:
    fields = {
        "run_dir": str(tmp_path / "run"),
        "data_dir": str(tmp_path),
        "models": {"trend": {"tokenizer": str(tokenizer), "warmup_pairs": 10}},
        "sets": {name: {"paths": [f"{name}.jsonl"], "test_fraction": 0.4} for name in ("a", "b")},
        "code_pairs": ["a", "b"],
        "pmp_pairs": 40,
        "branches": {"factor": 2.0, "num_branches": 2},
        "pmp": {"objective": "pmp", "batch_size": 4, "max_length": 130, "decay_ratio": 0.25},
        "rm": {"objective": "rm", "batch_size": 4, "max_length": 130, "schedule": "cosine"},
    }
    return StudiesConfig.model_validate(fields | changes)


def _ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["pair_id"] for row in rows]


def test_what_warms_up_a_model_is_not_pretrained_on(bench: Bench) -> None:
    first = bench.pairs.rows(Pairs(("a", "b"), 40, "first"), "trend")
    last = bench.pairs.rows(Pairs(("a", "b"), 10, "last"), "trend")
    assert len(first) == 40 and len(last) == 10 and not set(_ids(first)) & set(_ids(last))


def test_pairs_fit_the_length_and_subsets_are_nested_by_seed(bench: Bench) -> None:
    every = bench.pairs.rows(Pairs(("a",), 1000, seed=1), "trend")
    assert 0 < len(every) < len(bench.set("a").train)  # byte tokens: the longest do not fit
    assert all(bench.pairs.num_tokens(row, "trend") <= 130 for row in every)
    few = bench.pairs.rows(Pairs(("a",), 8, seed=1), "trend")
    assert _ids(few) == _ids(every)[:8]
    assert len({row["problem_id"] for row in few}) == 8  # other questions before second pairs
    assert _ids(bench.pairs.rows(Pairs(("a",), 8, seed=2), "trend")) != _ids(few)


def test_test_pairs_are_whole_questions_that_nothing_trains_on(bench: Bench) -> None:
    test = bench.pairs.test_pairs("a", 6, "trend")
    trained = {row["problem_id"] for row in bench.set("a").train}
    assert not trained & set(test.problems) and len(test.rows) >= 6
    assert all(test.problems.count(problem) == 2 for problem in test.problems)
    with pytest.raises(InputError, match=r"a.jsonl below data_dir, which is not set"):
        Bench(bench.config.model_copy(update={"data_dir": None})).pairs.test_pairs("a", 6, "trend")


def test_equal_trainings_have_one_key_and_anything_else_another(
    bench: Bench, tmp_path: Path, tiny_model_dir: Path
) -> None:
    pmp = bench.plans.pmp(0, "trend")
    key = bench.key(bench.plans.rm(pmp, ("b",), 8, 0))
    assert key == bench.key(bench.plans.rm(bench.plans.pmp(0, "trend"), ("b",), 8, 0))
    other_rate = bench.config.rm.model_copy(update={"learning_rate": 0.5})
    others = [
        bench.plans.rm(pmp, ("b",), 9, 0),
        bench.plans.rm(pmp, ("b",), 8, 1),
        bench.plans.rm(bench.plans.pmp(1, "trend"), ("b",), 8, 0),
        bench.plans.rm("trend", ("b",), 8, 0),
        Bench(bench.config.model_copy(update={"rm": other_rate})).plans.rm(pmp, ("b",), 8, 0),
    ]
    assert len({key, *map(bench.key, others)}) == 6
    workers = bench.config.rm.model_copy(update={"num_workers": 7})  # does not change the result
    moved = _config(tmp_path, tiny_model_dir, run_dir=str(tmp_path / "elsewhere"))
    same = Bench(moved.model_copy(update={"rm": workers}))
    assert same.key(same.plans.rm(same.plans.pmp(0, "trend"), ("b",), 8, 0)) == key


def test_a_family_shares_its_pairs_and_its_members_are_what_they_say(bench: Bench) -> None:
    whole, *branches = bench.plans.pmp_family(0, "trend")
    assert bench.plans.pmp_pairs_of(whole) == 40
    assert [bench.plans.pmp_pairs_of(branch) for branch in branches] == [20, 8]
    # A quarter of its steps is decay, which is all that a branch computes.
    assert [own_pairs(bench, member) for member in (whole, *branches)] == [40, 8, 4]


def test_a_cost_counts_what_is_missing_and_learns_from_what_was_timed(bench: Bench) -> None:
    training = bench.plans.rm(bench.plans.pmp(0, "trend"), ("b",), 8, 0)
    arms = [Arm("x", (training,)), Arm("again", (training,))]
    cost = Rates(bench).cost(arms, 100, "trend")
    assert (cost.num_trainings, cost.num_done, cost.is_assumed) == (3, 0, True)
    config = bench.config
    assert cost.training_s == pytest.approx(
        (10 + 40 + 8) / config.pairs_per_s + 3 * config.overhead_s
    )
    config.models["trend"] = config.models["trend"].model_copy(update={"speed": 0.1})
    slower = Rates(bench).cost(arms, 100, "trend")
    assert slower.training_s == pytest.approx(580 / config.pairs_per_s + 3 * config.overhead_s)
    assert slower.scoring_s == pytest.approx(10 * cost.scoring_s)
    record = {
        "base": "trend", "objective": "rm", "num_own_pairs": 100, "busy_s": 50, "duration_s": 52,
    }  # fmt: skip
    bench.store.put(f"trainings/{'0' * 12}/{RECORD}", json.dumps(record).encode())
    assert Rates(bench).training_s(training) == (8 * 0.5 + 2, False)
    # Nothing is known of PMP, but of the model.
    assert Rates(bench).training_s(bench.plans.pmp(0, "trend")) == (40 * 0.5 + 2, True)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_of_studies_parses_and_names_studies_that_there_are(path: Path) -> None:
    from codepmp_ray.studies.catalogue import STUDIES

    config = load_studies(path)
    assert config.name == path.stem
    assert set(config.studies) <= set(STUDIES)


def test_the_laptops_recipe_has_all_studies_within_two_hours() -> None:
    from codepmp_ray.studies.catalogue import STUDIES

    config = load_studies(LAPTOP)
    assert set(config.studies) == set(STUDIES) - {"evidence"}  # which has recipes of its own
    budgets = [config.options(name).budget_min for name in config.studies]
    assert None not in budgets
    assert config.budget_min is not None and config.budget_min <= 115  # two hours, start included
    assert sum(filter(None, budgets)) <= 1.1 * config.budget_min  # the last ones get theirs, too


def test_the_gpu_recipe_has_all_studies_and_the_papers_settings(tmp_path: Path) -> None:
    from codepmp_ray.studies.catalogue import STUDIES
    from codepmp_ray.studies.plan_table import AssumedBench

    config = load_studies(LAPTOP.with_name("gpu.yaml"), [f"run_dir={tmp_path}"])
    # All its weights are trained, and `evidence` has a recipe of its own.
    assert set(config.studies) == set(STUDIES) - {"table1_smollm2", "evidence"}
    assert config.budget_min is None
    assert all(config.options(name).budget_min is None for name in config.studies)
    plans = AssumedBench(config).plans
    # (PMP rate, RM rate and warmup for mathematics, for logic); Tables 7, 8 and 9.
    for model, pmp_rate, math, logic in (
        ("qwen2-1.5b", 3e-6, (1e-6, 0.03), (1e-5, 0.25)),
        ("qwen2-7b", 1e-6, (3e-7, 0.03), (1e-5, 0.25)),
    ):
        pmp = plans.pmp(0, model).config
        assert pmp.learning_rate == pmp_rate
        assert (pmp.batch_size, pmp.schedule, pmp.warmup_ratio) == (1024, "wsd", 0.03)
        assert (pmp.decay_ratio, pmp.weight_decay, pmp.max_length) == (0.1, 0.1, 1024)
        for name, expected in (("math_shepherd", math), ("reclor", logic), ("logiqa2", logic)):
            rm = plans.rm(model, (name,), 64, 0).config
            assert (rm.learning_rate, rm.warmup_ratio) == expected
            assert (rm.batch_size, rm.schedule, rm.weight_decay) == (64, "cosine", 0.0)
            assert (rm.num_train_epochs, rm.max_length) == (1, 1024)
        mixed = plans.rm(model, ("math_shepherd", "reclor"), 64, 0).config
        assert (mixed.learning_rate, mixed.warmup_ratio) == math


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("studies.table1.num_tran=3", ["studies.table1.num_tran", "num_train?"]),
        ("studies.table1.sets=[nope]", ["table1", "'nope'", "not among sets"]),
        ("defaults.model=nope", ["'nope'", "not among models"]),
        ("code_pairs=[nope]", ["'nope'", "not among sets"]),
        ("pools.gsm8k.test_of=nope", ["test_of='nope'"]),
        ("sets.gsm8k.paths=[]", ["kind=gsm8k_solutions needs paths"]),
    ],
)
def test_bad_values_name_the_value_and_the_remedy(override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_studies(LAPTOP, [override])
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_studys_options_go_over_the_defaults() -> None:
    defaults = StudyOptions(seeds=2, num_test=400)
    assert StudyOptions(seeds=3).over(defaults) == StudyOptions(seeds=3, num_test=400)
