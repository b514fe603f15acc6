"""One study after another: what fails, is missing or late is recorded, and the others go on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codepmp_ray.cluster import study_run
from codepmp_ray.cluster.study_run import Allowance, run_studies, run_study
from codepmp_ray.config.studies import StudiesConfig
from codepmp_ray.errors import InputError, ModelError, ResourceError
from codepmp_ray.studies.bench import Bench
from codepmp_ray.studies.cost import announce_all
from codepmp_ray.studies.outcome import Outcome, Plot, Series, not_measured
from codepmp_ray.studies.report import write_reports
from codepmp_ray.studies.study import Study


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    _write_pool(tmp_path, 2)
    config: dict[str, Any] = {
        "run_dir": str(tmp_path / "a run"),
        "data_dir": str(tmp_path),
        "name": "all",
    }
    config["code_pairs"] = []
    config |= {"pools": {"p": {"path": "pool.jsonl"}}, "studies": {"good": {"pools": ["p"]}}}
    return Bench(StudiesConfig.model_validate(config))


def _write_pool(folder: Path, num_questions: int) -> None:
    answers = [{"text": "a", "correct": True}, {"text": "b", "correct": False}]
    rows = [{"question": f"q{i}", "candidates": answers} for i in range(num_questions)]
    (folder / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _study(name: str, measure: Callable[[], Outcome], arms: Callable[[], list] = list) -> Study:
    return Study(name, name, name, "?", lambda _: arms(), lambda *_: measure())


def _raise(error: BaseException) -> Any:
    def raising() -> Any:
        raise error

    return raising


_ODD = "Object of type float32 is not JSON serializable"


def _good() -> Outcome:
    return Outcome(summary="All is well.")


def test_a_failing_study_is_recorded_with_its_reason_and_ends_nothing(bench: Bench) -> None:
    studies = [
        _study("planned badly", _good, _raise(KeyError("no such arm"))),
        _study("broken", _raise(RuntimeError("shapes [3] and\n[4]"))),
        _study("diverged", _raise(ModelError("Not finite.", "Lower the rate."))),
        _study("odd", lambda: Outcome(facts={"of": np.float32(1)})),
        _study("missing", _raise(InputError("No file.", "Give the file."))),
        _study("extra", _raise(ResourceError("No TRL.", "Install it."))),
        _study("good", _good),
    ]
    announce_all(studies, bench)
    records = list(run_studies(studies, bench))
    found = {r["name"]: Outcome.from_json(r["outcome"]) for r in records}
    assert {name: (o.status, o.because, o.summary, o.remedy[:16]) for name, o in found.items()} == {
        "planned badly": ("failed", "error", "KeyError: 'no such arm'", "Its traceback li"),
        "broken": ("failed", "error", "RuntimeError: shapes [3] and [4]", "Its traceback li"),
        "diverged": ("failed", "error", "Not finite.", "Lower the rate."),
        "odd": ("failed", "error", f"TypeError: {_ODD}", "Its traceback li"),
        "missing": ("not measured", "data", "No file.", "Give the file."),
        "extra": ("not measured", "resources", "No TRL.", "Install it."),
        "good": ("measured", None, "All is well.", ""),
    }
    assert "in raising" in bench.store.read_bytes("results/broken.error.txt").decode()
    assert not bench.store.exists("results/missing.error.txt")
    page = Path(write_reports(bench, records, "all", "make reproduce"))
    for text in (page.read_text(), page.with_suffix(".md").read_text()):
        assert "ailed, because of error" in text and "Lower the rate." in text
        assert "ot measured, because of data" in text and "Give the file." in text


def test_a_figure_that_cannot_be_drawn_does_not_cost_the_page(bench: Bench) -> None:
    bad = Plot(
        "A <radar>", "", "", [Series("a", [0.0] * 3, [1.0] * 3)], kind="radar", spokes=["x", "y"]
    )
    good = Plot("A curve", "n", "share", [Series("b", [1.0, 2.0], [0.1, 0.2])])
    study = _study("good", lambda: Outcome(summary="Drawn in part.", plots=[bad, good]))
    page = Path(write_reports(bench, [run_study(study, bench)], "all", "make reproduce"))
    html = page.read_text()
    assert "A &lt;radar&gt; could not be drawn (ValueError" in html and "<svg" in html


def test_what_failed_is_tried_again_and_what_was_measured_is_not(bench: Bench) -> None:
    assert (
        run_study(_study("good", _raise(OSError("busy"))), bench)["outcome"]["status"] == "failed"
    )
    calls = []
    study = _study("good", lambda: calls.append(1) or _good())
    first = run_study(study, bench)
    assert run_study(study, bench) == first and len(calls) == 1
    _write_pool(Path(bench.config.data_dir or ""), 3)
    run_study(study, Bench(bench.config))
    assert len(calls) == 2  # other data, another key


def test_an_interruption_is_no_failure_of_a_study(bench: Bench) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_study(_study("good", _raise(KeyboardInterrupt())), bench)
    assert not bench.store.exists("results/good.json")
    with pytest.raises(KeyError):
        run_study(_study("good", _raise(KeyError("x"))), bench, alone=True)


def test_what_prepares_a_study_fails_with_it_and_waits_for_time(bench: Bench) -> None:
    made = []
    study = _study("good", _good)
    failed = run_study(study, bench, prepare=_take(_raise(ValueError("no service"))))
    assert failed["outcome"]["summary"] == "ValueError: no service"
    costly = Study("good", "good", "", "?", lambda _: [], lambda *_: _good(), lambda _: 10**9)
    run_study(costly, bench, left_s=1.0, prepare=made.append)
    assert not made
    run_study(costly, Bench(bench.config), prepare=made.append)
    assert not made  # measured meanwhile
    bench.store.delete("results/good.json")
    run_study(costly, bench, prepare=made.append)
    assert made == [bench]


def test_time_that_is_left_goes_to_the_studies_that_had_too_little(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10**6, 20))
    monkeypatch.setattr(study_run.time, "monotonic", lambda: float(next(clock)))
    asked: list[tuple[str, float | None]] = []

    def measure(study: Study, context: object, arms: object, allowance: Allowance) -> Outcome:
        asked.append((study.name, allowance.budget_s))
        first = [name for name, _ in asked].count(study.name) == 1
        if study.name == "late" and first:
            return not_measured("time", "Too little.")
        return Outcome("partly measured" if study.name == "half" and first else "measured")

    monkeypatch.setattr(study_run, "_measure", measure)
    timed = Bench(bench.config.model_copy(update={"budget_min": 10.0}))
    studies = [_study(name, _good) for name in ("half", "whole", "late")]
    records = list(run_studies(studies, timed))
    assert [name for name, _ in asked] == ["half", "whole", "late", "late", "half"]
    assert [r["outcome"]["status"] for r in records][-2:] == ["measured", "measured"]
    lefts = [left for _, left in asked]
    assert None not in lefts and lefts == sorted(lefts, reverse=True) and lefts[0] < 600
    assert records[-1]["spent_s"] > records[0]["spent_s"]  # both times together
    asked.clear()
    for name in ("half", "whole", "late"):
        bench.store.delete(f"results/{name}.json")
    list(run_studies(studies, bench))
    assert [name for name, _ in asked] == ["half", "whole", "late"]  # without a limit, once


def _take(call: Callable[[], None]) -> Callable[[Bench], None]:
    return lambda _: call()
