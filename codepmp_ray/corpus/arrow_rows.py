"""Rows of a Hugging Face data set on disk: what `save_to_disk` wrote.

The files are mapped into memory, so that a piece costs its own rows only; a selection that was
saved with the data set is followed. It has no row groups: a piece is any range of rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from codepmp_ray.config.corpus import SourceConfig
from codepmp_ray.corpus.row_files import arrow_row, check_columns, columns_of
from codepmp_ray.errors import ConfigError
from codepmp_ray.io.nested import nested_batch
from codepmp_ray.io.parquet_rows import UnreadableRow
from codepmp_ray.storage.inputs import InputFolder

_BATCH_ROWS = 64


def dataset_pieces(
    root: InputFolder, source: SourceConfig, rows: int
) -> list[tuple[int, int, int]]:
    """(first row, row after the last, 0) of each piece of `rows` rows.

    Raises UnreadableRow when there is no text in the content column.
    """
    data_set = load_rows(str(root), source.split)
    check_columns(data_set.features.arrow_schema, source)
    return [(i, min(i + rows, len(data_set)), 0) for i in range(0, len(data_set), rows)]


def read_dataset_piece(
    root: InputFolder, source: SourceConfig, first: int, stop: int, max_bytes: int
) -> Iterator[tuple[int, dict[str, Any] | ValueError]]:
    """As `row_files.read_parquet_piece`."""
    data_set = load_rows(str(root), source.split).with_format("arrow")
    check_columns(data_set.features.arrow_schema, source)
    for start in range(first, min(stop, len(data_set)), _BATCH_ROWS):
        table = data_set[start : min(start + _BATCH_ROWS, stop)].combine_chunks()
        for part in table.to_batches():
            batch = nested_batch(part, columns_of(source))
            for i in range(batch.num_rows):
                yield start + i, arrow_row(batch, i, source, max_bytes)


@lru_cache(maxsize=2)
def load_rows(path: str, split: str) -> Any:
    """The `datasets.Dataset` at `path`. Raises ConfigError when it has no such split."""
    from datasets import DatasetDict, load_from_disk

    try:
        found = load_from_disk(path)
    except (OSError, ValueError, KeyError) as error:
        raise UnreadableRow(f"no data set that save_to_disk wrote ({error})") from error
    if not isinstance(found, DatasetDict):
        return found
    if split not in found:
        raise ConfigError(
            f"corpus.source.split={split!r}: {path} has {', '.join(map(str, found))}.",
            "Name one of these.",
        )
    return found[split]
