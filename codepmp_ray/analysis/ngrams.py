"""N-grams over hash buckets and their divergence. Paper, Tables 15 and 16, Figures 10 and 11.

Table 15's "density" is the number of n-grams over 100 buckets, which is length; the entropy over
buckets stands beside it. Table 16's divergences depend on how much text is looked at and on the
smoothing, neither of which the paper gives. Here all texts are cut to equally many n-grams, rare
ones are smoothed by adding 1/2, and "human bootstrap" is the divergence between two resamples of
the human documents: what a distance between equal sources looks like at this size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from codepmp_ray.analysis.diversity import (
    NUM_BUCKETS,
    ORDERS,
    bucket_of,
    density,
    first_words,
    ngram_figures,
    ngrams_of,
)
from codepmp_ray.corpus.words import split_words
from codepmp_ray.errors import InputError
from codepmp_ray.resampling import Floats, Interval, intervals

SMOOTHING = 0.5
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Divergence:
    """KL(source || human) in nats for n-grams of one order."""

    order: int
    num_ngrams: int
    human_bootstrap: Interval
    against_human: dict[str, Interval]


def bucket_table(sources: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Density, entropy and shares of buckets by source and order; JSON values.

    Density is of all texts; entropy and shares (Figures 10, 11) of equally many words each. No
    n-gram crosses from one text to the next.
    """
    words = {name: [split_words(text) for text in texts] for name, texts in sources.items()}
    num_words = {name: sum(map(len, documents)) for name, documents in words.items()}
    num_compared = min(num_words.values(), default=0)
    if not num_compared:
        raise InputError("A source without words cannot be compared.")
    cut = {name: first_words(documents, num_compared) for name, documents in words.items()}
    return {
        "num_words_compared": num_compared,
        "sources": {
            name: {
                str(n): {
                    "density": density(documents, n),
                    **ngram_figures(cut[name], n),
                    "bucket_shares": _bucket_shares(cut[name], n),
                }
                for n in ORDERS
            }
            for name, documents in words.items()
        },
    }


def divergences(
    human: Sequence[str],
    others: Mapping[str, Sequence[str]],
    num_bootstrap: int = 200,
    confidence: float = 0.95,
) -> list[dict[str, Any]]:
    """Table 16 with intervals over documents, a `Divergence` as JSON values for each order.

    Raises InputError when a source has fewer than two documents or no n-grams.
    """
    return [asdict(_divergence(human, others, n, num_bootstrap, confidence)) for n in ORDERS]


def kl_divergence(left: Floats, right: Floats) -> float:
    """KL(left || right) in nats of counts [n-grams that either has]."""
    seen = (left + right) > 0
    p, q = left[seen] + SMOOTHING, right[seen] + SMOOTHING
    p, q = p / p.sum(), q / q.sum()
    return float((p * np.log(p / q)).sum())


def _divergence(
    human: Sequence[str],
    others: Mapping[str, Sequence[str]],
    order: int,
    num_bootstrap: int,
    confidence: float,
) -> Divergence:
    names = ["human", *others]
    ids, num_kinds = _numbered([human, *others.values()], order)
    sizes = [sum(map(len, documents)) for documents in ids]
    for name, documents, size in zip(names, ids, sizes, strict=True):
        if len(documents) < 2 or not size:
            raise InputError(
                f"{name} has {len(documents)} documents with {size} n-grams of order {order}; at "
                "least two documents are needed."
            )
    # Of this many every resample can be cut; a resample of n documents may be short.
    num = min(sizes) // 2
    generator = np.random.default_rng([0, order])

    def counts(documents: list[Ids]) -> Floats:
        taken: list[Ids] = []
        missing = num
        while missing > 0:
            for index in generator.integers(len(documents), size=len(documents)):
                taken.append(documents[index][:missing])
                missing -= len(taken[-1])
                if missing <= 0:
                    break
        return np.bincount(np.concatenate(taken), minlength=num_kinds).astype(float)

    draws = np.empty((num_bootstrap, len(names)))
    for row in range(num_bootstrap):
        reference = counts(ids[0])
        for column, documents in enumerate(ids):
            draws[row, column] = kl_divergence(counts(documents), reference)
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], axis=0)
    human_bootstrap, *against = intervals(draws.mean(axis=0), low, high)
    return Divergence(order, num, human_bootstrap, dict(zip(others, against, strict=True)))


def _numbered(sources: Sequence[Sequence[str]], order: int) -> tuple[list[list[Ids]], int]:
    """N-grams of each document as numbers; none crosses from one document to the next."""
    numbers: dict[tuple[str, ...], int] = {}
    found: list[list[Ids]] = []
    for texts in sources:
        documents = []
        for text in texts:
            words = split_words(text)
            grams = zip(*(words[i:] for i in range(order)), strict=False)
            ids = [numbers.setdefault(gram, len(numbers)) for gram in grams]
            if ids:
                documents.append(np.array(ids, dtype=np.int64))
        found.append(documents)
    return found, len(numbers)


def _bucket_shares(documents: list[list[str]], n: int) -> list[float]:
    counts = np.zeros(NUM_BUCKETS)
    for gram in ngrams_of(documents, n):
        counts[bucket_of(gram)] += 1
    return (counts / max(counts.sum(), 1)).tolist()
