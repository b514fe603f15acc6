"""The registered experiment in small: seeds kept as they are done, the page from what was kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from codepmp_ray.cluster.study_run import run_study
from codepmp_ray.command.paper import run
from codepmp_ray.config.studies import StudiesConfig, load_studies
from codepmp_ray.errors import ConfigError, InputError
from codepmp_ray.studies import kept
from codepmp_ray.studies.bench import Bench
from codepmp_ray.studies.catalogue import STUDIES, evidence, evidence_figures
from codepmp_ray.studies.outcome import Outcome
from codepmp_ray.studies.study import Context

pytestmark = [
    pytest.mark.rehearsal,
    pytest.mark.skipif(torch.cuda.is_available(), reason="trains in process without a GPU"),
]
STUDY = STUDIES["evidence"]
MODELS = {"evidence": "smollm2", "evidence-h200": "coder-0.5b"}  # of the shipped recipes


def _write(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def overrides(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> list[str]:
    """The shipped recipe over tiny data: of two models one is right, in two fifths the weaker."""
    data = tmp_path_factory.mktemp("evidence data")
    questions = [
        {"question": f"{i} and {i}?", "ground_truth": "-"}
        | {
            name: {"is_correct": (i % 5 < 2) == (name == "6b"), "solution": f"{name} says {i}."}
            for name in ("6b", "175b")
        }
        for i in range(60)
    ]
    _write(data / "solutions.jsonl", questions)
    pairs = [
        {"prompt": f"make {i}", "chosen": f"good {i}", "rejected": f"bad {i}", "pair_id": f"{i}"}
        for i in range(40)
    ]
    _write(data / "pairs.jsonl", pairs)
    small = {
        "data_dir": str(data),
        **{
            f"models.{name}.{key}": value
            for name in MODELS.values()
            for key, value in (("model_name_or_path", str(tiny_model_dir)), ("bf16", False))
        },
        "sets.code.paths": ["pairs.jsonl"],
        "sets.gsm8k.paths": ["solutions.jsonl"],
        "sets.gsm8k_all.paths": ["solutions.jsonl"],
        "sets.code.test_fraction": 0.2,
        "pmp_pairs": 16,
        "pmp.bf16": False,
        "rm.bf16": False,
        "studies.evidence.num_train": 8,
        "studies.evidence.seeds": 3,
        "studies.evidence.sizes": [4, 8],
        "studies.evidence.num_draws": 3,
    }
    return [f"{key}={json.dumps(value)}" for key, value in small.items()]


def _config(
    overrides: list[str], run_dir: Path, keep: Path, *more: str, recipe: str = "evidence"
) -> StudiesConfig:
    places = [f"run_dir={run_dir}", f"studies.evidence.keep_dir={keep}"]
    others = {f"models.{model}." for name, model in MODELS.items() if name != recipe}
    of_recipe = [text for text in overrides if not text.startswith(tuple(others))]
    return load_studies(recipe, [*of_recipe, *places, *more])


@pytest.fixture
def easy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny model of random weights learns no task: only what follows is looked at."""
    monkeypatch.setattr(evidence_figures, "LEAST_CEILING", 0.0)


@pytest.mark.parametrize("recipe", MODELS)
def test_seeds_are_kept_one_by_one_and_found_without_models_or_data(
    recipe: str, overrides: list[str], tmp_path: Path, easy: None
) -> None:
    keep, run_dir = tmp_path / "keep", tmp_path / "run"
    bench = Bench(_config(overrides, run_dir, keep, recipe=recipe))
    record = run_study(STUDY, bench, alone=True)
    assert {f.name for f in keep.iterdir()} == {
        "common.json", "seed-10.json", "seed-11.json", "seed-12.json"
    }  # fmt: skip
    outcome = Outcome.from_json(record["outcome"])
    assert outcome.comparisons == []  # a pilot
    one = json.loads((keep / "seed-11.json").read_bytes())
    assert set(one["trainings"]) == {
        "no PMP", "PMP", "PMP, labels reversed", "PMP, before finetuning",
        "PMP, labels reversed, before finetuning",
    }  # fmt: skip
    # Elsewhere, without data: the same figures.
    (keep / "seed-10.json").rename(tmp_path / "seed-10.json")
    other = tmp_path / "other"
    away = Bench(_config(overrides, other, keep, "data_dir=/nowhere", recipe=recipe))
    with pytest.raises(InputError, match="is not here"):
        run_study(STUDY, away, alone=True)
    (tmp_path / "seed-10.json").rename(keep / "seed-10.json")
    again = run_study(STUDY, away, alone=True)
    assert not (other / "trainings").exists()
    assert again["outcome"]["tables"] == record["outcome"]["tables"]


def test_a_registered_experiment_is_told_when_its_seeds_are_there(
    overrides: list[str], tmp_path: Path, easy: None
) -> None:
    keep = tmp_path / "keep"
    config = _config(overrides, tmp_path / "run", keep)
    context = Context("evidence", Bench(config), config.options("evidence"))
    registered = dict.fromkeys(kept.TEXTS, "Said before.") | {
        "registered": "2026-01-01", "pilot": {}, "digests": {},
        "settings": evidence.settings(context),
    }  # fmt: skip
    _write(keep / "registered.json", [registered])
    page = tmp_path / "evidence.md"
    assert STUDY.page is not None
    with pytest.raises(InputError, match="No seed has been run"):
        STUDY.page(context, {"outcome": {}}, page)
    other = _config(overrides, tmp_path / "run", keep, "rm.learning_rate=0.5")
    with pytest.raises(ConfigError, match=r"not what was registered .*: rm.learning_rate"):
        run(other, ["evidence"])
    run(config, ["evidence"], docs=page)
    text = page.read_text()
    assert "is excluded at this size" in text or "**PMP he" in text or "**PMP harms" in text
    assert "3 of 3, paired" in text and "Said before." in text and page.with_suffix(".svg").exists()
    # Had PMP learned nothing, that would be said, whatever the arms differ in.
    for number in (10, 11, 12):
        file = keep / f"seed-{number}.json"
        values = json.loads(file.read_bytes())
        values["code"]["PMP"] = {"chosen": [1, 0, 1, 0], "rejected": [0, 1, 0, 1]}
        file.write_text(json.dumps(values))
    run(config, ["evidence"], docs=page)
    assert "**PMP learned nothing" in page.read_text()
