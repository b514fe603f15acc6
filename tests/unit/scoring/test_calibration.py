"""Rewards as chances: errors that are there are seen, and a temperature mends them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.pairwise.accuracy import Bootstrap, calibration
from codepmp_ray.scoring.calibration import (
    expected_error,
    fit_temperature,
    probabilities,
    temperature_of,
    write_temperature,
)
from codepmp_ray.storage import LocalStore
from codepmp_ray.weights_digest import CALIBRATION_FILE, weights_digest


def _pairs(sureness: float, num: int = 4_000, seed: int = 0):
    """Rewards whose differences say sigmoid(gap / sureness)."""
    generator = np.random.default_rng(seed)
    gaps = np.abs(generator.normal(0, 1.2, num))
    right = generator.random(num) < expit(gaps)
    return np.where(right, gaps, -gaps) * sureness, np.zeros(num), [f"p{i}" for i in range(num)]


def test_the_error_is_that_of_the_promise() -> None:
    honest, boastful = (expected_error(_pairs(sureness)[0]) for sureness in (1.0, 4.0))
    assert honest < 0.03 < 0.15 < boastful
    assert expected_error(np.full(100, 50.0)) == pytest.approx(0.0)
    assert expected_error(np.full(100, -50.0)) == pytest.approx(1.0)
    assert expected_error(np.zeros(7)) == 0.0


@pytest.mark.parametrize("sureness", [0.3, 4.0])
def test_a_temperature_undoes_what_is_too_much_or_too_little(sureness: float) -> None:
    found = fit_temperature(*_pairs(sureness))
    assert found.is_kept and found.temperature == pytest.approx(sureness, rel=0.15)
    assert found.ece[1] < 0.03 and found.log_loss[1] < found.log_loss[0]
    assert found.num_fitted + found.num_checked == 4_000


def test_what_lowers_only_one_of_both_is_not_kept(tmp_path) -> None:
    store = LocalStore(tmp_path)
    store.put("config.json", b"{}")
    digest = weights_digest(str(tmp_path))
    good = fit_temperature(*_pairs(4.0))
    write_temperature(store, good)
    assert temperature_of(store) == pytest.approx(good.temperature)
    assert weights_digest(str(tmp_path)) == digest  # it changes no reward
    write_temperature(store, replace(good, ece=(0.02, 0.03)))
    assert not store.exists(CALIBRATION_FILE) and temperature_of(store) == 1.0
    assert not replace(good, log_loss=(0.6, 0.61)).is_kept


def test_what_chance_may_have_lowered_is_not_kept() -> None:
    """Of calibrated rewards about half of all temperatures lower the log-loss by a little."""
    kept = [fit_temperature(*_pairs(1.0, 400, seed)).is_kept for seed in range(40)]
    assert sum(kept) <= 3
    # Ten copies of a pair are no new evidence that it helped.
    chosen, rejected, prompts = _pairs(1.25, 1_200, 3)
    once = fit_temperature(chosen, rejected, prompts)
    copied = fit_temperature(*(np.repeat(side, 10) for side in (chosen, rejected)),
                             list(np.repeat(prompts, 10)))  # fmt: skip
    assert copied.log_loss_standard_error == pytest.approx(once.log_loss_standard_error)


@pytest.mark.parametrize("text", [b"{", b"{}", b'{"temperature": 0}', b'{"temperature": "x"}'])
def test_a_damaged_file_is_named(tmp_path, text: bytes) -> None:
    store = LocalStore(tmp_path)
    store.put(CALIBRATION_FILE, text)
    with pytest.raises(InputError, match=CALIBRATION_FILE):
        temperature_of(store)


def test_too_few_pairs_are_no_calibration() -> None:
    with pytest.raises(InputError, match="of each are needed"):
        fit_temperature(*_pairs(1.0, 60))


def test_probabilities_are_those_of_the_loss() -> None:
    assert probabilities([1.0, 0.0])[0] == pytest.approx(expit(1.0))
    assert probabilities([1.0, 0.0], 2.0)[0] == pytest.approx(expit(0.5))
    assert sum(probabilities([3.0, -900.0, 2.0])) == pytest.approx(1.0)


def test_figures_have_intervals_over_prompts() -> None:
    few = Bootstrap(num_bootstrap=200)
    for num in (30, 120, 600):
        chosen, rejected, prompts = _pairs(1.0, num)
        once = calibration(chosen, rejected, prompts, few)
        for figure in once.values():
            assert figure["low"] <= figure["mean"] <= figure["high"]
    assert once["log_loss"]["mean"] == pytest.approx(np.logaddexp(0, -chosen).mean())
    copied = calibration(*(np.repeat(side, 6) for side in (chosen, rejected)),
                         list(np.repeat(prompts, 6)), few)  # fmt: skip
    for name in ("auc", "log_loss"):  # six copies of a pair are no new evidence
        wide, narrow = (v["high"] - v["low"] for v in (copied[name], once[name]))
        assert wide == pytest.approx(narrow, rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("num", [60, 400])
def test_a_calibrated_models_error_is_one_of_chance_and_a_boasters_is_not(num: int) -> None:
    few = Bootstrap(num_bootstrap=100)
    within = 0
    for seed in range(20):
        found = calibration(*_pairs(1.0, num, seed), few)
        within += found["ece"]["mean"] <= found["ece_by_chance"]["high"]
        boasts = calibration(*_pairs(6.0, num, seed), few)
        assert boasts["ece"]["mean"] > boasts["ece_by_chance"]["high"]
    assert within >= 17


def test_auc_is_the_chance_to_score_above_any_rejected_answer() -> None:
    found = calibration([2.0, 0.0], [1.0, 0.0], ["a", "b"], Bootstrap(num_bootstrap=50))
    assert found["auc"]["mean"] == (1 + 1 + 0 + 0.5) / 4
    blind = calibration(np.zeros(40), np.zeros(40), list(range(40)), Bootstrap(num_bootstrap=50))
    assert blind["auc"]["mean"] == 0.5 and blind["log_loss"]["mean"] == pytest.approx(math.log(2))
