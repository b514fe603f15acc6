"""MinHash sketches of snippets: band keys that find candidates, and signatures that judge them.

A snippet is the set of its word n-grams. Two snippets of Jaccard similarity s share at least one
of b band keys of r hashes each with probability 1 - (1 - s^r)^b (Leskovec et al., Mining of
Massive Datasets, section 3.4); with the default 16 bands of 7 that is 0.74 at s = 0.7 and 0.98 at
s = 0.8. Short functions share boilerplate, and there are many pairs of them, so candidates are
judged by their signatures: the lowest byte of every hash (b-bit MinHash, Li and König 2010), which
estimates s with a standard deviation of about 0.04. Hashing is done by rensa.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import rensa

from codepmp_ray.config.corpus import NearDuplicateConfig
from codepmp_ray.corpus.words import split_words

# Keys of different versions cannot be compared, so a stored index carries this.
_MinHash = rensa.RMinHash  # pyright: ignore[reportAttributeAccessIssue] (a compiled module)
ALGORITHM = f"words-1/rensa-{_MinHash.ALGORITHM_VERSION}"
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio, odd

Keys = npt.NDArray[np.uint64]
Signatures = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Sketches:
    """Of n texts: `keys` [n, num_bands], `signatures` [n, num_bands * rows_per_band] of bytes."""

    keys: Keys
    signatures: Signatures


def sketch(codes: list[str], settings: NearDuplicateConfig) -> Sketches:
    """Each row depends on its code and the settings alone.

    Punctuation, white space and case of letters do not count. Code with fewer words than an
    n-gram is one shingle.
    """
    num_bands, num_rows, n = settings.num_bands, settings.rows_per_band, settings.ngram
    num_hashes = num_bands * num_rows
    if not codes:
        nothing = np.empty((0, num_hashes), dtype=np.uint8)
        return Sketches(np.empty((0, num_bands), dtype=np.uint64), nothing)
    words: list[str] = []
    lengths = np.empty(len(codes), dtype=np.int64)
    for i, code in enumerate(codes):
        found = split_words(code)
        found += [""] * (n - len(found))
        lengths[i] = len(found)
        words += found
    hashes = np.array(_MinHash.hash_token_sets([words])[0], dtype=np.uint64)
    shingles = _shingles(hashes, lengths, n)
    offsets = np.concatenate([[0], np.cumsum(lengths - n + 1)]).tolist()
    matrix = _MinHash.digest_matrix_from_flat_token_hashes(
        shingles, offsets, num_hashes, settings.seed
    )
    hashed = np.array(matrix.to_rows(), dtype=np.uint64)
    keys = _fold(hashed.reshape(len(codes), num_bands, num_rows))
    return Sketches(keys, hashed.astype(np.uint8))


def similarity(left: Signatures, right: Signatures) -> npt.NDArray[np.float64]:
    """Estimated Jaccard similarity of each row of `left` with the same row of `right`."""
    by_chance = 1 / 256  # unequal hashes that have an equal byte
    return ((left == right).mean(axis=1) - by_chance) / (1 - by_chance)


def _shingles(hashes: Keys, lengths: npt.NDArray[np.int64], n: int) -> Keys:
    """Hash of every n-gram that lies inside one text; texts follow each other in `hashes`."""
    rolled = np.zeros(len(hashes) - n + 1, dtype=np.uint64)
    for i in range(n):
        rolled = _mix(rolled) + hashes[i : len(hashes) - n + 1 + i]
    inside = np.ones(len(hashes), dtype=bool)
    if n > 1:
        ends = np.cumsum(lengths)
        inside[(ends[:, None] - np.arange(1, n)).ravel()] = False
    return _mix(rolled)[inside[: len(rolled)]]


def _fold(signatures: Keys) -> Keys:
    """[texts, bands, rows] -> [texts, bands], the rows of a band and its number mixed into one."""
    folded = np.broadcast_to(
        np.arange(signatures.shape[1], dtype=np.uint64), signatures.shape[:2]
    ).copy()
    for row in range(signatures.shape[2]):
        folded = _mix(folded) + signatures[:, :, row]
    return _mix(folded)


def _mix(values: Keys) -> Keys:
    """The finaliser of splitmix64 (Steele et al. 2014), wrapping."""
    values = values + _FACTOR
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
