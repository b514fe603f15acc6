"""Progress from storage alone."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from rich.console import Console

from codepmp_ray.analysis.status import (
    plain_rate,
    print_others,
    print_status,
    recent_rate,
    stage_status,
)
from codepmp_ray.config.recipe import Recipe, parse_recipe
from codepmp_ray.corpus.planning import DUPLICATES, EXTRACTED, CorpusPlan, Span, WorkUnit, save_plan
from codepmp_ray.errors import InputError
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.records import REJECTED, table_from_rows
from codepmp_ray.runs import open_stage
from codepmp_ray.shard_markers import ShardCommit
from codepmp_ray.shard_stats import shard_stats


@pytest.fixture(autouse=True)
def began_at_998(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stages write into their manifests."""
    monkeypatch.setattr("codepmp_ray.runs._now", lambda: "1970-01-01T00:16:38Z")


def commit(
    ledger: ShardLedger,
    shard: int,
    at_s: float,
    monkeypatch: pytest.MonkeyPatch,
    tables: dict[str, pa.Table] | None = None,
) -> None:
    found = tables or {"snippets": pa.table({"code": ["x"] * 5})}
    monkeypatch.setattr("codepmp_ray.ledger.time.time", lambda: at_s)
    ledger.commit(shard, 5, found, shard_stats(found))


def shown(recipe: Recipe) -> str:
    console = Console(record=True, width=140)
    print_status(recipe, console)
    return console.export_text()


def test_a_stage_that_is_down_tells_how_far_it_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = parse_recipe({"run_dir": str(tmp_path)}, "test")
    stage = open_stage(recipe, "synthesis")
    assert stage_status(stage).state == "missing"
    stage.start(num_shards=10)
    rejects = [
        {"row_id": "x", "reason": "sides_equal"},
        {"row_id": "y", "reason": "contaminated", "detail": "mbpp: chosen: 10-gram 'a'"},
    ]
    tables = {
        "pairs": pa.table({"chosen_num_tokens": [5, None, 7]}),
        "rejected": table_from_rows(rejects, REJECTED),
    }
    for shard in range(4):
        commit(stage.ledger, shard, 1000.0 + 2 * shard, monkeypatch, tables)
    monkeypatch.setattr("codepmp_ray.analysis.status.time.time", lambda: 1066.0)
    status = stage_status(stage)
    assert status.state == "begun" and status.num_parts_done == 4 and status.num_input_rows == 20
    assert status.rejected == {"sides_equal": 4, "contaminated": 4}
    assert status.contaminated == {"mbpp": {"chosen": 4}}
    assert status.num_tokens == {"chosen_num_tokens": 48}
    assert status.per_s == 2.5  # 20 rows in the 8 s since the attempt began
    assert status.eta_s == 12.0 and status.idle_s == 60.0
    text = shown(recipe)
    assert "4/10 shards" in text and "2.50 rows/s" in text and "4 sides_equal" in text
    assert "not begun" in text and "contaminated by mbpp: 4 chosen" in text
    for shard in range(4, 10):
        commit(stage.ledger, shard, 1008.0, monkeypatch, tables)
    stage.complete({})
    assert stage_status(stage).state == "complete" and stage_status(stage).eta_s is None


