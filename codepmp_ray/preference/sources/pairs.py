"""The pairs of a set, as its kind makes them of its rows."""

from __future__ import annotations

from collections.abc import Iterator

from codepmp_ray.config.data import DataSourceConfig
from codepmp_ray.preference.sources import SOURCES
from codepmp_ray.preference.sources.columns import ColumnUse
from codepmp_ray.preference.sources.reading import read_source
from codepmp_ray.preference.sources.rows import Built, Reject


def column_use(source: DataSourceConfig, template: str | None = None) -> ColumnUse:
    """The account of a set's columns, to be given to `pairs_of` or to read rows with."""
    return ColumnUse(source, SOURCES[source.kind].columns, template)


def pairs_of(source: DataSourceConfig, use: ColumnUse | None = None) -> Iterator[Built]:
    """Pairs and rejects, up to `max_rows` pairs.

    Raises InputError for a set that cannot be read, lacks columns, or whose prompts would be
    guessed.
    """
    kind = SOURCES[source.kind]
    use = use or column_use(source)
    num_pairs = 0
    for built in kind.build(use.rows(read_source(source)), source):
        yield built
        num_pairs += not isinstance(built, Reject)
        if num_pairs == source.max_rows:
            break
    use.finish()
