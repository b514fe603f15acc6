"""Preference tasks whose rows are those of a training source: read by the source's own builder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from codepmp_ray.config.data import DataSourceConfig, Kind
from codepmp_ray.evaluation.tasks.base import HubSet, PreferencePair, PreferenceTask
from codepmp_ray.preference.sources import SOURCES
from codepmp_ray.preference.sources.rows import Numbered, Reject, of_one_answer


def pair_task(name: str, title: str, license: str, kind: Kind, hub: HubSet) -> PreferenceTask:
    """Pairs as finetuning makes them of the same rows, with the defaults of `DataSourceConfig`."""
    # The builder looks at settings of pairing only, never at where the rows are.
    settings = DataSourceConfig(kind=kind, path=name)
    source = SOURCES[kind]

    def pairs(rows: Iterable[Numbered]) -> Iterator[PreferencePair | Reject]:
        for item in map(of_one_answer, source.build(rows, settings)):
            if isinstance(item, Reject):
                yield item
                continue
            prompt = item["prompt"] if item["messages"] is None else item["messages"]
            problem_id = item["problem_id"] or item["source_id"]
            yield PreferencePair(
                item["pair_id"], problem_id, prompt, item["chosen"], item["rejected"]
            )

    return PreferenceTask(name, title, license, hub, source.columns, pairs)
