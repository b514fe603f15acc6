"""The keep-index: the sketches of what a corpus kept, for corpora that come later.

Rule for data that arrives later: snippets of earlier corpora come before all new ones in corpus
order and are never removed; so a new snippet that is in a cluster with one of them leaves, and the
earlier one is named as the winner. Corpora that were made one after another, each against those
before, hold no near-duplicates of each other, as far as the bands tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from codepmp_ray.config.corpus import NearDuplicateConfig
from codepmp_ray.corpus.minhash import ALGORITHM, Signatures, Sketches
from codepmp_ray.errors import ConfigError
from codepmp_ray.storage import Store, is_uri, open_store

SIGNATURE = "signature"
NAME = "keep_index.parquet"
_SETTINGS_KEY = b"codepmp_near_duplicates"


@dataclass(frozen=True)
class KeepIndex:
    """Kept snippets of earlier corpora, in order. `bands` has one array of keys per band,
    `signatures` one row per snippet."""

    snippet_ids: tuple[str, ...]
    bands: tuple[np.ndarray, ...]
    signatures: np.ndarray


def band_names(settings: NearDuplicateConfig) -> list[str]:
    """Columns that hold band keys; none when near-duplicates are not looked for."""
    return [f"band_{i:03d}" for i in range(settings.num_bands)] if settings.enabled else []


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
    data = b"".join(column.to_pylist())
    return np.frombuffer(data, np.uint8).reshape(-1, settings.num_bands * settings.rows_per_band)


def save_keep_index(
    store: Store, snippet_ids: pa.Array, sketches: Sketches, settings: NearDuplicateConfig
) -> None:
    """Write the index of a corpus: ids and sketches of its kept snippets."""
    table = pa.table({"snippet_id": snippet_ids, **sketch_columns(sketches, settings)})
    store.put_table(NAME, table.replace_schema_metadata({_SETTINGS_KEY: _identity(settings)}))


def load_keep_indexes(settings: NearDuplicateConfig) -> KeepIndex:
    """The indexes of `settings.earlier` (stage folders), one after another.

    Raises ConfigError when one is missing or was made with other settings.
    """
    ids: list[str] = []
    width = settings.num_bands * settings.rows_per_band
    parts = [[np.empty(0, dtype=np.uint64)] for _ in band_names(settings)]
    signatures = [np.empty((0, width), dtype=np.uint8)]
    for folder in settings.earlier if settings.enabled else ():
        store = open_store(folder if is_uri(folder) else Path(folder).expanduser())
        if not store.exists(NAME):
            raise ConfigError(
                f"corpus.near_duplicates.earlier: {store.locate(NAME)} does not exist.",
                "Name the folder of a complete corpus stage that looked for near-duplicates.",
            )
        table = store.read_table(NAME)
        found = (table.schema.metadata or {}).get(_SETTINGS_KEY, b"")
        if found != _identity(settings):
            raise ConfigError(
                f"corpus.near_duplicates.earlier: {store.uri} was made with {found.decode()}, not "
                f"{_identity(settings).decode()}: their keys cannot be compared.",
                "Use the same ngram, num_bands, rows_per_band and seed.",
            )
        ids += table["snippet_id"].to_pylist()
        for part, name in zip(parts, band_names(settings), strict=True):
            part.append(table[name].to_numpy())
        signatures.append(signature_matrix(table[SIGNATURE], settings))
    return KeepIndex(tuple(ids), tuple(map(np.concatenate, parts)), np.concatenate(signatures))


def _identity(settings: NearDuplicateConfig) -> bytes:
    numbers = (settings.ngram, settings.num_bands, settings.rows_per_band, settings.seed)
    return f"{ALGORITHM}/{'-'.join(map(str, numbers))}".encode()
