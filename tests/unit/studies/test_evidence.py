"""What the registered experiment takes, refuses and says, from kept files alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codepmp_ray.config.study_materials import SetConfig
from codepmp_ray.errors import CodePMPError, ConfigError, InputError
from codepmp_ray.studies import kept
from codepmp_ray.studies.catalogue import evidence_figures as figures
from codepmp_ray.studies.example_solutions import is_from_worse
from codepmp_ray.studies.frozen import head_shares
from codepmp_ray.studies.kept import Kept
from codepmp_ray.studies.outcome import Comparison, Value
from codepmp_ray.studies.sets import load_set
from codepmp_ray.studies.study import Context
from tests.unit.studies.conftest import MakeBench, write_rows

NUM, SEEDS = 40, range(3)
WRITERS = {"small": 0.3, "middle": 0.5, "large": 0.8}


def _solutions(num: int) -> list[dict[str, Any]]:
    """Three writers, whose right solutions fall on questions by chance."""
    draws = np.random.default_rng(0)
    return [
        {"question": f"What is {i}?", "ground_truth": "-"}
        | {
            name: {"is_correct": bool(draws.random() < rate), "solution": f"{name} says {i}."}
            for name, rate in WRITERS.items()
        }
        for i in range(num)
    ]


def _load(tmp_path: Path, rows: list[dict[str, Any]], **changes: Any) -> Any:
    write_rows(tmp_path / "s.jsonl", rows)
    config = SetConfig(kind="example_solutions", paths=("s.jsonl",), **changes)
    return load_set("s", config, str(tmp_path))


def test_solutions_are_balanced_by_writer_over_the_questions(tmp_path: Path) -> None:
    found = _load(tmp_path, _solutions(300), test_fraction=0.5)
    every = _load(tmp_path, _solutions(300), test_fraction=0.5, balance=False)
    for part, whole in ((found.train, every.train), (found.test, every.test)):
        questions = [row["problem_id"] for row in part]
        assert len(questions) == len({*questions}) > 30
        assert 2 * sum(map(is_from_worse, part)) == len(part)
        ids = [row["pair_id"] for row in whole]
        assert [i for i in ids if i in {row["pair_id"] for row in part}] == [
            row["pair_id"] for row in part
        ]
        # Nothing is left out that could have been there: one kind of pair is used up.
        by_question: dict[str, set[bool]] = {}
        for row in whole:
            by_question.setdefault(row["problem_id"], set()).add(is_from_worse(row))
        able = [sum(kind in kinds for kinds in by_question.values()) for kind in (True, False)]
        assert len(part) // 2 == min(*able, len(by_question) // 2)


def test_a_pilot_never_sees_the_questions_that_the_experiment_tests(tmp_path: Path) -> None:
    rows = _solutions(300)
    own = _load(tmp_path, rows, test_fraction=0.6, balance=False)
    pilot = _load(tmp_path, rows, left_out=0.6, test_fraction=0.8, balance=False)
    tested = {row["problem_id"] for row in own.test}
    parts = [{row["problem_id"] for row in part} for part in (pilot.train, pilot.test)]
    assert all(parts) and not parts[0] & parts[1]
    assert parts[0] | parts[1] == {row["problem_id"] for row in own.train} and tested
    assert not tested & (parts[0] | parts[1])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"other": "text"}, "not_text"),
        ({"small": {"solution": "no label"}}, "bad_label"),
        ({"small": {"is_correct": True, "solution": " "}}, "empty"),
        ({"small": {"is_correct": True, "solution": 7}}, "not_text"),
        ({"question": None}, "prompt_empty"),
    ],
)
def test_what_is_no_solution_is_rejected_and_counted(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    rows = _solutions(60)
    before = _load(tmp_path, rows, balance=False).rejected
    rows[7] = rows[7] | change
    after = _load(tmp_path, rows, balance=False).rejected
    assert after.get(reason, 0) == before.get(reason, 0) + 1


def _seed(right: dict[str, float], seed: int = 0, code: float = 1.0) -> dict[str, Any]:
    """Rewards by which an arm orders a share of the pairs right."""

    def rewards(share: float) -> dict[str, list[float]]:
        draws = np.random.default_rng([seed, int(1000 * share)]).random(NUM) < share
        return {"chosen": draws.astype(float).tolist(), "rejected": [0.5] * NUM}

    heads = {arm: {"16": [share] * NUM} for arm, share in right.items()}
    return {
        "seed": seed,
        "made": {"commit": "c", "date": "d", "hardware": "h"},
        "test": {arm: rewards(share) for arm, share in right.items()},
        "own_pairs": dict.fromkeys(right, 0.9),
        "code": {arm: rewards(code) for arm in (figures.PMP, figures.REVERSED)},
        "heads": heads,
    }


def _kept(
    pmp: float = 0.9, code: float = 1.0, ceiling: float = 1.0, num: int = 3, **changes: Any
) -> Kept:
    right = {figures.NONE: 0.5, figures.PMP: pmp, figures.REVERSED: 0.5}
    common = {
        "made": {"commit": "c", "date": "d", "hardware": "h"},
        "problems": [str(i) for i in range(NUM)],
        "from_worse": [1] * 10 + [0] * (NUM - 10),
        "rules": {"model prior": [0.0] * 10 + [1.0] * (NUM - 10)},
        "ceiling": _seed({"a": ceiling})["test"]["a"],
    }
    seeds = {seed: _seed(right, seed, code) for seed in SEEDS[:num]}
    return Kept(**{"registered": {"power": "-"}, "common": common, "seeds": seeds} | changes)


@pytest.fixture
def context(make_bench: MakeBench) -> Context:
    options = {"train_set": "sums", "seeds": 3, "sizes": [4], "num_draws": 2}
    bench = make_bench(studies={"evidence": options})
    return Context("evidence", bench, bench.config.options("evidence"))


def test_the_writer_alone_has_one_half_however_unequal_the_directions(context: Context) -> None:
    accuracy, *_ = figures.outcome(context, _kept()).tables
    (row,) = (row for row in accuracy.rows if row.label == "rule: model prior")
    assert [v and v.mean for v in row.ours] == [pytest.approx(0.5), 0.0, 1.0]


@pytest.mark.parametrize(
    ("found", "status", "told"),
    [
        (_kept(), "measured", "PMP helps: +"),
        (_kept(pmp=0.5), "measured", "is excluded at this size"),
        (_kept(num=2), "partly measured", "2 of 3 seeds are there; nothing is compared"),
        (_kept(registered={}), "measured", "A pilot"),
        (_kept(code=0.5), "not measured", "PMP learned nothing"),
        (_kept(ceiling=0.2), "not measured", "cannot learn this task"),
        (_kept(ceiling=0.2, seeds={}), "not measured", "cannot learn this task"),
        (_kept(seeds={}), "not measured", "No seed has been run"),
        (Kept(), "not measured", "No seed has been run"),
    ],
)
def test_one_test_where_all_checks_hold_and_none_elsewhere(
    context: Context, found: Kept, status: str, told: str
) -> None:
    outcome = figures.outcome(context, found)
    assert outcome.status == status and told in outcome.summary
    is_result = status == "measured" and bool(found.registered)
    assert len(outcome.comparisons) == is_result
    assert is_result == ("secondary" in outcome.facts)


def test_without_a_ceiling_run_there_is_a_pilot_and_no_result(context: Context) -> None:
    found = _kept(num=3)
    found.common["ceiling"] = None
    assert "No ceiling run" in figures.outcome(context, found).summary
    assert not figures.is_too_low(found)


def test_seeds_of_another_experiment_are_refused(context: Context) -> None:
    found = _kept()
    found.seeds[9] = found.seeds[0]
    with pytest.raises(InputError, match=r"\[9\]"):
        figures.outcome(context, found)


def test_the_answer_says_what_the_interval_excludes() -> None:
    def said(low: float, mean: float, high: float, p: float | None) -> str:
        return figures.answer(Comparison("q", Value(mean, low, high), p, 0.05, 8, 400), 0.95)

    assert said(0.01, 0.03, 0.05, 0.01) == "PMP helps: +3.0 points (+1.0 to +5.0)."
    assert said(-0.05, -0.03, -0.01, 0.01).startswith("PMP harms: -3.0")
    assert "An effect above 4.0 points is excluded" in said(-0.02, 0.01, 0.04, 0.4)


SETTINGS = {"rm": {"learning_rate": 0.1}, "options": {"seeds": 3}}
REGISTERED = dict.fromkeys(kept.TEXTS, "x") | {
    "registered": "2026-01-01", "pilot": {}, "settings": SETTINGS, "digests": {"test pairs": "a"},
}  # fmt: skip
SEED = {"format": 1, "settings": SETTINGS, "digests": {"test pairs": "a"}, "seed": 0}


def _put(name: str, value: Any) -> Callable[[Path], int]:
    return lambda folder: (folder / name).write_text(
        value if isinstance(value, str) else json.dumps(value)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_put("seed-1.json", "{"), "seed-1.json cannot be read"),
        (_put("seed-1.json", SEED | {"format": 9}), "another format"),
        (_put("seed-1.json", SEED | {"settings": {"rm": {"learning_rate": 0.2}}}),
         r"other settings: options.*, rm.learning_rate"),
        (_put("seed-1.json", SEED | {"digests": {"test pairs": "b"}}), "registered: test pairs"),
        (_put("seed-one.json", SEED), "seed-one.json is no file of an experiment"),
        (_put("notes.txt", "-"), "notes.txt is no file of an experiment"),
        (_put("deviations.json", {"a": 1}), "no list of sentences"),
        (_put("registered.json", REGISTERED | {"more": 1}), "besides more"),
        (_put("registered.json", {k: v for k, v in REGISTERED.items() if k != "power"}),
         "lacks power"),
        (_put("registered.json", REGISTERED | {"settings": {}}), "not what was registered"),
    ],
)  # fmt: skip
def test_a_folder_of_another_experiment_is_refused_by_name(
    tmp_path: Path, change: Callable[[Path], int], message: str
) -> None:
    _put("registered.json", REGISTERED)(tmp_path)
    _put("seed-0.json", SEED)(tmp_path)
    assert kept.read_kept(str(tmp_path), SETTINGS).seeds == {0: SEED}
    change(tmp_path)
    with pytest.raises(CodePMPError, match=message):
        kept.read_kept(str(tmp_path), SETTINGS)


def test_a_seed_is_measured_once(tmp_path: Path) -> None:
    kept.keep_seed(str(tmp_path), 0, {})
    with pytest.raises(ConfigError, match="has seed 0"):
        kept.keep_seed(str(tmp_path), 0, {})


def test_heads_learn_what_the_features_hold_and_draw_alike_for_one_seed() -> None:
    draws = np.random.default_rng(1)
    gaps = draws.normal(size=(160, 12)) + 1.5 * np.eye(12)[0]
    found = head_shares(gaps[:80], gaps[80:], [4, 64], 20, seed=3)
    assert 0.5 < found[4].mean() < found[64].mean() - 0.02
    again = head_shares(gaps[:80], gaps[80:], [4, 64], 20, seed=3)
    assert all((found[size] == again[size]).all() for size in found)
    noise = head_shares(gaps[:80, 1:], gaps[80:, 1:], [64], 20, seed=3)
    assert abs(noise[64].mean() - 0.5) < 0.1
    with pytest.raises(ValueError, match="81 pairs of 80"):
        head_shares(gaps[:80], gaps[80:], [81], 1, seed=0)
