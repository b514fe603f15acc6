"""The pairs of preference sets with their sections, and one request for all pairs of a prompt."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from codepmp_ray.config.accuracy import AccuracyConfig
from codepmp_ray.config.data import DataSourceConfig
from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.tasks.base import PreferencePair
from codepmp_ray.evaluation.tasks.loading import load_preferences
from codepmp_ray.evaluation.tasks.registry import preference_task
from codepmp_ray.preference.sources import SOURCES
from codepmp_ray.preference.sources.columns import ColumnUse
from codepmp_ray.preference.sources.reading import column_use, pairs_of, read_source
from codepmp_ray.preference.sources.rows import Built, Reject, of_one_answer

Prompt = str | list[dict[str, str]]


@dataclass(frozen=True)
class Pair:
    """One pair to be scored. `problem_id` is equal for pairs that are not independent; `models`
    wrote the chosen and the rejected answer, where the set says so."""

    pair_id: str
    problem_id: str
    source: str
    section: str
    prompt: Prompt
    chosen: str
    rejected: str
    variant: str | None = None
    models: tuple[str, str] | None = None


@dataclass(frozen=True)
class LoadedPairs:
    """Pairs in the order of their sets; rejected rows are counted by source and reason.

    `num_copies` rows repeated an earlier pair of their section and are scored once. `columns` has a
    line for each set of which columns were not used.
    """

    pairs: list[Pair]
    rejected: dict[str, dict[str, int]]
    num_copies: int
    columns: tuple[str, ...] = ()


def load_pairs(config: AccuracyConfig) -> LoadedPairs:
    """All pairs of `config.tasks`, then those of `config.data`.

    Raises InputError for sets that cannot be read or give no pair, rows without the section's
    column, and a pair_id that stands for two different pairs.
    """
    if not config.data and not config.tasks:
        raise InputError(
            "The section accuracy names no preference set.",
            "Give at least one, for example accuracy.tasks=[hh_harmless] or "
            "accuracy.data=[{path: pairs.jsonl}].",
        )
    tasks: list[Pair] = []
    known: dict[tuple[str, str, str], Pair] = {}
    rejected: dict[str, dict[str, int]] = {}
    num_copies = 0
    lines: list[str] = []
    for item in config.tasks:
        found = load_preferences(preference_task(item.name), item.path, item.max_rows)
        tasks += [_task_pair(pair, item.name) for pair in found.pairs]
        if found.rejects:
            rejected[item.name] = found.reject_counts
    for source in config.data:
        reasons: Counter[str] = Counter()
        num_before = len(known)
        use = column_use(source)
        for section, built in _sections(source, config.section_column, use):
            if isinstance(built, Reject):
                reasons[str(built.reason)] += 1
                continue
            pair = _pair(built, source.label, section)
            first = known.setdefault((source.label, section, pair.pair_id), pair)
            if first is not pair:
                if first != pair:
                    raise InputError(
                        f"The set {source.label!r} has two different pairs with the pair_id "
                        f"{pair.pair_id!r}.",
                        "Give every pair an id of its own, or none.",
                    )
                num_copies += 1
        use.unused.pop(config.section_column or "", None)
        lines += [line] if (line := use.line()) else []
        if reasons:
            rejected[source.label] = dict(reasons.most_common())
        if len(known) == num_before:
            raise InputError(
                f"The set {source.label!r} gives no pair; rejected rows: {dict(reasons)}.",
                f"docs/data-format.md shows what kind={source.kind} expects.",
            )
    return LoadedPairs([*tasks, *known.values()], rejected, num_copies, tuple(lines))


def by_prompt(pairs: Iterable[Pair]) -> list[list[Pair]]:
    """Pairs with the same prompt together, in the order of first appearance."""
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(json.dumps(pair.prompt, sort_keys=True), []).append(pair)
    return list(groups.values())


def _sections(
    source: DataSourceConfig, column: str | None, use: ColumnUse
) -> Iterator[tuple[str, Built]]:
    if column is None:
        for built in map(of_one_answer, pairs_of(source, use)):
            yield source.label, built
        return
    build = SOURCES[source.kind].build
    # A row knows nothing of other rows' models.
    alone = source.model_copy(update={"balance": False})
    num_pairs = 0
    for item in use.rows(read_source(source)):
        if isinstance(item, Reject):
            yield source.label, item
            continue
        section = item[1].get(column)
        if not isinstance(section, str) or not section:
            raise InputError(
                f"Row {item[0]} of the set {source.label!r} has {column}={section!r}, which names "
                "no section.",
                f"Set accuracy.section_column to one of {', '.join(sorted(item[1]))}, or to null.",
            )
        for built in map(of_one_answer, build([item], alone)):
            yield section, built
            num_pairs += not isinstance(built, Reject)
            if num_pairs == source.max_rows:
                use.finish()
                return


def _task_pair(pair: PreferencePair, task: str) -> Pair:
    """A set without parts is one section."""
    return Pair(
        pair_id=pair.pair_id,
        problem_id=pair.problem_id,
        source=task,
        section=f"{task}/{pair.subset}" if pair.subset else task,
        prompt=pair.prompt,
        chosen=pair.chosen,
        rejected=pair.rejected,
        variant=pair.variant,
        models=pair.models,
    )


def _pair(row: dict[str, Any], source: str, section: str) -> Pair:
    prompt: Prompt = row["messages"] if row["messages"] is not None else row["prompt"]
    return Pair(
        pair_id=row["pair_id"],
        problem_id=row["problem_id"] or row["source_id"],
        source=source,
        section=section,
        prompt=prompt,
        chosen=row["chosen"],
        rejected=row["rejected"],
    )
