"""Texts of several sources in the plane, and how far the sources overlap. Paper, Figure 12.

The paper looks at two scatter plots and finds "highly overlapping distribution ranges". A plane of
two components hides most of what tells texts apart, so the overlap is measured in the whole space:
of each text's nearest neighbours, the share from its own source. Equal sources give `by_chance`.

Vectors are given, or made here without a model: TF-IDF of words and word pairs, hashed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from zlib import crc32

import numpy as np
import numpy.typing as npt

from codepmp_ray.corpus.words import split_words
from codepmp_ray.errors import InputError
from codepmp_ray.resampling import Floats, Interval, intervals, percentiles, resampled_means

Vectors = npt.NDArray[np.float32]
MAX_TEXTS = 2_000  # of each source: neighbours compare all with all
_NUM_FEATURES = 512
_NEIGHBOURS = 10


@dataclass(frozen=True)
class EmbeddingMap:
    """`points` [texts, 2] by source; `explained` is the plane's share of the variance.

    `same_source` is the mean share of a text's 10 nearest neighbours that are of its own source.
    """

    points: dict[str, Floats]
    explained: float
    same_source: dict[str, Interval]
    by_chance: dict[str, float]


def hashed_tfidf(sources: Mapping[str, Sequence[str]]) -> dict[str, Vectors]:
    """Unit vectors [texts, 512] by source. Document frequencies are of all texts together."""
    counted = {name: [_features(text) for text in texts] for name, texts in sources.items()}
    frequency: Counter[int] = Counter()
    for rows in counted.values():
        for row in rows:
            frequency.update(row.keys())
    num = sum(map(len, counted.values()))
    weight = np.array([np.log((1 + num) / (1 + frequency[i])) + 1 for i in range(_NUM_FEATURES)])
    return {
        name: np.array([_vector(row, weight) for row in rows], dtype=np.float32)
        for name, rows in counted.items()
    }


def embedding_map(vectors: Mapping[str, Vectors], confidence: float = 0.95) -> EmbeddingMap:
    """Two principal components of all sources together, and their overlap.

    Of a source with more than MAX_TEXTS texts that many are drawn. Raises InputError for fewer than
    two texts in a source, or vectors of different length.
    """
    generator = np.random.default_rng(0)
    taken: dict[str, Vectors] = {}
    for name, rows in vectors.items():
        if len(rows) < 2:
            raise InputError(f"The source {name!r} has {len(rows)} texts; a map needs two of each.")
        if len(rows) > MAX_TEXTS:
            rows = rows[np.sort(generator.choice(len(rows), MAX_TEXTS, replace=False))]
        taken[name] = np.asarray(rows, np.float32)
    widths = {rows.shape[1] for rows in taken.values()}
    if len(widths) != 1:
        raise InputError(f"Vectors of all sources need one length, not {sorted(widths)}.")
    stacked = np.concatenate(list(taken.values()))
    owner = np.repeat(np.arange(len(taken)), [len(rows) for rows in taken.values()])
    centred = stacked - stacked.mean(axis=0)
    points, explained = _plane(centred.astype(np.float64))
    same = _same_source(stacked, owner)
    overlap, chance = {}, {}
    for index, name in enumerate(taken):
        own = same[owner == index]
        limits = percentiles(resampled_means(own[:, None], 2_000), confidence)
        (overlap[name],) = intervals([own.mean()], *limits)
        chance[name] = (len(own) - 1) / (len(stacked) - 1)
    return EmbeddingMap(
        {name: points[owner == index] for index, name in enumerate(taken)},
        explained,
        overlap,
        chance,
    )


def _plane(centred: Floats) -> tuple[Floats, float]:
    """Coordinates [texts, 2] on the first two principal components, and their variance's share."""
    total = max(float((centred**2).sum()), 1e-12)
    if len(centred) < centred.shape[1]:  # the smaller of the two matrices has the same values
        values, vectors = np.linalg.eigh(centred @ centred.T)
        points = vectors[:, :-3:-1] * np.sqrt(np.maximum(values[:-3:-1], 0))
    else:
        values, directions = np.linalg.eigh(centred.T @ centred)
        points = centred @ directions[:, :-3:-1]
    return points, float(values[-2:].sum() / total)


def _same_source(vectors: Vectors, owner: npt.NDArray[np.intp]) -> Floats:
    """Share of each vector's nearest neighbours (cosine) that have its owner [vectors]."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    num_neighbours = min(_NEIGHBOURS, len(unit) - 1)
    shares = np.empty(len(unit))
    for start in range(0, len(unit), 500):
        rows = np.arange(start, min(start + 500, len(unit)))
        likeness = unit[rows] @ unit.T
        likeness[np.arange(len(rows)), rows] = -np.inf
        nearest = np.argpartition(-likeness, num_neighbours - 1, axis=1)[:, :num_neighbours]
        shares[rows] = (owner[nearest] == owner[rows][:, None]).mean(axis=1)
    return shares


def _features(text: str) -> Counter[int]:
    words = split_words(text)
    pairs = (f"{left} {right}" for left, right in pairwise(words))
    return Counter(
        crc32(token.encode("utf-8", "surrogatepass")) % _NUM_FEATURES for token in [*words, *pairs]
    )


def _vector(counts: Counter[int], weight: Floats) -> Floats:
    row = np.zeros(_NUM_FEATURES)
    for index, count in counts.items():
        row[index] = (1 + np.log(count)) * weight[index]
    return row / max(float(np.linalg.norm(row)), 1e-12)
