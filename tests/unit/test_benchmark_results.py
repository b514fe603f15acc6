"""Result files say what was run, where and when, and keep what the benchmark says itself."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import _results, demo_signal, test_suite
from benchmarks._fake_synthesis import count_rows, fake_recipe
from benchmarks._load import Answered, point
from benchmarks.serve_small_requests import results_of_curve
from codepmp_ray.errors import StorageError
from codepmp_ray.records import PAIR, REJECTED, table_from_rows
from codepmp_ray.runs import Stage, open_stage


def test_results_carry_their_circumstances(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(_results, "RESULTS", tmp_path / "results")
    row = {"value": 1, "unit": "s", "goal": None, "spread": None, "runs": 1}
    rows = [{**row, "metric": "a"}, {**row, "metric": "b", "command": "make b"}]
    path = _results.write_results("speed", rows)
    assert path == tmp_path / "results/speed.json"
    first, second = json.loads(path.read_text())
    assert first["command"].startswith("python -m benchmarks.speed")
    assert (first["metric"], second["command"]) == ("a", "make b")
    for name in ("commit", "hardware", "date"):
        assert first[name]
    with pytest.raises(ValueError, match="c: no goal"):
        _results.write_results(
            "speed", [{**{k: row[k] for k in row if k != "goal"}, "metric": "c"}]
        )


def test_a_goal_that_is_not_met_ends_the_command_once_it_is_written(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(_results, "RESULTS", tmp_path)
    row = {"value": 1, "unit": "s", "goal": 0, "spread": None, "runs": 1}
    _results.conclude("fine", [{**row, "metric": "a", "met": True}, {**row, "metric": "b"}])
    with pytest.raises(SystemExit, match="Not met: b, d"):
        _results.conclude("bad", [{**row, "metric": name, "met": name in "ac"} for name in "abcd"])
    assert len(json.loads((tmp_path / "bad.json").read_text())) == 4


def committed(folder: Path, *shards: list[str]) -> Stage:
    """A synthesis stage with these ids: the first of a shard is a pair, the others are rejected."""
    stage = open_stage(fake_recipe(folder, {}), "synthesis")
    for shard_id, (first, *others) in enumerate(shards):
        rows = [{**dict.fromkeys(PAIR.names), "snippet_id": first}]
        rejected = [{**dict.fromkeys(REJECTED.names), "row_id": other} for other in others]
        tables = {
            "pairs": table_from_rows(rows, PAIR),
            "rejected": table_from_rows(rejected, REJECTED),
        }
        stage.ledger.commit(shard_id, 1 + len(others), tables)
    return stage


def test_rows_are_counted_that_are_lost_or_doubled_or_nobody_s(tmp_path: Path) -> None:
    whole = committed(tmp_path / "whole", ["0-0", "0-1"], ["1-0", "1-1"])
    assert count_rows(whole, 2, 2)["met"]
    broken = count_rows(committed(tmp_path / "broken", ["0-0", "0-0"], ["1-0", "0-1"]), 2, 2)
    assert (broken["value"], broken["met"], broken["num_rows"]) == (2, False, 4)
    with pytest.raises(StorageError, match="'2-0'"):
        count_rows(committed(tmp_path / "strange", ["0-0", "0-1"], ["1-0", "2-0"]), 2, 2)


def test_a_test_suite_is_judged_by_its_quiet_runs_and_by_every_failure(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite tests="3" failures="1" errors="0" skipped="1">'
        '<testcase classname="a" name="good"/><testcase classname="a" name="out"><skipped/>'
        '</testcase><testcase classname="a" name="bad"><failure/></testcase>'
        "</testsuite></testsuites>"
    )
    bad = test_suite._counts(report)
    assert bad == {"tests": 3, "failures": 1, "errors": 0, "skipped": 1, "failed": ["a::bad"]}
    assert test_suite._counts(tmp_path / "none")["errors"] == 1
    good = bad | {"failures": 0, "failed": []}
    quiet = [{"minutes": n, "is_busy": False, **good} for n in (9.0, 11.0, 30.0)]
    minutes, failures = test_suite.results_of([*quiet, {"minutes": 40.0, "is_busy": True, **bad}])
    assert (minutes["value"], minutes["met"]) == (11.0, True)
    assert (failures["value"], failures["met"]) == (1, False)


@pytest.mark.parametrize(("num_shown", "met"), [(9, True), (8, False)])
def test_all_outcomes_of_the_demonstration_are_published(num_shown: int, met: bool) -> None:
    outcomes = [
        {"seed": seed, "shows_the_effect": seed < num_shown, "minutes": 9.0 + seed / 10}
        for seed in range(10)
    ]
    effect, minutes = demo_signal.results_of(outcomes)
    assert (effect["value"], effect["met"], effect["outcomes"]) == (num_shown, met, outcomes)
    assert (minutes["metric"], minutes["spread"], minutes["runs"]) == (
        "demo_minutes",
        [9.0, 9.9],
        10,
    )


@pytest.mark.parametrize("given", ["seed=3", "--seeds 100", "--tuning --seeds 0"])
def test_published_seeds_run_the_recipe_as_it_is(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_: object) -> None:
        raise AssertionError("a run was started")

    monkeypatch.setattr(demo_signal, "run", start)
    monkeypatch.setattr("sys.argv", ["demo_signal", "--dir", str(tmp_path), *given.split()])
    with pytest.raises(SystemExit, match=r"overrides need --tuning|are not among"):
        demo_signal.main()


def test_a_run_that_was_cut_off_counts_its_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the last file that it wrote; the next try goes on."""
    notes = demo_signal.notes_of(tmp_path / "seed-1", [])
    notes.parent.mkdir()
    notes.write_text(json.dumps([{"start_s": 1_000.0, "minutes": None, "commit": "a"}]))
    os.utime(notes, (1_120.0, 1_120.0))
    failed = SimpleNamespace(returncode=3)
    monkeypatch.setattr(demo_signal.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(SystemExit, match="seed 1 failed with 3"):
        demo_signal.run(1, tmp_path, [])
    first, second = json.loads(notes.read_text())
    assert first["minutes"] == 2.0 and 0 <= second["minutes"] < 1


def test_a_point_counts_what_belongs_to_its_window() -> None:
    found = [
        Answered(due_s=8.0, took_s=3.0, status=200),  # due before, came within
        Answered(due_s=9.0, took_s=1.5, status=200),
        Answered(due_s=10.0, took_s=0.1, status=200),
        Answered(due_s=12.0, took_s=0.3, status=429),
        Answered(due_s=19.0, took_s=3.0, status=200),  # due within, came after
        Answered(due_s=20.0, took_s=0.1, status=0),
    ]
    made = point(found, begin_s=10.0, end_s=20.0)
    assert made["goodput_per_s"] == 0.3
    assert made["requests"] == 3
    assert made["p50_ms"] == 1550.0
    assert made["statuses"] == {"0": 1, "200": 4, "429": 1}
    assert point([], 0.0, 1.0)["p99_ms"] is None


def test_a_curve_is_judged_past_saturation_and_by_all_refusals() -> None:
    points = [
        {"load": 0.5, "goodput_per_s": 5.0, "statuses": {"200": 50}},
        {"load": 0.9, "goodput_per_s": 10.0, "statuses": {"200": 90, "503": 1}},
        {"load": 1.5, "goodput_per_s": 9.5, "statuses": {"200": 95, "429": 3}},
        {"load": 3.0, "goodput_per_s": 8.0, "statuses": {"200": 80}},
    ]
    kept, refusals = results_of_curve(points, "goal", scorer="engine")
    assert (kept["value"], kept["goal"]) == (0.8, "at least 0.9")
    assert (refusals["value"], refusals["refused"]) == (0.75, 4)
    unloaded = results_of_curve(points[:1] + points[3:], None, scorer="engine")[1]
    assert unloaded["value"] is None and unloaded["goal"] is None
