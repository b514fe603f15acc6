"""Studies end to end with a tiny model: trained, shared, resumed, reported, and stopped in time."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from codepmp_ray.cluster.laboratory import Laboratory
from codepmp_ray.cluster.study_run import run_study
from codepmp_ray.config.studies import StudiesConfig
from codepmp_ray.studies.bench import Bench
from codepmp_ray.studies.catalogue import STUDIES
from codepmp_ray.studies.outcome import Outcome
from codepmp_ray.studies.report import summary_of, write_reports
from codepmp_ray.studies.study import Context

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
    measured, of_7b = row.ours[:3], row.ours[3:]
    assert all(v is not None and v.low <= v.mean <= v.high for v in measured)
    assert of_7b == [None, None]  # only the paper has a 7B model
    (comparison,) = table1.comparisons
    without, with_pmp = row.ours[:2]
    assert comparison.difference.mean == pytest.approx(with_pmp.mean - without.mean)
    assert comparison.num_seeds == 2 and comparison.detectable > 0
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
    assert str(bench.config.data_dir) not in markdown
    context = Context("table1", bench, bench.config.options("table1"))
    assert context.bench.set("sums").title in html
