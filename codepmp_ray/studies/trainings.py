"""One training that studies need, as a value: what it starts from, on which pairs, how.

Its key follows from all that decides its result, so two studies that need the same model train it
once. `arms` are what studies compare: the same training for several seeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from codepmp_ray.config.branches import BranchesConfig
from codepmp_ray.config.training import TrainingConfig

# "first" and "last" pairs of a set in an order by hash: what warms up a model is not pretrained on.
Part = Literal["first", "last", "shuffled"]


@dataclass(frozen=True)
class Pairs:
    """`num_pairs` training pairs of `sets`.

    `first` and `last` take sets one after another, the pairs of each in an order by hash;
    `shuffled` takes all of them in an order by `seed`, questions that were not asked yet first.
    """

    sets: tuple[str, ...]
    num_pairs: int
    part: Part = "shuffled"
    seed: int = 0
    construction: str = ""  # what of a row is made a pair: see studies/pair_rows.py


@dataclass(frozen=True)
class Rejection:
    """Rejection sampling (RFT): the training's model answers the pairs' prompts `num_samples`
    times, and the answers that `judge` likes best take the place of chosen.
    """

    judge: Training
    num_samples: int
    max_new_tokens: int
    temperature: float = 1.0


@dataclass(frozen=True)
class Training:
    """`config` says all but the weights and the data.

    Attributes:
        label: for people.
        start: a name among `models`, or the training whose model this one goes on from.
        family: the run is one of a family of branches.
        rejection: train on sampled answers instead of the pairs' own.
    """

    label: str
    config: TrainingConfig
    pairs: Pairs
    start: str | Training
    family: BranchesConfig | None = None
    rejection: Rejection | None = None

    @property
    def base(self) -> str:
        """The name of the model that everything began with."""
        return self.start if isinstance(self.start, str) else self.start.base

    def chain(self) -> list[Training]:
        """The trainings before this one, first to last, and itself."""
        before = [] if isinstance(self.start, str) else self.start.chain()
        judge = [] if self.rejection is None else self.rejection.judge.chain()
        return [*before, *judge, self]


@dataclass(frozen=True)
class Arm:
    """One line of a table or point of a curve.

    Attributes:
        by_seed: its training for each seed.
        x: where it lies on a horizontal axis.
        group: the curve that it belongs to.
    """

    label: str
    by_seed: tuple[Training, ...]
    x: float = 0.0
    group: str = ""
