"""Continuation pairs (after arXiv 2603.02225): a snippet's own rest against that of another one.

The prompt is the beginning of a snippet. No model is asked. Partners stand in for each other: the
beginning of i is refused with the rest of j, and that of j with the rest of i. So every text stands
once on each side, and no rule that looks at the answer alone (its length, its style) can tell the
label. A gate that refuses one of the two pairs refuses both.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from codepmp_ray.config.synthesis import ContinuationConfig, SynthesisConfig
from codepmp_ray.corpus.licenses import license_text
from codepmp_ray.records import PAIR_OF_TWO_FILES, stable_id
from codepmp_ray.reject_reasons import RejectReason
from codepmp_ray.synthesis.gates import Rejection, judge_pair
from codepmp_ray.synthesis.pairs import rejected_row
from codepmp_ray.synthesis.rows import Row, tables_of


@dataclass(frozen=True)
class Broken:
    """A snippet in two parts, each of whole lines."""

    snippet: Row
    beginning: str
    rest: str


def split_continuations(rows: list[Row], config: SynthesisConfig) -> dict[str, pa.Table]:
    """Tables "pairs" (PAIR_OF_TWO_FILES) and "rejected" that together hold every snippet once.

    `rows` are the snippets of one shard; partners are found among them.
    """
    settings = config.continuation
    broken = [item for row in rows if (item := break_in_two(row, settings))]
    partners = find_partners(broken, settings.max_length_ratio)
    pairs, rejected = [], []
    for row in rows:
        made = _make(row, partners.get(row["snippet_id"]), config)
        if isinstance(made, Rejection):
            rejected.append(rejected_row(row, str(made.reason), made.detail))
        else:
            pairs.append(made)
    return tables_of(pairs, rejected, PAIR_OF_TWO_FILES)


def break_in_two(snippet: Row, settings: ContinuationConfig) -> Broken | None:
    """The snippet, broken before a line that a hash of its id draws; None if it is too short."""
    lines = snippet["code"].split("\n")
    written = [i for i, line in enumerate(lines) if line.strip()]
    places = written[settings.min_lines : len(written) - settings.min_lines + 1]
    if not places:
        return None
    drawn = int(stable_id("continuation", snippet["snippet_id"]), 16)
    place = places[drawn % len(places)]
    return Broken(snippet, "\n".join(lines[:place]).rstrip(), "\n".join(lines[place:]).rstrip())


def find_partners(
    broken: list[Broken], max_length_ratio: float
) -> dict[str, tuple[Broken, Broken]]:
    """Snippet id -> (its own parts, those of its partner). Partners have each other.

    Neighbours in length are tried first. What is left over has no partner.
    """
    found: dict[str, tuple[Broken, Broken]] = {}
    waiting: dict[str, list[Broken]] = {}
    for item in sorted(broken, key=lambda item: (len(item.rest), item.snippet["snippet_id"])):
        language = item.snippet["language"]
        near = [
            other
            for other in waiting.get(language, [])
            if len(item.rest) <= max_length_ratio * len(other.rest)
        ]
        other = next((other for other in reversed(near) if _may_meet(item, other)), None)
        if other is None:
            near.append(item)
        else:
            near = [one for one in near if one is not other]
            found[item.snippet["snippet_id"]] = (item, other)
            found[other.snippet["snippet_id"]] = (other, item)
        waiting[language] = near
    return found


def _may_meet(one: Broken, other: Broken) -> bool:
    """Two files, and texts that differ: equal beginnings would be answered both ways."""
    files = [(b.snippet["repo"], b.snippet["path"]) for b in (one, other)]
    return (
        files[0] != files[1]
        and one.snippet["source_id"] != other.snippet["source_id"]
        and one.beginning.split() != other.beginning.split()
        and one.rest.split() != other.rest.split()
    )


def _make(
    row: Row, parts: tuple[Broken, Broken] | None, config: SynthesisConfig
) -> Row | Rejection:
    settings = config.continuation
    if parts is None:
        if break_in_two(row, settings) is None:
            detail = f"no line has synthesis.continuation.min_lines={settings.min_lines} around it"
            return Rejection(RejectReason.TOO_SHORT, detail)
        limit = f"max_length_ratio={settings.max_length_ratio:g}"
        detail = f"no rest in {row['language']} of another file in this shard, {limit}"
        return Rejection(RejectReason.NO_PARTNER, detail)
    own, other = parts
    sides = {"chosen": own.rest, "rejected": other.rest}
    lengths = dict.fromkeys(("chosen_num_tokens", "rejected_num_tokens"))
    if refused := judge_pair({**sides, **lengths}, config.gates):
        return refused
    both = sorted(part.snippet["snippet_id"] for part in parts)
    return {
        "pair_id": stable_id(row["snippet_id"], "continuation"),
        "prompt": own.beginning,
        **sides,
        **{name: row[name] for name in _COPIED},
        "license": _license_of(own.snippet["license"], other.snippet["license"]),
        "construction": "continuation",
        "description": own.beginning,
        "problem_id": stable_id(*both),
        **{f"rejected_{name}": other.snippet[name] for name in _PLACE},
    }


_PLACE = ("source_id", "blob_id", "repo", "path")
_COPIED = ("snippet_id", "language", *_PLACE)


def _license_of(*licenses: str | None) -> str | None:
    """Of a pair that holds two files' texts; what is not known of one is not known of both."""
    return license_text(tuple(sorted(name for name in licenses if name))) if all(licenses) else None
