"""Reward models at hand: found and known by their weights, and measured beside a study's arms."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codepmp_ray.cluster.study_run import run_study
from codepmp_ray.config.studies import StudyOptions, load_studies
from codepmp_ray.errors import ConfigError, InputError
from codepmp_ray.studies.bench import Bench
from codepmp_ray.studies.catalogue import STUDIES
from codepmp_ray.studies.outcome import Outcome, Table
from codepmp_ray.studies.study import Context
from codepmp_ray.studies.verdicts import conclude, judge
from tests.tiny_models import save_tiny_reward_model
from tests.unit.studies.conftest import MakeBench, measured

RECIPE = Path(__file__).resolve().parents[3] / "jobs" / "recipes" / "studies" / "laptop.yaml"
SCORING = {"max_model_len": 256}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two reward models, whose weights differ."""
    first = save_tiny_reward_model(tmp_path_factory.mktemp("at hand") / "first" / "model")
    second = Path(shutil.copytree(first, first.parents[1] / "second"))
    _change_weights(second)
    return first, second


def _change_weights(folder: Path) -> None:
    from safetensors.numpy import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights["score.weight"] = -weights["score.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture
def bench_of(make_bench: MakeBench, folders: tuple[Path, Path]) -> MakeBench:
    """`make_bench` with both models as `mine` and `other`."""
    first, second = folders
    rewards = {
        "mine": {"model_name_or_path": str(first)},
        "other": {"model_name_or_path": str(second), "title": "the other"},
    }

    def make(*pools: str, **changes: Any) -> Bench:
        return make_bench(*pools, **({"rewards": rewards, "scoring": SCORING} | changes))

    return make


def _ask(bench: Bench, study: str, **options: Any) -> Outcome:
    bench.config.studies[study] = StudyOptions(**options)
    return measured(bench, study)


def _column(table: Table, label: str) -> list[float]:
    at = table.columns.index(label)
    return [value.mean for row in table.rows if (value := row.ours[at]) is not None]


def test_dotted_overrides_name_a_model_for_one_command() -> None:
    given = ["rewards.mine.model_name_or_path=some/folder", "studies.table3.rewards=[mine]"]
    config = load_studies(RECIPE, given)
    assert config.options("table3").rewards == ("mine",) and not config.options("table1").rewards
    everywhere = load_studies(RECIPE, [given[0], "defaults.rewards=[mine]"])
    assert everywhere.options("table1").rewards == ("mine",)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["studies.table3.rewards=[mine]"], ["table3", "'mine'", "not among rewards"]),
        (["rewards.mine.title=x"], ["rewards.mine", "exactly one of", "endpoint"]),
        (
            ["rewards.mine.model_name_or_path=x", "rewards.mine.endpoint=http://x"],
            ["rewards.mine", "exactly one of"],
        ),
        (["rewards.mine.endpoint=localhost:9000"], ["localhost:9000", "http://"]),
        (["rewards.oracle.endpoint=http://x"], ["'oracle'", "rewards.oracle.title"]),
        (
            ["rewards.a={endpoint: http://x, title: b}", "rewards.b.endpoint=http://x"],
            ["rewards.b", "rewards.a", "title"],
        ),
    ],
)
def test_bad_values_name_the_value_and_the_remedy(overrides: list[str], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_studies(RECIPE, overrides)
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_model_is_known_by_its_weights_and_how_it_is_scored_with(
    bench_of: MakeBench, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(folders[0], tmp_path / "moved"))
    rewards = {"mine": {"model_name_or_path": str(moved)}}
    bench, of_moved = bench_of(), bench_of(rewards=rewards)
    mine = bench.reward_model("mine")
    assert mine.model.key == of_moved.reward_model("mine").model.key
    assert mine.model.key != bench.reward_model("other").model.key
    shorter = bench_of(scoring={"max_model_len": 128})
    assert mine.model.key != shorter.reward_model("mine").model.key
    assert mine.model.folder == folders[0] and mine.label == "mine"
    assert "LlamaForSequenceClassification in the folder first/model" in mine.words
    assert str(folders[0]) not in mine.words  # where it lies is nothing for a report

    key = bench.study_key("table1", [], ["mine"])
    assert key not in {bench.study_key("table1", []), bench.study_key("table1", [], ["other"])}
    _change_weights(moved)
    changed = bench_of(rewards=rewards)
    assert mine.model.key != changed.reward_model("mine").model.key
    assert changed.study_key("table1", [], ["mine"]) != of_moved.study_key("table1", [], ["mine"])


def test_what_is_no_exported_reward_model_is_refused_by_name(
    bench_of: MakeBench, tiny_model_dir: Path, folders: tuple[Path, Path]
) -> None:
    for given, words in {
        str(tiny_model_dir): "no codepmp_template.json",
        "some/hub-model": "is no folder",
        "builtin:smollm2-135m-instruct": "is no folder",
        "/nowhere/at/all": "no config.json",
    }.items():
        bench = bench_of(rewards={"mine": {"model_name_or_path": given}})
        with pytest.raises(InputError) as caught:
            bench.reward_model("mine")
        assert words in caught.value.problem
        assert "rewards.mine.model_name_or_path" in str(caught.value)
    with pytest.raises(ConfigError, match=r"scoring\.max_model_len=1024 exceeds the 512"):
        bench_of(scoring={}).reward_model("mine")


def test_accuracy_tables_show_models_at_hand_on_the_same_pairs(bench_of: MakeBench) -> None:
    outcome = _ask(bench_of(), "table1", rewards=["mine", "other"])
    of_arms, at_hand = outcome.tables
    assert at_hand.title == "Reward models at hand" and at_hand.columns == ["mine", "the other"]
    assert [row.label for row in at_hand.rows] == [row.label for row in of_arms.rows] == ["sums"]
    pmp, mine, other = outcome.comparisons
    assert (pmp.num_seeds, mine.num_seeds, other.num_seeds) == (2, 2, 2)
    assert mine.num_problems == pmp.num_problems
    assert mine.question == "sums: mine, at hand, against with PMP"
    (with_pmp,) = _column(of_arms, "with PMP")
    assert mine.difference.mean == pytest.approx(_column(at_hand, "mine")[0] - with_pmp)
    assert [c.about for c in (pmp, mine, other)] == ["pmp", "at hand", "at hand"]
    assert {c.p_value for c in (pmp, mine, other)} == {None}  # two trainings of the arm
    told = conclude(judge([outcome], 0.95).outcomes[0].comparisons)
    assert told.startswith("Not a result, with 2 trainings of an arm")
    assert "Reward models at hand: 2 comparisons are not a result" in told
    three = _ask(bench_of(), "table1", rewards=["mine"], seeds=3)
    assert all(c.p_value is not None and c.num_seeds == 3 for c in three.comparisons)
    assert any("Reward model at hand the other: Llama" in text for text in outcome.differs)
    assert any("says nothing about PMP" in text for text in outcome.differs)


def test_best_of_n_studies_give_models_at_hand_a_curve_and_a_column(bench_of: MakeBench) -> None:
    for name in ("table3", "table4", "table5", "table14"):
        num = 4 if name in ("table3", "table14") else 2
        bench = bench_of("gsm8k")
        outcome = _ask(bench, name, rewards=["mine"], pools=["gsm8k"], sets=["sums"], seeds=2,
                       num_train=8, num_candidates=num)  # fmt: skip
        of_pool, of_choices = outcome.tables
        assert of_pool.columns[:4] == ["without PMP", "with PMP", "mine", "random"]
        assert of_choices.columns == ["without PMP", "with PMP", "mine"]
        for table in outcome.tables:
            assert all(len(r.ours) == len(r.paper) == len(table.columns) for r in table.rows)
        series = {item.label: item for item in outcome.plots[0].series}
        assert series["mine"].y == pytest.approx(_column(of_pool, "mine"))
        assert not series["mine"].is_baseline
        asked = [c.question for c in outcome.comparisons if "mine" in c.question]
        assert len(outcome.comparisons) == 4 and len(asked) == 2
    known = dict(zip(of_pool.columns, of_pool.rows[-1].paper, strict=True))
    assert known["mine"] is None and known["random"] is None


def test_table_12_holds_models_at_hand_against_the_vote(bench_of: MakeBench) -> None:
    bench = bench_of("gsm8k", with_models=False)
    outcome = _ask(bench, "table12", rewards=["mine"], pools=["gsm8k"], num_train=8,
                   num_candidates=4)  # fmt: skip
    (table,) = outcome.tables
    assert table.columns[:3] == ["reward model with PMP", "majority", "mine"]
    assert table.rows[0].paper[:3] == [0.8484, 0.8453, None]
    against = outcome.comparisons[-1]
    assert against.question == "gsm8k-all: mine, at hand, against majority"
    gap = _column(table, "mine")[0] - _column(table, "majority")[0]
    assert against.difference.mean == pytest.approx(gap)
    assert against.num_seeds == 0 and against.p_value is not None  # of two that are at hand


@pytest.mark.parametrize("name", ["table1", "table3", "table12"])
def test_models_at_hand_alone_need_no_training(bench_of: MakeBench, name: str) -> None:
    pools = {"gsm8k": {"path": "gsm8k.jsonl", "stands_for": "GSM8K"}}  # of no set that trains
    bench = bench_of("gsm8k", with_models=False, pools=pools, code_pairs=[])
    outcome = _ask(bench, name, rewards=["mine", "other"], train_arms=False, sets=["sums"],
                   pools=["gsm8k"], num_candidates=4)  # fmt: skip
    context = Context(name, bench, bench.config.options(name))
    assert STUDIES[name].trainings(context) == [] and STUDIES[name].num_tokens(context) == 0
    assert any("Nothing was trained here (train_arms=false)" in t for t in outcome.differs)
    assert not any("PMP on" in text or "instead of Qwen2" in text for text in outcome.differs)
    table = outcome.tables[-1 if name == "table1" else 0]
    assert len(_column(table, "mine")) == len(_column(table, "the other")) > 0
    assert not any("against with PMP" in c.question for c in outcome.comparisons)
    if name == "table1":
        (found,) = outcome.comparisons
        assert found.question == "sums: mine against the other, both at hand"
        gap = np.subtract(_column(table, "mine"), _column(table, "the other"))
        assert found.difference.mean == pytest.approx(gap[0]) and found.num_seeds == 0
        assert found.p_value is not None
    alone = _ask(bench, name, rewards=["mine"], train_arms=False, sets=["sums"],
                 pools=["gsm8k"], num_candidates=4)  # fmt: skip
    assert len(alone.comparisons) == (name == "table12")
    if name == "table3":
        assert _column(table, "with PMP") == [] and table.rows[-1].paper[:2] == [0.8249, 0.84]


def test_what_leaves_nothing_to_measure_says_what_to_set(bench_of: MakeBench) -> None:
    bench = bench_of("gsm8k")
    with pytest.raises(InputError, match="nothing to measure: train_arms=false") as caught:
        _ask(bench, "table3", train_arms=False, pools=["gsm8k"])
    assert "studies.table3.rewards=[NAME]" in caught.value.remedy
    for options in ({"rewards": ["mine"]}, {"train_arms": False}):
        with pytest.raises(InputError, match="no reward models at hand") as caught:
            _ask(bench, "figure8", sizes=[4], sets=["sums"], **options)
        assert "studies.figure8" in caught.value.remedy


def test_a_model_named_for_all_studies_leaves_others_as_they_are(bench_of: MakeBench) -> None:
    plain = bench_of("gsm8k")
    defaults = plain.config.defaults.model_copy(update={"rewards": ("mine",)})
    named = Bench(plain.config.model_copy(update={"defaults": defaults}))
    options = named.config.options("figure8")
    study = STUDIES["figure8"]
    assert options.rewards == ("mine",) and study.rewards(Context("figure8", named, options)) == []
    assert plain.study_key("figure8", []) == named.study_key("figure8", [])
    nobody = named.config.model_copy(
        update={"rewards": {"mine": named.config.rewards["mine"].model_copy(
            update={"model_name_or_path": "/nowhere"})}}
    )  # fmt: skip
    record = run_study(STUDIES["table1"], Bench(nobody))
    assert record["outcome"]["because"] == "data" and "/nowhere" in record["outcome"]["summary"]
