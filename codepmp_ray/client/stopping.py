"""Best of N as a series of rounds, up to the last or to where a rule says stop.

No input or output but `Stop.read`: the clients draw and score, what is here decides.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist, fmean, stdev

from codepmp_ray.client.answers import CandidateScore, Choice, best_of
from codepmp_ray.errors import DeadlineError, InputError

_NORMAL = NormalDist()
_MIN_SPREAD = 4  # rewards from which a mean and a spread are told


@dataclass(frozen=True)
class Stop:
    """When to stop drawing answers to a prompt; by `threshold` or by `min_gain`.

    Attributes:
        threshold: the raw reward of an answer that is good enough. `codepmp eval pools` fits it
            with a bound on what it costs (`pool_statistics.stop`).
        min_gain: stop where one more answer is expected to raise the best reward by less. Rewards
            are taken as normal, with mean and spread of those drawn, four at least. Nothing bounds
            what this costs.
        at_once: answers that are drawn before each look, as the threshold was fitted.
        weights_digest: of the model whose rewards the threshold is of; a service with other weights
            is refused. None does not ask.
    """

    threshold: float | None = None
    min_gain: float | None = None
    at_once: int = 1
    weights_digest: str | None = None

    def __post_init__(self) -> None:
        """Raises InputError for a rule that says nothing, or two things."""
        given = [value for value in (self.threshold, self.min_gain) if value is not None]
        if len(given) != 1 or math.isnan(given[0]) or self.at_once < 1:
            raise InputError(
                f"{self} is no rule.", "Give one of threshold and min_gain, and at_once >= 1."
            )

    @staticmethod
    def read(path: str | Path, model: str, weights_digest: str | None = None) -> Stop:
        """The threshold of `model` in a pool_statistics.json.

        Raises InputError where there is none, with the reason why it was refused.
        """
        try:
            fitted = json.loads(Path(path).read_bytes())["stop"][model]
            threshold, at_once, why_not = (fitted[k] for k in ("threshold", "at_once", "why_not"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} holds no threshold of {model!r} ({type(error).__name__}: {error}).",
                "Run codepmp eval pools with pool_statistics.stop and this model's rewards.",
            ) from error
        if threshold is None:
            raise InputError(f"Best of N may not stop early by {model!r}: {why_not}.")
        return Stop(threshold, at_once=at_once, weights_digest=weights_digest)

    def is_met(self, rewards: list[float]) -> bool:
        """Whether these are enough."""
        if self.threshold is not None:
            return max(rewards, default=-math.inf) >= self.threshold
        return len(rewards) >= _MIN_SPREAD and expected_gain(rewards) < (self.min_gain or 0.0)


def expected_gain(rewards: list[float]) -> float:
    """By how much one more normal draw is expected to exceed the best of `rewards`, two at least.

    Source: Mockus 1975, "expected improvement".
    """
    spread = stdev(rewards)
    if spread == 0:
        return 0.0
    z = (max(rewards) - fmean(rewards)) / spread
    return spread * (_NORMAL.pdf(z) - z * (1 - _NORMAL.cdf(z)))


@dataclass
class Drawing:
    """The answers to one prompt that were drawn and scored so far, of `n` at most."""

    n: int
    stop: Stop | None
    address: str
    texts: list[str] = field(default_factory=list)
    scores: list[CandidateScore] = field(default_factory=list)
    _is_over: bool = False

    def num_next(self) -> int:
        """Answers of the next round; 0 for none. Without a rule there is one round."""
        if self._is_over or len(self.texts) >= self.n:
            return 0
        return min(self.stop.at_once, self.n - len(self.texts)) if self.stop else self.n

    def add(self, texts: list[str], scores: list[CandidateScore]) -> None:
        self.texts += texts
        self.scores += scores
        # What fell out is no answer, whatever reward it has where all did.
        rewards = [s.score for s in self.scores if s.score is not None and s.fell_out is None]
        self._is_over = self.stop is None or self.stop.is_met(rewards)

    def miss(self, texts: list[str], error: DeadlineError) -> None:
        """A round that was too late ends the drawing. Raises `error` where it was the first."""
        if not self.scores:
            raise error
        self.add(texts, [CandidateScore(None, 0, False, "deadline")] * len(texts))
        self._is_over = True

    def best(self) -> tuple[str, Choice]:
        num_saved = max(self.n - len(self.texts), 0) if self.stop else 0
        choice = best_of(self.scores, self.address, num_saved)
        return self.texts[choice.best_index], choice


def answers(texts: list[str]) -> list[str]:
    """Raises InputError where there are none."""
    if not texts:
        raise InputError("generate returned no answers.", "It is called as generate(prompt, n).")
    return list(texts)
