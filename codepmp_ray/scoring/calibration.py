"""Rewards as chances: what a difference of rewards is worth, and a temperature that makes it so.

The loss of reward models says that the chosen answer is preferred with probability
sigmoid(difference). Models are mostly surer than they are right, or less sure; dividing rewards by
one number, fitted on held-out pairs, changes no order and mends some of it (Guo et al. 2017). It
lies beside the weights in CALIBRATION_FILE, and no digest of the weights knows of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import expit, softmax

from codepmp_ray.errors import InputError
from codepmp_ray.records import stable_id
from codepmp_ray.storage import Store
from codepmp_ray.weights_digest import CALIBRATION_FILE

Floats = npt.NDArray[np.float64]
_NUM_BINS, _MIN_IN_BIN = 15, 20
MIN_PAIRS = 100  # of each half
_LOG_RANGE = 6.0


@dataclass(frozen=True)
class Temperature:
    """Fitted on `num_fitted` pairs; log-loss and expected calibration error of `num_checked` other
    ones without and with it, and the standard error over prompts of the change of the log-loss."""

    temperature: float
    num_fitted: int
    num_checked: int
    log_loss: tuple[float, float]
    ece: tuple[float, float]
    log_loss_standard_error: float

    @property
    def is_kept(self) -> bool:
        """Whether it lowers both, the log-loss by more than chance would (two standard errors)."""
        gain = self.log_loss[0] - self.log_loss[1]
        return gain > 2 * self.log_loss_standard_error and self.ece[1] < self.ece[0]


def probabilities(scores: Sequence[float], temperature: float = 1.0) -> list[float]:
    """Chance of each answer to one prompt to be preferred to all others, of their raw rewards.

    Bradley-Terry for two, Plackett-Luce for more: the model that the reward loss fits.
    """
    return softmax(np.asarray(scores, float) / temperature).tolist()


def log_losses(gaps: Floats) -> Floats:
    """Of chosen minus rejected rewards [pairs], in nats."""
    return np.logaddexp(0.0, -gaps)


def expected_error(gaps: Floats) -> float:
    """Expected calibration error (ECE) of chosen minus rejected rewards [pairs].

    How sure the better-scored side was, less how often it was right, over bins of equally many
    pairs (adaptive), 20 or more where there are as many.
    """
    sure = expit(np.abs(gaps))
    off = (sure - np.where(gaps == 0, 0.5, gaps > 0))[np.argsort(sure, kind="stable")]
    num_bins = max(1, min(_NUM_BINS, len(gaps) // _MIN_IN_BIN))
    return sum(abs(float(part.sum())) for part in np.array_split(off, num_bins)) / len(gaps)


def fit_temperature(
    chosen: npt.ArrayLike, rejected: npt.ArrayLike, prompts: Sequence[str]
) -> Temperature:
    """On one half of the prompts, by a hash, and held against the other half.

    Raises InputError for fewer than MIN_PAIRS pairs in a half.
    """
    gaps = np.asarray(chosen, float) - np.asarray(rejected, float)
    half = np.array([int(stable_id("temperature", name)[:8], 16) % 2 for name in prompts], int)
    fitted, checked = gaps[half == 0], gaps[half == 1]
    if min(len(fitted), len(checked)) < MIN_PAIRS:
        raise InputError(
            f"A temperature would be fitted on {len(fitted)} pairs and held against "
            f"{len(checked)} others; {MIN_PAIRS} of each are needed.",
            "Measure on more held-out pairs, or leave accuracy.calibrate out.",
        )
    found = minimize_scalar(
        lambda log: log_losses(fitted / np.exp(log)).mean(),
        bounds=(-_LOG_RANGE, _LOG_RANGE),
        method="bounded",
    )
    temperature = float(np.exp(found.x))
    losses, errors = (
        (float(of(checked)), float(of(checked / temperature)))
        for of in (lambda values: log_losses(values).mean(), expected_error)
    )
    change = log_losses(checked) - log_losses(checked / temperature)
    _, prompt = np.unique(np.asarray(prompts)[half == 1], return_inverse=True)
    by_prompt = np.bincount(prompt, weights=change - change.mean())
    spread = float(np.sqrt((by_prompt**2).sum())) / len(checked)
    return Temperature(temperature, len(fitted), len(checked), losses, errors, spread)


def write_temperature(store: Store, found: Temperature) -> None:
    """Beside an exported model's weights; one that serves nothing takes an earlier one away."""
    if found.is_kept:
        store.put(CALIBRATION_FILE, json.dumps(asdict(found), indent=1).encode())
    elif store.exists(CALIBRATION_FILE):
        store.delete(CALIBRATION_FILE)


def temperature_of(store: Store) -> float:
    """Of an exported model's folder, 1 where none was kept. Raises InputError where damaged."""
    if not store.exists(CALIBRATION_FILE):
        return 1.0
    try:
        value = float(json.loads(store.read_bytes(CALIBRATION_FILE))["temperature"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{store.locate(CALIBRATION_FILE)} cannot be read ({error}).",
            "Remove it, or measure again with accuracy.calibrate=true.",
        ) from error
    if not 0 < value < float("inf"):
        raise InputError(f"{store.locate(CALIBRATION_FILE)} has temperature={value}, not above 0.")
    return value
