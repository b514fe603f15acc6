"""Pools whose candidates have labels and rewards, from files, as arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath

from codepmp_ray.config.pool_statistics import PoolStatisticsConfig
from codepmp_ray.errors import ConfigError, InputError
from codepmp_ray.evaluation.answer_groups import answer_groups
from codepmp_ray.evaluation.pool_report import PoolArrays
from codepmp_ray.evaluation.pool_rows import Answer, read_pool_row
from codepmp_ray.evaluation.pool_tables import (
    RewardTable,
    RowRewards,
    read_grades,
    read_rewards,
)
from codepmp_ray.evaluation.statistics import padded
from codepmp_ray.preference.sources.reading import numbered
from codepmp_ray.preference.sources.rows import Reject, Row, Unusable
from codepmp_ray.reject_reasons import RejectReason


@dataclass(frozen=True)
class Candidate:
    """`rewards` are in the order of the configuration; None where there is none. `text` is kept
    where it was asked for."""

    passed: bool
    final: str | None
    model: str | None
    num_tokens: int | None
    num_chars: int
    rewards: tuple[float | None, ...]
    text: str | None = None


@dataclass
class LabelledPools:
    """What files say about the candidates of each problem.

    Attributes:
        pools: by the problem's name, in the order of the file; never empty.
        rejects: rows and answers that cannot be used; `index` is the row's number from 0.
        num_unused: candidates beyond the cut that was asked for.
        questions: by the problem's name; None where no row has it.
    """

    pools: dict[str, list[Candidate]] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)
    num_unused: int = 0
    questions: dict[str, str | None] = field(default_factory=dict)

    @property
    def reject_counts(self) -> dict[str, int]:
        return dict(sorted(Counter(str(reject.reason) for reject in self.rejects).items()))

    @property
    def length_unit(self) -> str:
        """Tokens where all candidates count them, else characters."""
        has_all = all(c.num_tokens is not None for pool in self.pools.values() for c in pool)
        return "tokens" if has_all else "characters"


def load_labelled_pools(
    config: PoolStatisticsConfig, with_texts: bool = False, setting: str = "pool_statistics.path"
) -> LabelledPools:
    """Pools of `config.path`, which `setting` names, cut to `num_problems` and `num_candidates`.

    Raises ConfigError without a path; InputError for files that cannot be read or have nothing to
    use, and where candidates without a reward are to be refused.
    """
    if not config.path:
        raise ConfigError(
            "pool_statistics.path is not set.",
            "Name a file of labelled candidates; docs/evaluation.md says what a row holds.",
        )
    tables = [read_rewards(item.name, item.path) if item.path else None for item in config.rewards]
    loaded = LabelledPools()
    for name, candidate in _candidates(config, setting, tables, loaded, with_texts):
        pool = loaded.pools.get(name)
        size, limit = (
            (len(loaded.pools), config.num_problems)
            if pool is None
            else (len(pool), config.num_candidates)
        )
        if size == limit:
            loaded.num_unused += 1
        else:
            loaded.pools.setdefault(name, []).append(candidate)
    if not loaded.pools:
        first = loaded.rejects[0] if loaded.rejects else None
        shown = f" (first: row {first.index + 1}, {first.detail})" if first else ""
        raise InputError(
            f"{config.path} has no candidate with a label: {len(loaded.rejects)} rows and "
            f"candidates were rejected{shown}.",
            "docs/evaluation.md says what a row of a pool holds.",
        )
    if config.nan_scores == "refuse":
        _require_rewards(config, loaded.pools)
    return loaded


def arrays_of(loaded: LabelledPools, model_names: Sequence[str]) -> PoolArrays:
    """Arrays [problems, candidates]; rewards that are missing are NaN.

    Final answers and generators have series where the files name them: generators where they are
    at least two.
    """
    pools = list(loaded.pools.values())
    everyone = [candidate for pool in pools for candidate in pool]
    passed, present = padded([[float(c.passed) for c in pool] for pool in pools])
    unit = loaded.length_unit
    lengths = [[float(c.num_tokens or 0) for c in pool] for pool in pools]
    if unit == "characters":
        lengths = [[float(c.num_chars) for c in pool] for pool in pools]
    rewards = {
        name: padded([[_nan(c.rewards[number]) for c in pool] for pool in pools])[0]
        for number, name in enumerate(model_names)
    }
    numbers: dict[str | None, int] = {}
    models = [[numbers.setdefault(c.model, len(numbers)) for c in pool] for pool in pools]
    has_finals = any(c.final is not None for c in everyone)
    return PoolArrays(
        passed,
        rewards,
        padded([answer_groups([c.final for c in pool]) for pool in pools])[0]
        if has_finals
        else None,
        padded(lengths)[0],
        padded(models)[0] if len(numbers) > 1 else None,
        present,
    )


def _candidates(
    config: PoolStatisticsConfig,
    setting: str,
    tables: Sequence[RewardTable | None],
    loaded: LabelledPools,
    with_texts: bool,
) -> Iterator[tuple[str, Candidate]]:
    """(problem, candidate) in the order of the file; what is none goes to `loaded.rejects`."""
    columns = [item.column for item in config.rewards if item.column is not None]
    grades = read_grades(config.grades_path) if config.grades_path else None
    path = config.path or ""
    label = PurePath(path).name
    rejects, questions = loaded.rejects, loaded.questions
    seen: set[str] = set()
    for item in numbered(setting, path):
        if isinstance(item, Reject):
            rejects.append(item)
            continue
        index, row = item
        if config.split is not None and row.get("split") != config.split:
            continue
        try:
            found = read_pool_row(row, columns)
            name = found.problem_id or found.question or ""
            question = questions.setdefault(name, found.question)
            if question is None:
                questions[name] = question = found.question
            if None not in (question, found.question) and question != found.question:
                raise Unusable(
                    RejectReason.BAD_LABEL, f"{name!r} has another question in an earlier row"
                )
        except Unusable as error:
            rejects.append(Reject(index, error.reason, error.detail))
            continue
        rejects += [Reject(index, problem.reason, problem.detail) for problem in found.problems]
        of_tables = [table.for_row(found, f"{label}#{index}") for table in tables if table]
        for answer in found.answers:
            try:
                made = _candidate(answer, config, of_tables, grades, seen)
                yield name, replace(made, text=answer.text) if with_texts else made
            except Unusable as error:
                detail = f"answer {answer.place}: {error.detail}"
                rejects.append(Reject(index, error.reason, detail))


def _candidate(
    answer: Answer,
    config: PoolStatisticsConfig,
    of_tables: Sequence[RowRewards],
    grades: dict[str, Row] | None,
    seen: set[str],
) -> Candidate:
    """Raises Unusable for an answer without a label, and for a second one of the same id."""
    if answer.candidate_id is not None:
        if answer.candidate_id in seen:
            raise Unusable(
                RejectReason.EXACT_DUPLICATE, f"a second candidate {answer.candidate_id!r}"
            )
        seen.add(answer.candidate_id)
    label, final = answer.label, answer.final
    if grades is not None:
        grade = grades.get(answer.candidate_id or "")
        if grade is None or grade.get("passed") is None:
            raise Unusable(RejectReason.NOT_EXECUTED, "no grade")
        label, final = bool(grade["passed"]), grade.get("answer")
    if label is None:
        raise Unusable(RejectReason.BAD_LABEL, "no label")
    from_columns, from_tables = iter(answer.rewards), iter(of_tables)
    rewards = [
        next(from_columns) if item.column is not None else next(from_tables).of(answer)
        for item in config.rewards
    ]
    return Candidate(
        label, final, answer.model, answer.num_tokens, len(answer.text), tuple(rewards)
    )


def _require_rewards(config: PoolStatisticsConfig, pools: dict[str, list[Candidate]]) -> None:
    total = sum(map(len, pools.values()))
    for number, item in enumerate(config.rewards):
        missing = [
            (name, place)
            for name, pool in pools.items()
            for place, candidate in enumerate(pool)
            if candidate.rewards[number] is None
        ]
        if missing:
            name, place = missing[0]
            raise InputError(
                f"{len(missing)} of {total} candidates have no reward of {item.name!r} that is a "
                f"finite number; the first is candidate {place} of problem {name!r:.80}.",
                f"Score {config.path} with that model (ids and numbers of candidates have to be "
                "equal), or rank such candidates last: pool_statistics.nan_scores=last.",
            )


def _nan(value: float | None) -> float:
    return float("nan") if value is None else value
