"""A pool of labelled candidates and whose rewards its statistics are about."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from codepmp_ray.config.base import Section, later

# Names of the series that stand beside the models'.
BASELINES = ("random", "length", "shortest", "model_prior", "majority", "oracle")


class RewardsConfig(Section):
    """The rewards of one model: a column of the pool, or a table of scores.

    Attributes:
        name: what the model is called in tables; a model called "reward_model" is the main one.
        column: of each candidate, or of a row with a list of one reward per candidate.
        path: a file or folder of rows with `row_id` and `scores`, as `codepmp score` writes
            them, or with `candidate_id` and `score`, as `codepmp eval bon` does.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$", max_length=64)
    column: str | None = None
    path: str | None = None

    @model_validator(mode="after")
    def _one_place(self) -> RewardsConfig:
        if (self.column is None) == (self.path is None):
            raise ValueError(f"the rewards of {self.name!r} need either column or path")
        if self.name in BASELINES or self.name.startswith("weighted_majority"):
            raise ValueError(f"{self.name!r} is the name of a baseline; call the model otherwise")
        return self


class StopConfig(Section):
    """At which reward best-of-N may stop drawing answers.

    Attributes:
        max_loss: of accuracy, as a share; its upper bound has to lie within it.
        at_once: answers that are drawn before their rewards are looked at.
    """

    max_loss: float = Field(default=0.02, gt=0, lt=1)
    at_once: int = Field(default=1, ge=1)


class PoolStatisticsConfig(Section):
    """Confidence, number of resamples and seed are those of `evaluation`.

    Attributes:
        path: a file or folder of pools; docs/evaluation.md says what a row holds.
        grades_path: a file or folder of grades, as `codepmp answers grade` writes them; they
            decide in place of the labels, and their final answers vote. Candidates then need a
            `candidate_id`.
        rewards: of one or several models; without any, the baselines are measured alone.
        split: only rows whose column `split` says so: "eval" for the candidates of a run.
        ks: numbers of candidates to choose from; empty for the powers of two and the pool's size.
        num_problems / num_candidates: the first ones, for a smaller cut; null takes all.
        num_vote_draws: subsets by problem for weighted votes; where a majority vote is not exact,
            16 times as many.
        nan_scores: a candidate without a reward that is a finite number ends the job, or ranks
            below all others.
        stop: fit for each model the reward at which best-of-N may stop; null does not.
    """

    path: str | None = None
    grades_path: str | None = None
    rewards: tuple[RewardsConfig, ...] = ()
    split: str | None = None
    ks: tuple[Annotated[int, Field(ge=1)], ...] = ()
    num_problems: int | None = Field(default=None, ge=1)
    num_candidates: int | None = Field(default=None, ge=1)
    num_vote_draws: int = Field(default=64, ge=1)
    nan_scores: Literal["refuse", "last"] = "refuse"
    stop: StopConfig | None = later(None)

    @model_validator(mode="after")
    def _named_apart(self) -> PoolStatisticsConfig:
        names = [rewards.name for rewards in self.rewards]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two models are called {name!r}; give each a name of its own")
        if self.stop is not None and not names:
            raise ValueError("stop is fitted to rewards, and there are none; name a model's")
        return self
