"""Where a set's pairs come from, and which of them train: file, hub, or made here.

A test part is chosen by a hash of the question (of the file, for code), so that no question is on
both sides and adding rows moves none.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from codepmp_ray.config.data import DataSourceConfig
from codepmp_ray.config.study_materials import MADE_HERE, SetConfig
from codepmp_ray.errors import InputError
from codepmp_ray.preference.encoding import row_id
from codepmp_ray.preference.sources import SOURCES
from codepmp_ray.preference.sources.reading import column_use, numbered, pairs_of, read_source
from codepmp_ray.preference.sources.rows import Built, Reject, Row, of_one_answer
from codepmp_ray.studies import example_solutions
from codepmp_ray.studies.code_pairs import function_pairs, humaneval_pairs, stdlib_functions

_HUB_TIMEOUT_S = 3.0
_READ_HERE = ("python_functions", "example_solutions")  # no training source has these kinds
_SPEAKERS = {"user": "Human", "assistant": "Assistant", "system": "System"}
_LAYOUT = "docs/reproducing.md lists the files that are looked for below data_dir."


@dataclass(frozen=True)
class PairSet:
    """A set that was found.

    Attributes:
        origin: where its rows came from, for the report.
        rejected: rows that became no pair, by reason.
        has_own_split: whether the set says itself what is test; else its questions were split.
    """

    name: str
    title: str
    train: list[Row]
    test: list[Row]
    origin: str
    rejected: dict[str, int]
    has_own_split: bool


class MissingSet(InputError):
    """A set that is not here; a study that needs it is not run, and the report says what to do."""


def load_set(name: str, config: SetConfig, data_dir: str | None) -> PairSet:
    """Read the set. Raises MissingSet when it is nowhere, InputError when it is damaged."""
    sources, tests, origin = _places(name, config, data_dir)
    rejected: Counter[str] = Counter()
    rows = [row for source in sources for row in _rows(config, source, rejected)]
    rows = [row for row in rows if not is_test(row, config.left_out)]
    if tests is None:
        test = [row for row in rows if is_test(row, config.test_fraction)]
        train = [row for row in rows if not is_test(row, config.test_fraction)]
    else:
        train, test = rows, [row for source in tests for row in _rows(config, source, rejected)]
    if config.kind == "example_solutions" and config.balance:
        train, test = map(example_solutions.one_of_each_question, (train, test))
    if not (train or config.test_fraction == 1) or not (test or config.test_fraction == 0):
        raise InputError(
            f"The set {name!r} ({origin}) gives {len(train)} training and {len(test)} test pairs; "
            f"rejected: {dict(rejected)}.",
            "docs/data-format.md shows what rows of its kind look like.",
        )
    return PairSet(
        name, config.title or name, train, test, origin, dict(rejected), tests is not None
    )


def require_set(name: str, config: SetConfig, data_dir: str | None) -> None:
    """Raises MissingSet when `load_set` would find no place to read from; reads nothing."""
    _places(name, config, data_dir)


def is_test(row: Row, fraction: float) -> bool:
    """Whether the row's question (its file, for code) belongs to the test part."""
    origin = row.get("problem_id") or row.get("source_id") or row_id(row)
    digest = hashlib.sha256(f"test|{origin}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < fraction


def problem_of(row: Row) -> str:
    """The question that a pair is about; its pairs are resampled together."""
    return str(row.get("problem_id") or row.get("pair_id") or row_id(row))


Place = DataSourceConfig | Path | None


def _places(
    name: str, config: SetConfig, data_dir: str | None
) -> tuple[list[Place], list[Place] | None, str]:
    """(sources of training rows, of test rows or None, where that is in words)."""
    if config.kind in MADE_HERE:
        return [None], None, "made here"
    if data_dir is not None and config.paths:
        files = [Path(data_dir) / path for path in (*config.paths, *config.test_paths)]
        if all(file.exists() for file in files):
            made = [_source(config, file) for file in files]
            num = len(config.paths)
            tests: list[Place] | None = made[num:] if config.test_paths else None
            return made[:num], tests, ", ".join((*config.paths, *config.test_paths))
    if config.hub_set and config.kind not in _READ_HERE and is_hub_reachable():
        common: dict[str, Any] = {
            "kind": config.kind,
            "hub_id": config.hub_set,
            "subset": config.subset,
            "max_pairs_per_problem": config.max_pairs_per_problem,
            "balance": config.balance,
            "prompt_format": config.prompt_format,
            "max_rows": config.max_rows,
        }
        train = DataSourceConfig(split=config.split, **common)
        own = config.test_split
        tests = [DataSourceConfig(split=own, **common)] if own else None
        return [train], tests, f"hub: {config.hub_set}"
    wanted = " and ".join((*config.paths, *config.test_paths)) or "no file"
    below = "data_dir, which is not set" if data_dir is None else data_dir
    hub = f", and {config.hub_set} of the hub is out of reach" if config.hub_set else ""
    made = f"`{config.made_by}` makes it. " if config.made_by else ""
    raise MissingSet(
        f"The set {name!r} is not here: it is looked for as {wanted} below {below}{hub}.",
        f"{made}Set data_dir=FOLDER, or sets.{name}.paths. {_LAYOUT}",
    )


def _source(config: SetConfig, file: Path) -> Place:
    if config.kind in _READ_HERE:
        return file
    assert config.kind not in MADE_HERE, "made without a file"
    return DataSourceConfig(
        kind=config.kind,
        path=str(file),
        max_pairs_per_problem=config.max_pairs_per_problem,
        balance=config.balance,
        prompt_format=config.prompt_format,
        max_rows=config.max_rows,
    )


def _rows(config: SetConfig, source: Place, rejected: Counter[str]) -> Iterator[Row]:
    if config.kind == "stdlib_functions":
        yield from islice(function_pairs(stdlib_functions()), config.max_rows)
    elif config.kind == "humaneval_corrupted":
        yield from islice(humaneval_pairs(), config.max_rows)
    elif config.kind == "example_solutions":
        made = example_solutions.build(numbered("the solutions", str(source)))
        yield from islice(_counted(made, rejected), config.max_rows)
    elif isinstance(source, Path):
        yield from islice(function_pairs(_functions(source)), config.max_rows)
    else:
        assert source is not None, "a set is made here or read from somewhere"
        for built in islice(_counted(_built(source), rejected), source.max_rows):
            yield as_transcript(built) if config.as_transcript else built


def _counted(made: Iterable[Built], rejected: Counter[str]) -> Iterator[Row]:
    """The pairs; rejects are counted by reason."""
    for built in made:
        if isinstance(built, Reject):
            rejected[str(built.reason)] += 1
        else:
            yield built


def _built(source: DataSourceConfig) -> Iterator[Built]:
    """What the kind's builder makes; a pair keeps `source_code`, of which others can be made."""
    if source.kind != "preference":
        yield from map(of_one_answer, pairs_of(source))
        return
    build = SOURCES[source.kind].build
    for item in column_use(source).rows(read_source(source)):
        for built in map(of_one_answer, build([item], source)):
            code = None if isinstance(item, Reject) else item[1].get("source_code")
            yield built if isinstance(built, Reject) or not code else {**built, "source_code": code}


def as_transcript(row: Row) -> Row:
    """The pair with its conversation as one text, which ends where the assistant's turn begins."""
    messages = row["messages"] or [{"role": "user", "content": row["prompt"]}]
    turns = [f"\n\n{_SPEAKERS[turn['role']]}: {turn['content']}" for turn in messages]
    return row | {"messages": None, "prompt": "".join(turns) + "\n\nAssistant:"}


def _functions(file: Path) -> Iterator[Row]:
    for item in numbered("the functions", str(file)):
        if not isinstance(item, Reject):
            yield item[1]


@cache
def is_hub_reachable() -> bool:
    """Whether the model hub answers at all; asked once, in a few seconds."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return False
    address = urlparse(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        with socket.create_connection((address.hostname or "", port), timeout=_HUB_TIMEOUT_S):
            return True
    except OSError:
        return False


def rows_digest(rows: list[Row]) -> str:
    """12 hex digits that change with any row or their order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False).encode("utf-8"))
        digest.update(b"\n")
    return digest.hexdigest()[:12]
