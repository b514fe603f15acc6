"""What a study is: which trainings it compares, and what it makes of the trained models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codepmp_ray.config.studies import StudyOptions
from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.pools import Pool
from codepmp_ray.studies import paper
from codepmp_ray.studies.at_hand import AtHand
from codepmp_ray.studies.bench import Bench
from codepmp_ray.studies.outcome import Outcome
from codepmp_ray.studies.pair_rows import TestPairs
from codepmp_ray.studies.pools import Generators, pool_file, pool_notes, read_pool
from codepmp_ray.studies.scores import ScoreBook, Trained
from codepmp_ray.studies.sets import MissingSet
from codepmp_ray.studies.trainings import Arm

Models = dict[str, list[Trained]]  # label of an arm -> its models, by seed


@dataclass(frozen=True)
class Context:
    """A study's own view of the bench.

    Attributes:
        differs: what is said about models and data of every study of this recipe.
    """

    name: str
    bench: Bench
    options: StudyOptions

    @property
    def model(self) -> str:
        return self.options.model or next(iter(self.bench.config.models))

    @property
    def bf16(self) -> bool:
        """Whether the study's model answers in bf16."""
        return bool(self.bench.config.models[self.model].bf16)

    @property
    def seeds(self) -> range:
        first = self.options.first_seed
        return range(first, first + (self.options.seeds or 1))

    @property
    def confidence(self) -> float:
        return self.bench.config.confidence

    def num_train(self, *sets: str, model: str | None = None) -> int:
        """Finetuning pairs: as many as asked for, or as there are."""
        return self.bench.pairs.num_available(
            sets, model or self.model, self.options.num_train or 256
        )

    def sizes(self, *sets: str) -> list[int]:
        """The sizes that `sets` can fill; all there is, if it is less than the smallest."""
        available = self.bench.pairs.num_available(sets, self.model, max(self.options.sizes))
        found = sorted(size for size in self.options.sizes if size <= available)
        return found or [available]

    def rewards(self) -> list[AtHand]:
        """The reward models at hand that it names. Raises InputError for one that is not there."""
        return [self.bench.reward_model(name) for name in dict.fromkeys(self.options.rewards)]

    def sets(self) -> list[str]:
        """The study's sets that are here. Raises MissingSet when none is."""
        here, missing = self.bench.sets_here(self.options.sets or ())
        if missing and not here:
            raise missing[0]
        if not here:
            raise MissingSet(f"{self.name} names no sets.", f"Set studies.{self.name}.sets.")
        return here

    def test_pairs(self, name: str, model: str | None = None) -> TestPairs:
        return self.bench.pairs.test_pairs(name, self.options.num_test or 200, model or self.model)

    def pools(self, generators: Generators = "all") -> list[Pool]:
        """The study's pools that are here. Raises MissingSet when none of those it names is."""
        missing = self._missing_pools()
        names = [name for name in self.options.pools or () if name not in missing]
        if missing and not names:
            raise next(iter(missing.values()))
        return [self.bench.pool(name, self.options, generators) for name in names]

    def benchmark(self, pool: Pool) -> str | None:
        """The paper's benchmark that the pool's questions are of; None where nothing says it."""
        return paper.benchmark_of(pool.setting, self.bench.config.pools[pool.setting])

    def missing(self) -> list[str]:
        """What is said about sets and pools of the study that are not here."""
        found = [str(error) for error in self.bench.sets_here(self.options.sets or ())[1]]
        for label, name in self.options.constructions.items():
            found += [f"{label}: {error}" for error in self.bench.sets_here((name,))[1]]
        return found + [str(error) for error in self._missing_pools().values()]

    def pool_notes(self) -> list[str]:
        """What is said about rows of the study's pools that were left out or put together."""
        config, missing = self.bench.config, self._missing_pools()
        return [
            note
            for name in self.options.pools or ()
            if name not in missing
            for note in pool_notes(name, read_pool(name, config.pools[name], config.data_dir))
        ]

    def _missing_pools(self) -> dict[str, MissingSet]:
        config, found = self.bench.config, {}
        for name in self.options.pools or ():
            try:
                pool_file(name, config.pools[name], config.data_dir)
            except MissingSet as error:
                found[name] = error
        return found


def no_arms(context: Context) -> list[Arm]:
    """Of a study that trains nothing; it raises what is missing."""
    context.sets()
    return []


@dataclass(frozen=True)
class Study:
    """One table or figure.

    Attributes:
        place: where it stands in the paper.
        question: what it asks, in one sentence.
        arms: trainings to compare; raises MissingSet when the data for it is not here.
        measure: the outcome, of the seeds that were trained.
        num_tokens: about how many tokens one seed's scoring takes, for the estimate.
        reward_tokens: likewise of one reward model at hand; None where the study takes none.
        keep: called after each training with the seed and its models so far, by arm; it keeps what
            `measure` takes, so that a seed needs no models once it was kept.
        page: writes a page of its own, of the record, at a path.
    """

    name: str
    place: str
    title: str
    question: str
    arms: Callable[[Context], list[Arm]]
    measure: Callable[[Context, Models, ScoreBook], Outcome]
    num_tokens: Callable[[Context], int] = lambda context: 0
    reward_tokens: Callable[[Context], int] | None = None
    keep: Callable[[Context, int, dict[str, Trained], ScoreBook], None] | None = None
    page: Callable[[Context, dict[str, Any], Path], None] | None = None

    def rewards(self, context: Context) -> list[AtHand]:
        """The reward models at hand that it measures; none for a study that takes none."""
        return [] if self.reward_tokens is None else context.rewards()

    def trainings(self, context: Context) -> list[Arm]:
        """Its arms, or none where it measures reward models at hand alone.

        Raises InputError where that leaves nothing to measure, or for models that it does not take.
        """
        options, own = context.options, context.bench.config.studies.get(self.name)
        if self.reward_tokens is None:
            if (own is not None and own.rewards) or not options.train_arms:
                raise InputError(
                    f"{self.name} measures what it trains itself, and no reward models at hand.",
                    f"Leave rewards and train_arms out of studies.{self.name} and defaults, or run "
                    "a study of accuracy on pairs or of best-of-N (table1, table3).",
                )
            return self.arms(context)
        if options.train_arms:
            return self.arms(context)
        if not options.rewards:
            raise InputError(
                f"{self.name} has nothing to measure: train_arms=false, and it names no rewards.",
                f"Set studies.{self.name}.rewards=[NAME] and rewards.NAME.model_name_or_path or "
                "rewards.NAME.endpoint, or leave train_arms out.",
            )
        return []
