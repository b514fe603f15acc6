"""Pairs of sets as trainings and tests take them: which of them, in which order, and which fit.

What is asked for twice is found once: lengths are measured in tokens of each model's tokenizer.

Pairs of another construction are made of the same rows (Figure 6), where those hold what it takes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from codepmp_ray.config.studies import StudiesConfig
from codepmp_ray.errors import InputError
from codepmp_ray.hub_models import pin
from codepmp_ray.preference.items import EncodedItem
from codepmp_ray.preference.sources.rows import Row
from codepmp_ray.records import stable_id
from codepmp_ray.studies.sets import PairSet, problem_of, rows_digest
from codepmp_ray.studies.trainings import Pairs

_ROWS_AT_ONCE = 256
_NO_LIMIT = 1 << 30
# In the paper's words: "A & B" takes chosen from A and rejected from B.
STRONG_WEAK = "strong & weak"
SOURCE_WEAK = "source code & weak"
SOURCE_STRONG = "source code & strong"
REVERSED = "weak & strong (a check: labels reversed)"


def construct(name: str, row: Row) -> Row | None:
    """The pair of `row` under construction `name`; None if the row lacks a side."""
    if not name:
        return row
    chosen, rejected = _SIDES[name](row)
    if not chosen or not rejected or chosen == rejected:
        return None
    prompt = row["prompt"]
    pair_id = stable_id(prompt, chosen, rejected)
    return row | {"chosen": chosen, "rejected": rejected, "pair_id": pair_id}


def _source(row: Row) -> str:
    code = row.get("source_code")
    return f"```python\n{code.strip()}\n```" if isinstance(code, str) and code.strip() else ""


_SIDES: dict[str, Callable[[Row], tuple[str, str]]] = {
    STRONG_WEAK: lambda row: (row["chosen"], row["rejected"]),
    SOURCE_WEAK: lambda row: (_source(row), row["rejected"]),
    SOURCE_STRONG: lambda row: (_source(row), row["chosen"]),
    REVERSED: lambda row: (row["rejected"], row["chosen"]),
}


@dataclass(frozen=True)
class TestPairs:
    """Pairs that are scored.

    Attributes:
        problems: of each pair the question, whose pairs are resampled together.
        num_too_long: test pairs left out, because they exceed the training's max_length.
    """

    __test__ = False

    rows: list[Row]
    problems: list[str]
    num_too_long: int
    digest: str


@dataclass
class PairRows:
    """Attributes:
    find_set: a set by its name; raises MissingSet when it is not here.
    """

    config: StudiesConfig
    find_set: Callable[[str], PairSet]
    _rows: dict[tuple[Pairs, str], list[Row]] = field(default_factory=dict)
    _tests: dict[tuple[str, int, str], TestPairs] = field(default_factory=dict)
    _lengths: dict[str, dict[Any, int]] = field(default_factory=lambda: defaultdict(dict))
    _encoders: dict[str, Any] = field(default_factory=dict)

    def rows(self, pairs: Pairs, model: str) -> list[Row]:
        """The training pairs, all of which fit `max_length` for `model`'s tokenizer.

        There may be fewer than asked for: see `num_available`. Raises InputError for none.
        """
        known = self._rows.get((pairs, self.tokenizer_of(model)))
        if known is None:
            known = self._rows[pairs, self.tokenizer_of(model)] = self._find_rows(pairs, model)
        return known

    def _find_rows(self, pairs: Pairs, model: str) -> list[Row]:
        limit = self._max_length
        if pairs.part == "shuffled":
            found = [row for name in pairs.sets for row in self.find_set(name).train]
            found = _questions_first(found, pairs.seed)
        else:
            order = pairs.sets if pairs.part == "first" else pairs.sets[::-1]
            found = [
                row for name in order for row in _by_hash(self.find_set(name).train, pairs.part)
            ]
        made = [row for row in (construct(pairs.construction, row) for row in found) if row]
        usable: list[Row] = []
        for start in range(0, len(made), _ROWS_AT_ONCE):
            some = made[start : start + _ROWS_AT_ONCE]
            self._measure(some, model)
            usable += [row for row in some if self.num_tokens(row, model) <= limit]
            if len(usable) >= pairs.num_pairs:
                break
        usable = usable[: pairs.num_pairs]
        if not usable:
            raise InputError(f"No pair of {', '.join(pairs.sets)} fits max_length={limit}.")
        return usable

    def num_available(
        self, sets: tuple[str, ...], model: str, wanted: int, construction: str = ""
    ) -> int:
        """Training pairs of `sets` that fit, up to `wanted`: a large set is not read to its end."""
        return len(self.rows(Pairs(sets, wanted, construction=construction), model))

    def test_pairs(self, name: str, num: int, model: str) -> TestPairs:
        """Up to about `num` test pairs, whole questions, those of a hash's order."""
        asked = (name, num, self.tokenizer_of(model))
        if asked not in self._tests:
            self._tests[asked] = self._find_test_pairs(name, num, model)
        return self._tests[asked]

    def _find_test_pairs(self, name: str, num: int, model: str) -> TestPairs:
        by_problem: dict[str, list[Row]] = defaultdict(list)
        for row in self.find_set(name).test:
            by_problem[problem_of(row)].append(row)
        kept: list[Row] = []
        num_too_long = 0
        for problem in sorted(by_problem, key=stable_id):
            if len(kept) >= num:
                break
            rows = by_problem[problem]
            fits = all(self.num_tokens(row, model) <= self._max_length for row in rows)
            num_too_long += 0 if fits else len(rows)
            kept += rows if fits else []
        if len(kept) < 2:
            raise InputError(f"The test part of {name!r} has {len(kept)} pairs that fit.")
        problems = [problem_of(row) for row in kept]
        return TestPairs(kept, problems, num_too_long, rows_digest(kept))

    def num_tokens(self, row: Row, model: str) -> int:
        """Of the prompt and the longer side; beyond every limit for what cannot be encoded."""
        known = self._lengths[self.tokenizer_of(model)]
        if _texts(row) not in known:
            self._measure([row], model)
        return known[_texts(row)]

    def _measure(self, rows: list[Row], model: str) -> None:
        """`num_tokens` of many rows; they are tokenised in one call."""
        from codepmp_ray.preference.encoding import encode_pairs

        known = self._lengths[self.tokenizer_of(model)]
        new = [row for row in rows if _texts(row) not in known]
        found = encode_pairs(new, self.encoder(model), _NO_LIMIT, "reject")
        for row, pair in zip(new, found, strict=True):
            known[_texts(row)] = (
                pair.padded_shape("best")[1] if isinstance(pair, EncodedItem) else _NO_LIMIT
            )

    @property
    def _max_length(self) -> int:
        return min(self.config.rm.max_length, self.config.pmp.max_length)

    def tokenizer_of(self, model: str) -> str:
        shape = self.config.models[model]
        return shape.weights or shape.tokenizer

    def encoder(self, model: str) -> Any:
        """The encoder that trainings from `model` use."""
        name = self.tokenizer_of(model)
        if name not in self._encoders:
            from codepmp_ray.modeling.loading import load_tokenizer
            from codepmp_ray.preference.tokenization import Encoder, PromptTemplate

            config = self.config.rm
            tokenizer = load_tokenizer(pin(self.config.run_dir, name))
            template = PromptTemplate.from_tokenizer(
                tokenizer, config.template, config.append_eos, config.chat_template_kwargs
            )
            self._encoders[name] = Encoder(tokenizer, template)
        return self._encoders[name]


def _texts(row: Row) -> tuple[str | None, ...]:
    """What the length follows from; sets of two constructions may share the ids of their pairs."""
    return row["pair_id"], row["prompt"], row["chosen"], row["rejected"]


def _by_hash(rows: list[Row], part: str) -> list[Row]:
    ordered = sorted(rows, key=lambda row: stable_id("order", row["pair_id"]))
    return ordered if part == "first" else ordered[::-1]


def _questions_first(rows: list[Row], seed: int) -> list[Row]:
    """By `seed`; a question's second pair comes after the first pairs of all questions."""
    rows = sorted(rows, key=lambda row: stable_id(str(seed), row["pair_id"]))
    seen: Counter[str] = Counter()
    turns = []
    for row in rows:
        problem = problem_of(row)
        turns.append(seen[problem])
        seen[problem] += 1
    order = sorted(range(len(rows)), key=lambda i: turns[i])
    return [rows[i] for i in order]
