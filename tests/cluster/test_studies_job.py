"""Studies end to end with a tiny model: trained, shared, resumed, reported, and stopped in time."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from codepmp_ray.cluster.laboratory import Laboratory
from codepmp_ray.cluster.study_run import run_study
from codepmp_ray.command import paper
from codepmp_ray.config.studies import StudiesConfig
from codepmp_ray.errors import EngineError
from codepmp_ray.studies.bench import Bench
from codepmp_ray.studies.catalogue import STUDIES
from codepmp_ray.studies.outcome import Outcome
from codepmp_ray.studies.report import summary_of, write_reports
from codepmp_ray.studies.study import Context
from codepmp_ray.weights_digest import weights_digest
from tests.real_service import KEY, serving
from tests.tiny_models import save_tiny_reward_model

# It would train with Ray Train there, which tests/cluster/test_training_job.py covers.
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="trains in process without a GPU")

CODE = '''def {name}(values, limit):
    """Sum of the values below a limit, number {number}."""
    total = {number}
    for value in values:
        if value < limit:
            total += value
    return total
'''
TRAINING = {
    "batch_size": 8,
    "learning_rate": 1e-3,
    "max_length": 512,
    "max_tokens_per_micro_batch": 4096,
    "bf16": False,
    "export_dtype": "float32",
    "num_workers": 1,
    "save_steps": 1000,
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Bench:
    data = tmp_path_factory.mktemp("study data")
    functions = [
        {"path": f"{i}.py", "code": CODE.format(name=f"f{i}", number=i)} for i in range(90)
    ]
    _write(data / "functions.jsonl", functions)
    questions = [
        {
            "question": f"What is {i} and {i}?",
            "candidates": [
                {"text": f"It is {2 * i + j}.", "correct": j == 0, "answer": str(2 * i + j)}
                for j in (0, 1, 2, 0)
            ],
        }
        for i in range(60)
    ]
    _write(data / "questions.jsonl", questions)
    config = {
        "run_dir": str(tmp_path_factory.mktemp("studies run")),
        "data_dir": str(data),
        "models": {
            "trend": {
                "tokenizer": str(tiny_model_dir),
                "hidden_size": 32,
                "intermediate_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "warmup_pairs": 8,
            }
        },
        "sets": {
            "code": {"kind": "python_functions", "paths": ["functions.jsonl"]},
            "sums": {"kind": "gsm8k_solutions", "paths": ["questions.jsonl"]},
            "reclor": {"kind": "reclor", "paths": ["nowhere.jsonl"]},
        },
        "pools": {"sums": {"path": "questions.jsonl", "test_of": "sums"}},
        "code_pairs": ["code"],
        "pmp_pairs": 32,
        "branches": {"factor": 2.0, "num_branches": 1},
        "warmup": {**TRAINING, "objective": "sft"},
        "pmp": {**TRAINING, "objective": "pmp", "decay_ratio": 0.25, "warmup_ratio": 0.2},
        "rm": {**TRAINING, "objective": "rm", "schedule": "cosine"},
        "defaults": {"seeds": 2, "num_train": 16, "num_test": 20, "num_candidates": 4},
        "studies": {
            "table1": {"sets": ["sums", "reclor"]},
            "table3": {"pools": ["sums"]},
            "figure5": {"sets": ["sums"], "seeds": 1},
            "table13": {"sets": ["reclor"]},
        },
    }
    return Bench(StudiesConfig.model_validate(config))


def _write(file: Path, rows: list[dict]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def records(bench: Bench, offline: None) -> dict[str, dict[str, Any]]:
    names = ("table1", "table3", "figure5", "table13")
    return {name: run_study(STUDIES[name], bench) for name in names}


@pytest.fixture(scope="module")
def offline():
    from codepmp_ray.studies import sets

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HF_HUB_OFFLINE", "1")
        sets.is_hub_reachable.cache_clear()
        yield
    sets.is_hub_reachable.cache_clear()


def test_every_study_says_what_it_measured(records: dict[str, dict[str, Any]]) -> None:
    table1 = Outcome.from_json(records["table1"]["outcome"])
    assert table1.status == "measured"
    (row,) = table1.tables[0].rows
    without, with_pmp, longer, style, prior, *of_7b = row.ours
    assert without is not None and with_pmp is not None
    assert without.low is None and with_pmp.low is None  # two trainings say nothing of others
    for rule in (longer, style):
        assert rule is not None and rule.low < rule.high
    assert prior is None  # no model is named
    assert of_7b == [None, None]  # only the paper has a 7B model
    (comparison,) = table1.comparisons
    assert comparison.difference.mean == pytest.approx(with_pmp.mean - without.mean)
    assert comparison.num_seeds == 2
    assert comparison.p_value is None and comparison.detectable is None
    assert any("reclor" in note and "data_dir" in note for note in table1.notes)

    curve = Outcome.from_json(records["table3"]["outcome"])
    by_label = {series.label: series for series in curve.plots[0].series}
    assert set(by_label) >= {"with PMP", "without PMP", "random", "oracle", "majority"}
    assert by_label["with PMP"].y[0] == pytest.approx(
        by_label["random"].y[0]
    )  # of one there is one
    assert by_label["oracle"].y[-1] == 1.0

    scaling = Outcome.from_json(records["figure5"]["outcome"])
    assert scaling.plots[0].series[0].x == [16.0, 32.0]
    assert all(law["verdict"] == "undecided" for law in scaling.facts["laws"].values())

    missing = Outcome.from_json(records["table13"]["outcome"])
    assert missing.status == "not measured" and "nowhere.jsonl" in missing.summary


def test_studies_share_trainings_and_a_finished_one_is_found(
    bench: Bench, records: dict[str, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    made = sorted(bench.store.list("trainings"))
    labels = [
        json.loads((bench.run_dir / "trainings" / key / "training.json").read_text())["label"]
        for key in made
    ]
    # Warm-up, two PMP runs and a branch, four reward models of Table 1, one more of Figure 5.
    assert len(labels) == len(set(labels)) == 9, labels
    again = run_study(STUDIES["table1"], bench)
    assert again == records["table1"] and "measured before" in capsys.readouterr().err
    assert sorted(bench.store.list("trainings")) == made


def _with_rewards(bench: Bench, rewards: dict[str, Any], **studies: Any) -> Bench:
    """The bench's recipe with reward models at hand, in the same run directory."""
    fields = bench.config.model_dump(exclude_unset=True, mode="json")
    fields["scoring"] = {"max_model_len": 256}
    fields["rewards"] = rewards
    fields["studies"] = {**fields["studies"], **studies}
    return Bench(StudiesConfig.model_validate(fields))


