"""What a ledger's markers and roll-ups say, and how its entries are called."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

COMMITS, ROLLUPS = "_commits", "_rollups"
# What we write in each kind of folder; other entries (lost+found, a core file) are not ours.
GROUP, ROLLUP = re.compile(r"(\d{5,})"), re.compile(r"(\d{5,})\.parquet")
MARKER = re.compile(r"(\d{8,})\.json")
TABLE_FILE = re.compile(r"(\d{8,})\.[0-9a-z]+\.parquet")


@dataclass(frozen=True)
class ShardCommit:
    """What one marker says. `files` and `num_rows` have one entry per table.

    `stats` are counts that a reader may want without opening the tables, for example rejected rows
    by reason; `committed_s` is the time of the commit, in seconds since the epoch. `num_bytes` and
    `digests` (sha256, 32 hex digits) are of the files, per table; shards of older releases have
    none.
    """

    shard_id: int
    attempt: str
    num_input_rows: int
    files: dict[str, str]
    num_rows: dict[str, int]
    stats: dict[str, int] = field(default_factory=dict)
    committed_s: float = 0.0
    num_bytes: dict[str, int] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The marker's JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def parse(text: str | bytes) -> ShardCommit:
        """Raises ValueError or TypeError for what is no marker."""
        return ShardCommit(**json.loads(text))


@dataclass
class Totals:
    """Sums over committed shards, and when the first and the last of them were committed."""

    num_shards: int = 0
    num_input_rows: int = 0
    num_rows: Counter[str] = field(default_factory=Counter)
    stats: Counter[str] = field(default_factory=Counter)
    first_s: float = float("inf")
    last_s: float = 0.0
    num_bytes: Counter[str] = field(default_factory=Counter)

    def add(self, other: Totals) -> None:
        self.num_shards += other.num_shards
        self.num_input_rows += other.num_input_rows
        self.num_rows.update(other.num_rows)
        self.stats.update(other.stats)
        self.first_s = min(self.first_s, other.first_s)
        self.last_s = max(self.last_s, other.last_s)
        self.num_bytes.update(other.num_bytes)

    @staticmethod
    def of(commit: ShardCommit) -> Totals:
        return Totals(
            1,
            commit.num_input_rows,
            Counter(commit.num_rows),
            Counter(commit.stats),
            commit.committed_s,
            commit.committed_s,
            Counter(commit.num_bytes),
        )

    @property
    def text(self) -> str:
        """As JSON."""
        return json.dumps(vars(self))

    @staticmethod
    def parse(text: str | bytes) -> Totals:
        record = json.loads(text)
        counters = ("num_rows", "stats", "num_bytes")
        return Totals(**record | {name: Counter(record.get(name, {})) for name in counters})


def content_digest(data: bytes) -> str:
    """As a marker keeps it of each file."""
    return hashlib.sha256(data).hexdigest()[:32]


def own_numbers(pattern: re.Pattern[str], names: Iterable[str]) -> list[int]:
    """The numbers in those of `names` that `pattern` says are ours."""
    return [int(match[1]) for name in names if (match := pattern.fullmatch(name))]
