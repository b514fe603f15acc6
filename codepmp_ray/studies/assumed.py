"""A bench without data: every set, pool and tokenizer is taken to be there, as large as asked for.

So that a recipe can be planned where nothing of it is: no pairs are read, no model is loaded, and
numbers of pairs are the recipe's own, which a set that turns out smaller does not reach.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from codepmp_ray.config.base import fingerprint
from codepmp_ray.config.data import DataSourceConfig
from codepmp_ray.config.studies import StudiesConfig, StudyOptions
from codepmp_ray.evaluation.pool_rows import Answer
from codepmp_ray.evaluation.pools import Pool, Question
from codepmp_ray.preference.sources.rows import Row
from codepmp_ray.studies.bench import Bench
from codepmp_ray.studies.pair_rows import PairRows, TestPairs
from codepmp_ray.studies.pools import Generators
from codepmp_ray.studies.sets import PairSet
from codepmp_ray.studies.study import Context
from codepmp_ray.studies.trainings import Pairs, Training

_MOST = 100_000  # rows of a set, where a study asks for all; more of them change no plan
_CHARACTERS = 4  # a token, as scoring of pools assumes


class AssumedContext(Context):
    """A study's view of an AssumedBench: no pool is missing."""

    def _missing_pool(self, name: str) -> str | None:
        return None


class AssumedBench(Bench):
    """A Bench for plans: `arms` and `num_tokens` of studies work, nothing can be trained."""

    def set(self, name: str) -> PairSet:
        config = self.config.sets[name]
        num = min(_MOST, config.max_rows or _MOST)
        rows = [_row(0)] * num
        return PairSet(name, config.title or name, rows, rows, "assumed", {}, True)

    def pool(self, name: str, options: StudyOptions, generators: Generators) -> Pool:
        num, size = options.num_problems or 100, options.num_candidates or 16
        size = min(size, self.config.pools[name].num_candidates or size)
        half = " " * int(_CHARACTERS * self.config.tokens_per_pair / 3)
        answers = [Answer(half)] * size
        questions = {str(i): Question(str(i), half, answers=answers) for i in range(num)}
        return Pool(questions, name=name, origin="assumed", setting=name)

    def require_scorer(self, name: str) -> None:
        """It is named among what is missing instead."""

    @cached_property
    def pairs(self) -> PairRows:
        return AssumedRows(self.config, self.set)

    @property
    def code_sets(self) -> tuple[str, ...]:
        return self.config.code_pairs[:1]

    def data(self, training: Training) -> tuple[DataSourceConfig, int, str]:
        rows = self.pairs.rows(training.pairs, training.base)
        described = training.pairs, self.pairs.tokenizer_of(training.base)
        return DataSourceConfig(path="assumed"), len(rows), fingerprint(str(described))


@dataclass
class AssumedRows(PairRows):
    """Pairs that are all alike, of a third of a pair's tokens in each of their three parts."""

    def _find_rows(self, pairs: Pairs, model: str) -> list[Row]:
        most = [self.config.sets[name].max_rows for name in pairs.sets]
        known = sum(num for num in most if num) if all(most) else pairs.num_pairs
        return [_row(0)] * min(pairs.num_pairs, known)

    def _find_test_pairs(self, name: str, num: int, model: str) -> TestPairs:
        rows = [_row(i) for i in range(min(num, _MOST))]
        return TestPairs(rows, [row["prompt"] for row in rows], 0, "")

    def num_tokens(self, row: Row, model: str) -> int:
        return round(2 * self.config.tokens_per_pair / 3)

    def encoder(self, model: str) -> Any:
        return _AssumedEncoder(self.config)


class _AssumedEncoder:
    def __init__(self, config: StudiesConfig) -> None:
        self._num = round(config.tokens_per_pair / 3)

    def prompt_ids(self, prompt: Any) -> list[int]:
        return [0] * self._num


def _row(number: int) -> Row:
    return {
        "pair_id": str(number), "problem_id": None, "source_id": None, "prompt": f"prompt {number}",
        "messages": None, "chosen": "chosen", "rejected": "rejected", "margin": None,
        "source_code": "code",
    }  # fmt: skip