def test_a_corpus_shows_the_round_that_it_is_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = parse_recipe({"run_dir": str(tmp_path)}, "test")
    stage = open_stage(recipe, "corpus")
    stage.start()
    assert stage_status(stage).doing == "listing files"
    units = tuple(WorkUnit(number, 5, (Span("a.py", 0, 5),)) for number in range(4))
    save_plan(stage.store, CorpusPlan("digest", 20, 20, None, units))
    extracted = ShardLedger(stage.store.sub(EXTRACTED))
    for unit in range(4):
        assert "reading files" in shown(recipe) and f"{unit}/4 units of files" in shown(recipe)
        commit(extracted, unit, 1000.0 + 2 * unit, monkeypatch)
    status = stage_status(stage)
    assert (status.doing, status.num_parts, status.num_input_rows) == (
        "finding duplicates",
        None,
        20,
    )
    duplicates = stage.store.sub(DUPLICATES)
    for name in ("exact", "copies", "band_000"):
        duplicates.put(f"{name}/found/x", b"")
    status = stage_status(stage)
    wanted = 4 + recipe.corpus.near_duplicates.num_bands
    assert (status.part, status.num_parts_done, status.num_parts) == ("rounds", 3, wanted)
    commit(stage.ledger, 0, 1018.0, monkeypatch)
    status = stage_status(stage)
    # Over the time that the corpus took so far, not that between two shards.
    assert (status.doing, status.num_parts_done, status.per_s) == ("writing shards", 1, 0.25)


def test_a_training_shows_its_steps(tmp_path: Path) -> None:
    recipe = parse_recipe({"run_dir": str(tmp_path)}, "test")
    stage = open_stage(recipe, "pretraining")
    stage.start()
    assert stage_status(stage).num_parts is None
    rows = [{"step": step, "total_steps": 1200, "step_s": 2.0, "loss": 1.0} for step in (1, 2, 3)]
    rows.append({"step": 3, "eval_loss": 0.5})
    stage.store.put("metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    status = stage_status(stage)
    assert (status.num_parts_done, status.num_parts) == (3, 1200)
    assert (status.per_s, status.eta_s) == (0.5, 2394.0)
    text = shown(recipe)
    assert "3/1,200 steps" in text and "0.50 steps/s" in text and "39 min 54 s" in text


def test_a_pause_does_not_count_in_the_rate_and_the_start_of_an_attempt_does() -> None:
    def at(second: float) -> ShardCommit:
        return ShardCommit(0, "a", 10, {}, {}, {}, second)

    assert recent_rate([at(0.0), at(10_000.0), at(10_005.0)], 9_995.0) == 2.0
    assert recent_rate([at(3.0)], 0.0) == 10 / 3  # one commit says something already
    assert recent_rate([at(5.0), at(5.01)], 0.0) == 20 / 5.01  # two at once are no burst
    # Before the window nothing counts; without older commits it begins with the first one's rows.
    assert recent_rate([at(0.0), at(1000.0), at(1800.0)], 0.0) == 20 / 900
    assert recent_rate([at(5.0), at(10.0)], 0.0, is_all=False) == 2.0
    assert recent_rate([], 0.0) is None and recent_rate([at(3.0)], 7.0) is None


def test_rates_are_plain_numbers() -> None:
    rates = (1234.5, 100.0, 12.3, 0.25, 0.004)
    assert [plain_rate(rate, "rows") for rate in rates] == [
        *("1,234 rows/s", "100 rows/s", "12.30 rows/s", "0.25 rows/s", "14.4 rows/h")
    ]


def test_stages_of_other_settings_are_shown_with_what_differs(tmp_path: Path) -> None:
    old = parse_recipe({"run_dir": str(tmp_path), "corpus": {"max_files": 96}}, "test")
    open_stage(old, "corpus").start()
    open_stage(old, "synthesis").start()
    open_stage(old, "synthesis").complete({})
    new = parse_recipe({"run_dir": str(tmp_path), "corpus": {"max_files": 200}}, "test")
    text = shown(new)
    for name, state in (("corpus", "begun"), ("synthesis", "complete")):
        line = f"  {open_stage(old, name).folder}  {state}  corpus.max_files 96 -> 200"
        assert line in text
    console = Console(record=True)
    print_others(old, console)
    assert console.export_text() == ""


def test_a_run_directory_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    open_stage(parse_recipe({"run_dir": str(tmp_path / "first")}, "test"), "corpus").start()
    (tmp_path / "notes").mkdir()
    with pytest.raises(InputError, match=r"frist does not exist\..*Runs beside it: first\."):
        print_status(parse_recipe({"run_dir": str(tmp_path / "frist")}, "test"))
