"""The keep-index: the sketches of what a corpus kept, for corpora that come later.

A ledger of its own below the corpus's folder, with one shard of sketches for each of its shards.

Rule for data that arrives later: snippets of earlier corpora come before all new ones in corpus
order and are never removed; so a new snippet that is in a cluster with one of them leaves, and the
earlier one is named as the winner. Corpora that were made one after another, each against those
before, hold no near-duplicates of each other, as far as the bands tell.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from codepmp_ray.config.corpus import NearDuplicateConfig
from codepmp_ray.corpus.layout import fixed_bytes
from codepmp_ray.corpus.minhash import ALGORITHM, Signatures, Sketches
from codepmp_ray.errors import ConfigError
from codepmp_ray.json_records import stored_record
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.storage import is_uri, open_store

SIGNATURE = "signature"
FOLDER, TABLE = "keep_index", "sketches"
_SETTINGS = "settings.json"


@dataclass(frozen=True)
class KeepIndex:
    """Kept snippets of earlier corpora, in order. `bands` has one array of keys per band,
    `signatures` one row per snippet."""

    snippet_ids: pa.ChunkedArray
    bands: tuple[np.ndarray, ...]
    signatures: Signatures


def band_names(settings: NearDuplicateConfig) -> list[str]:
    """Columns that hold band keys; none when near-duplicates are not looked for."""
    return [f"band_{i:03d}" for i in range(settings.num_bands)] if settings.enabled else []


def sketch_names(settings: NearDuplicateConfig) -> list[str]:
    """Columns of a sketch: those that `sketch_columns` makes."""
    return [*band_names(settings), SIGNATURE] if settings.enabled else []


def sketch_columns(sketches: Sketches, settings: NearDuplicateConfig) -> dict[str, pa.Array]:
    """Columns of a table for `sketches`: one per band (uint64), and SIGNATURE (fixed binary)."""
    columns = {
        name: pa.array(keys)
        for name, keys in zip(band_names(settings), sketches.keys.T, strict=True)
    }
    num, width = sketches.signatures.shape
    buffer = pa.py_buffer(np.ascontiguousarray(sketches.signatures))
    columns[SIGNATURE] = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), num, [None, buffer])
    return columns


def signature_matrix(column: pa.ChunkedArray, settings: NearDuplicateConfig) -> Signatures:
    """[rows, hashes] from a SIGNATURE column."""
    return fixed_bytes(column, settings.num_bands * settings.rows_per_band)


def open_keep_index(stage_uri: str, settings: NearDuplicateConfig) -> ShardLedger:
    """The keep-index of a corpus that is being made, marked with what its keys depend on."""
    store = open_store(stage_uri).sub(FOLDER)
    store.put(_SETTINGS, json.dumps({"made_with": _identity(settings)}).encode())
    return ShardLedger(store)


def earlier_indexes(settings: NearDuplicateConfig) -> Iterator[ShardLedger]:
    """The keep-indexes of `settings.earlier`, in order; their sketches are not read.

    Raises ConfigError when one is missing, not complete or made with other settings.
    """
    for folder in settings.earlier if settings.enabled else ():
        stage = open_store(folder if is_uri(folder) else Path(folder).expanduser())
        index = stage.sub(FOLDER)
        if not stage.exists("complete.json") or not index.exists(_SETTINGS):
            raise ConfigError(
                f"corpus.near_duplicates.earlier: {folder} does not exist, is not complete or has "
                "no keep-index.",
                "Name the folder of a complete corpus stage that looked for near-duplicates.",
            )
        found = stored_record(index, _SETTINGS)["made_with"]
        if found != _identity(settings):
            raise ConfigError(
                f"corpus.near_duplicates.earlier: {folder} was made with {found}, not "
                f"{_identity(settings)}: their keys cannot be compared.",
                "Use the same ngram, num_bands, rows_per_band and seed.",
            )
        yield ShardLedger(index)


def check_earlier(settings: NearDuplicateConfig) -> None:
    """Raise ConfigError for a keep-index that cannot be used."""
    for _ in earlier_indexes(settings):
        pass


def load_keep_indexes(settings: NearDuplicateConfig) -> KeepIndex:
    """All of `settings.earlier` in memory, one after another. Raises as `earlier_indexes`."""
    width = settings.num_bands * settings.rows_per_band
    names = band_names(settings)
    empty = {
        "snippet_id": pa.array([], pa.string()),
        **{name: pa.array([], pa.uint64()) for name in names},
        SIGNATURE: pa.array([], pa.binary(width)),
    }
    tables = [index.read(TABLE, list(empty)) for index in earlier_indexes(settings)]
    table = pa.concat_tables([pa.table(empty), *(found for found in tables if found.num_columns)])
    return KeepIndex(
        table["snippet_id"],
        tuple(table[name].to_numpy() for name in names),
        signature_matrix(table[SIGNATURE], settings),
    )


def _identity(settings: NearDuplicateConfig) -> str:
    numbers = (settings.ngram, settings.num_bands, settings.rows_per_band, settings.seed)
    return f"{ALGORITHM}/{'-'.join(map(str, numbers))}"
