"""What a study works with: sets, pools, files of pairs for training, and keys of trainings.

It reads and prepares; nothing is trained or scored here. One bench serves all studies of a recipe,
so a set is read once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from codepmp_ray.config.base import fingerprint
from codepmp_ray.config.data import DataSourceConfig
from codepmp_ray.config.studies import StudiesConfig, StudyOptions
from codepmp_ray.config.study_materials import MADE_HERE
from codepmp_ray.content_digests import content_digests
from codepmp_ray.evaluation.pools import Pool
from codepmp_ray.hub_models import pin
from codepmp_ray.preference.sources.rows import Row
from codepmp_ray.storage import LocalStore
from codepmp_ray.studies.at_hand import AtHand, find_reward_model
from codepmp_ray.studies.pair_rows import PairRows
from codepmp_ray.studies.plans import Plans
from codepmp_ray.studies.pools import Generators, load_pool
from codepmp_ray.studies.sets import MissingSet, PairSet, load_set, rows_digest
from codepmp_ray.studies.trainings import Arm, Training

_VERSION = 3  # goes up when the same description trains or scores something else


@dataclass
class Bench:
    """The recipe's sets and models, read when they are asked for."""

    config: StudiesConfig
    _sets: dict[str, PairSet] = field(default_factory=dict)
    _pools: dict[Any, Pool] = field(default_factory=dict)
    _files: dict[Any, tuple[Path, int, str]] = field(default_factory=dict)
    _rewards: dict[str, AtHand] = field(default_factory=dict)
    _scorers: list[str] = field(default_factory=list)

    @cached_property
    def run_dir(self) -> Path:
        return Path(self.config.run_dir).absolute()

    @property
    def store(self) -> LocalStore:
        return LocalStore(self.run_dir)

    def set(self, name: str) -> PairSet:
        """Raises MissingSet when it is not here."""
        if name not in self._sets:
            self._sets[name] = load_set(name, self.config.sets[name], self.config.data_dir)
        return self._sets[name]

    def sets_here(self, names: tuple[str, ...]) -> tuple[list[str], list[MissingSet]]:
        """(those that are here, what is said about the others)."""
        here, missing = [], []
        for name in names:
            try:
                self.set(name)
                here.append(name)
            except MissingSet as error:
                missing.append(error)
        return here, missing

    def pool(self, name: str, options: StudyOptions, generators: Generators) -> Pool:
        """Raises MissingSet when it is not here."""
        config = self.config.pools[name]
        name_of = config.test_of
        of = (self.set(name_of), self.config.sets[name_of].test_fraction) if name_of else None
        asked = (name, options.num_problems or 100, options.num_candidates or 16, generators)
        if asked not in self._pools:
            data_dir = self.config.data_dir
            self._pools[asked] = load_pool(name, config, data_dir, of, *asked[1:])
        return self._pools[asked]

    def reward_model(self, name: str) -> AtHand:
        """A reward model at hand. Raises what `find_reward_model` raises."""
        if name not in self._rewards:
            config = self.config.rewards[name]
            self._rewards[name] = find_reward_model(name, config, self.config.scoring)
        return self._rewards[name]

    def require_scorer(self, name: str) -> None:
        """Raises ModelError for a folder that is no classifier of one label; looked at once."""
        from codepmp_ray.studies.external_scorer import require_scorer

        if name not in self._scorers:
            require_scorer(name)
            self._scorers.append(name)

    @cached_property
    def pairs(self) -> PairRows:
        """Training and test pairs of the sets."""
        return PairRows(self.config, self.set)

    @cached_property
    def plans(self) -> Plans:
        """Descriptions of trainings."""
        return Plans(self.config, self.pairs, lambda: self.code_sets)

    @property
    def code_sets(self) -> tuple[str, ...]:
        """The first of the recipe's sets that are here, as many as it takes."""
        needed = self.config.pmp_pairs + max(m.warmup_pairs for m in self.config.models.values())
        chosen: list[str] = []
        missing = ""
        for name in self.config.code_pairs:
            try:
                needed -= len(self.set(name).train)
            except MissingSet as error:
                missing = missing or str(error)
                continue
            chosen.append(name)
            if needed <= 0:
                break
        if not chosen:
            raise MissingSet(missing, "Name a set of code pairs that is here in code_pairs.")
        return tuple(chosen)

    def data(self, training: Training) -> tuple[DataSourceConfig, int, str]:
        """(the file of the training's pairs, their number, digest); written if it is missing."""
        pairs, model = training.pairs, training.base
        cached = (pairs, self.pairs.tokenizer_of(model))
        if cached not in self._files:
            rows = self.pairs.rows(pairs, model)
            digest = rows_digest(rows)
            name = f"data/{'+'.join(pairs.sets)}-{len(rows)}-{digest}.jsonl"
            if not self.store.exists(name):
                lines = (json.dumps(_trl_row(row), ensure_ascii=False) + "\n" for row in rows)
                self.store.put(name, "".join(lines).encode())
            self._files[cached] = (self.run_dir / name, len(rows), digest)
        path, num, digest = self._files[cached]
        return DataSourceConfig(kind="preference", path=str(path)), num, digest

    def key(self, training: Training) -> str:
        """12 hex digits that follow from all that decides the trained weights."""
        _, _, digest = self.data(training)
        start = training.start
        begin: Any = (
            self.key(start)
            if isinstance(start, Training)
            else self.config.models[start].before_training
        )
        config = training.config.model_copy(update={"data": (), "model_name_or_path": None})
        extra = []
        if (rejection := training.rejection) is not None:
            limits = (rejection.num_samples, rejection.max_new_tokens, rejection.temperature)
            extra = [self.key(rejection.judge), *limits]
        return fingerprint(_VERSION, begin, config, digest, *extra)

    def steps(self, arms: Sequence[Arm]) -> dict[str, Training]:
        """All trainings of `arms`, those that they start from included, each once, by key."""
        every = (step for arm in arms for last in arm.by_seed for step in last.chain())
        return {self.key(training): training for training in every}

    def study_key(self, name: str, arms: list[Arm], rewards: Sequence[str] = ()) -> str:
        """Changes when a study would find something else; `rewards` are those that it measures."""
        trainings = [[self.key(training) for training in arm.by_seed] for arm in arms]
        options = self.config.options(name).model_copy(update={"rewards": tuple(rewards)})
        at_hand = {n: (self.config.rewards[n], self.reward_model(n).model.key) for n in rewards}
        sets = {n: self.config.sets[n] for n in options.sets or ()}
        pools = {n: self.config.pools[n] for n in options.pools or ()}
        parts = [{n: s.result_fields() for n, s in group.items()} for group in (sets, pools)]
        parts += [{n: [s.result_fields(), key] for n, (s, key) in at_hand.items()}]
        # The rows themselves, too: they may be given, or change, between two runs.
        here = self.sets_here(options.sets or ())[0]
        rows = {n: rows_digest([*self.set(n).train, *self.set(n).test]) for n in here}
        files = [str(Path(self.config.data_dir or "") / pool.path) for pool in pools.values()]
        if options.scorer and Path(options.scorer).expanduser().is_dir():
            files.append(options.scorer)
        if options.keep_dir and Path(options.keep_dir).is_dir():
            files.append(options.keep_dir)
        digests = [rows, content_digests(files)]
        return fingerprint(_VERSION, name, trainings, options, self.config.scoring, parts, digests)

    def weights(self, name: str) -> str:
        """Weights of one of the recipe's models before any training, as trainings take them."""
        from codepmp_ray.studies.trend_model import random_model

        shape = self.config.models[name]
        if shape.weights is not None:
            return pin(self.config.run_dir, shape.weights)
        return str(random_model(shape, self.run_dir / "models"))

    def origins(self) -> dict[str, Any]:
        """Of every set that was read: where it is from and how many pairs it has."""
        return {
            name: {
                "title": found.title,
                "origin": found.origin,
                "made_here": self.config.sets[name].kind in MADE_HERE,
                "stands_for": self.config.sets[name].stands_for,
                "num_train": len(found.train),
                "num_test": len(found.test),
                "own_split": found.has_own_split,
                "rejected": found.rejected,
            }
            for name, found in self._sets.items()
        }


def _trl_row(row: Row) -> Row:
    return {
        "pair_id": row["pair_id"],
        "prompt": row["messages"] or row["prompt"],
        "chosen": row["chosen"],
        "rejected": row["rejected"],
    }