def _scores(bench: Bench, name: str) -> list[np.ndarray]:
    key = bench.reward_model(name).model.key
    files = sorted(f for f in bench.store.list("scores") if f.startswith(key))
    return [np.load(bench.run_dir / "scores" / file) for file in files]


def test_models_at_hand_stand_beside_the_arms_in_process_and_served(
    bench: Bench,
    records: dict[str, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    folder = save_tiny_reward_model(tmp_path / "rm" / "model")
    options = {"pools": ["sums"], "rewards": ["mine", "far"]}
    trained = sorted(bench.store.list("trainings"))
    with serving(folder) as url:
        rewards = {
            "mine": {"model_name_or_path": str(folder)},
            "far": {"endpoint": url, "api_key_env": "MY_KEY", "title": "served"},
        }
        asked = _with_rewards(bench, rewards, table3=options)
        record = run_study(STUDIES["table3"], asked)
        in_process, over_http = _scores(asked, "mine"), _scores(asked, "far")
        service = asked.reward_model("far").model.service
        assert service is not None
        again = run_study(STUDIES["table3"], asked)
    outcome = Outcome.from_json(record["outcome"])
    assert outcome.status == "measured" and again == record
    assert sorted(bench.store.list("trainings")) == trained
    assert len(in_process) == len(over_http) == 1 and np.ptp(in_process[0]) > 0.1
    assert over_http[0] == pytest.approx(in_process[0], abs=1e-4)
    (table,) = outcome.tables
    before = Outcome.from_json(records["table3"]["outcome"]).tables[0]
    assert table.columns[:4] == ["without PMP", "with PMP", "mine", "served"]
    assert [row.ours[:2] for row in table.rows] == [row.ours[:2] for row in before.rows]
    for row in table.rows:
        mine, served = row.ours[2:4]
        assert mine is not None and served is not None
        assert served.mean == pytest.approx(mine.mean)
    questions = [c.question for c in outcome.comparisons]
    assert questions[1:] == [
        f"sums-all, best of 4: {label}, at hand, against with PMP" for label in ("mine", "served")
    ]
    digest = weights_digest(str(folder))[:12]
    told = [text for text in outcome.differs if text.startswith("Reward model at hand")]
    assert len(told) == 2 and all(digest in text for text in told)
    assert "scored in process" in told[0] and f"served as tiny at {url}" in told[1]
    command = f"jobs.study rewards.mine.model_name_or_path={folder}"
    page = Path(write_reports(asked, [record], "at hand", command)).with_suffix(".md").read_text()
    assert "model_name_or_path=MODEL" in page and str(folder) not in page

    # Another model behind the address: not the scores of the first one, and never half of each.
    other = save_tiny_reward_model(tmp_path / "other", pad_is_eos=True)
    with serving(other) as url:
        elsewhere = {"far": {**rewards["far"], "endpoint": url}}
        changed = _with_rewards(bench, elsewhere, table3=options | {"rewards": ["far"]})
        found = changed.reward_model("far").model
        assert found.service is not None and found.key != asked.reward_model("far").model.key
        with pytest.raises(EngineError, match="serves another model than when the study began"):
            replace(service, url=url).rewards(["p"], ["a"])
        monkeypatch.setenv("MY_KEY", "wrong")
        refused = run_study(STUDIES["table3"], Bench(changed.config))
        assert refused["outcome"]["because"] == "data" and "MY_KEY" in refused["outcome"]["remedy"]


@pytest.mark.rehearsal
def test_the_job_measures_a_served_model_alone(
    bench: Bench,
    records: dict[str, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CODEPMP_API_KEY", KEY)
    options = {"sets": ["sums"], "rewards": ["far"], "train_arms": False}
    with serving(save_tiny_reward_model(tmp_path / "rm")) as url:
        alone = _with_rewards(bench, {"far": {"endpoint": url}}, table1=options)
        config = alone.config.model_copy(update={"run_dir": str(tmp_path / "run")})
        paper.run(config, ["table1"])
    shown = capsys.readouterr()
    assert "0 trainings" in shown.err and "1 reward models at hand" in shown.err
    assert "Nothing was trained here" in shown.out and "Reward models at hand" in shown.out
    assert not (tmp_path / "run" / "trainings").exists()
    page = (tmp_path / "run" / "reports" / "table1.html").read_text()
    record = json.loads((tmp_path / "run" / "results" / "table1.json").read_text())
    value = Outcome.from_json(record["outcome"]).tables[-1].rows[0].ours[0]
    assert value is not None and f"{100 * value.mean:.1f}" in page


def test_a_branch_is_the_shorter_run_and_leaves_no_checkpoint(
    bench: Bench, records: dict[str, dict[str, Any]]
) -> None:
    whole, branch = bench.plans.pmp_family(0, "trend")
    assert (whole.config.max_steps, branch.config.max_steps) == (None, 2)
    lab = Laboratory(bench)
    record = json.loads((lab.train(branch).folder.parent / "training.json").read_text())
    assert record["num_own_pairs"] == 8 and record["num_steps"] == 2
    trunk = bench.run_dir / "trunks" / bench.key(whole)
    assert trunk.is_dir() and list(trunk.rglob("*.distcp")) == []


def test_scores_of_other_settings_are_not_taken_for_these(
    bench: Bench, records: dict[str, dict[str, Any]]
) -> None:
    (arm, *_) = STUDIES["table1"].trainings(
        Context("table1", bench, bench.config.options("table1"))
    )
    text = "a long answer " * 40
    found = []
    for limit in (1024, 32, 1024):
        scoring = bench.config.scoring.model_copy(update={"max_model_len": limit})
        lab = Laboratory(Bench(bench.config.model_copy(update={"scoring": scoring})))
        trained = lab.train(arm.by_seed[0])
        found.append(float(lab.book.rewards(trained, ["A question?"], [text])[0]))
        assert lab.book.num_truncated == (limit == 32)
        lab.book.close()
    whole, cut, again = found
    assert whole == again != cut


def test_time_that_is_up_leaves_seeds_out_and_says_so(
    bench: Bench, records: dict[str, dict[str, Any]]
) -> None:
    options = {**bench.config.studies, "table1": bench.config.studies["table1"].model_copy(
        update={"seeds": 3})}  # fmt: skip
    config = bench.config.model_copy(update={"studies": options, "overhead_s": 1e6})
    # Another rate is assumed only where nothing was timed: the third seed's PMP run was not.
    more = Bench(
        config.model_copy(update={"rm": config.rm.model_copy(update={"num_train_epochs": 9})})
    )
    late = run_study(STUDIES["table1"], more, budget_s=1e-3)
    assert late["outcome"]["status"] == "not measured"
    assert late["outcome"]["because"] == "time" and "budget" in late["outcome"]["summary"]
    third = Bench(config)
    part = run_study(STUDIES["table1"], third, budget_s=1e-3)
    assert part["outcome"]["status"] == "partly measured"
    assert "2 of 3 seeds" in part["outcome"]["notes"][0]


def test_the_report_shows_every_number_and_loads_nothing(
    bench: Bench, records: dict[str, dict[str, Any]]
) -> None:
    page = Path(write_reports(bench, list(records.values()), "all", "make reproduce"))
    html, markdown = page.read_text(), page.with_suffix(".md").read_text()
    values = json.loads(page.with_suffix(".json").read_text())
    assert values == summary_of(bench, list(records.values()), "make reproduce") | {
        "written": values["written"]
    }
    assert not re.search(r'(?:src|href)="(?!#)|url\((?!#)|<script|@import', html)
    outcome = Outcome.from_json(records["table1"]["outcome"])
    value = outcome.tables[0].rows[0].ours[1]
    assert value is not None
    for text in (html, markdown):
        assert f"{100 * value.mean:.1f}" in text and "not measured" in text
    assert "two trainings: not a result" in markdown and "p = " not in markdown
    assert values["num_results"] == 0 < values["num_comparisons"]
    assert str(bench.config.data_dir) not in markdown
    context = Context("table1", bench, bench.config.options("table1"))
    assert context.bench.set("sums").title in html
