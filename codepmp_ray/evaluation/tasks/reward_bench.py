"""RewardBench (Lambert et al. 2024): its subsets, and how much each counts in its section.

Counts are numbers of prompts as in rewardbench/constants.py of allenai/reward-bench, commit
05a9005 (earlier versions had the two xstest counts exchanged), with math-prm's 447 raised to the
984 of the code subsets. `pairwise.reward_bench` makes the figures. The prior sets of other
benchmarks are not in the set's `filtered` part, but may be in a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from codepmp_ray.evaluation.tasks.base import HubSet, PreferencePair, PreferenceTask
from codepmp_ray.preference.sources.rows import Numbered, Reject, Row, Unusable, text_cell
from codepmp_ray.records import stable_id
from codepmp_ray.reject_reasons import RejectReason

SECTIONS: dict[str, dict[str, int]] = {
    "Chat": {
        "alpacaeval-easy": 100,
        "alpacaeval-length": 95,
        "alpacaeval-hard": 95,
        "mt-bench-easy": 28,
        "mt-bench-med": 40,
    },
    "Chat Hard": {
        "mt-bench-hard": 37,
        "llmbar-natural": 100,
        "llmbar-adver-neighbor": 134,
        "llmbar-adver-GPTInst": 92,
        "llmbar-adver-GPTOut": 47,
        "llmbar-adver-manual": 46,
    },
    "Safety": {
        "refusals-dangerous": 100,
        "refusals-offensive": 100,
        "xstest-should-refuse": 154,
        "xstest-should-respond": 250,
        "donotanswer": 136,
    },
    "Reasoning": {
        "math-prm": 984,
        "hep-cpp": 164,
        "hep-go": 164,
        "hep-java": 164,
        "hep-js": 164,
        "hep-python": 164,
        "hep-rust": 164,
    },
}
PRIOR_SETS = ("anthropic_helpful", "anthropic_hhh", "shp", "summarize")
SUBSETS = tuple(subset for parts in SECTIONS.values() for subset in parts)
# Copies of the sets differ in capitals: LLMBar itself writes "Manual" and "Neighbor".
_KNOWN = {name.lower(): name for name in (*SUBSETS, *PRIOR_SETS)}


def canonical(subset: str) -> str | None:
    """The benchmark's own name of a subset, None for what it does not have."""
    return _KNOWN.get(subset.lower())


def pairs(rows: Iterable[Numbered]) -> Iterator[PreferencePair | Reject]:
    """Rows with `prompt`, `chosen`, `rejected`, `subset` and `id` (unique in its subset); perhaps
    with `chosen_model` and `rejected_model`."""
    seen: set[tuple[str, str]] = set()
    for item in rows:
        if isinstance(item, Reject):
            yield item
            continue
        index, row = item
        try:
            given = text_cell(row, "subset")
            subset = canonical(given)
            prompt, chosen, rejected = (
                text_cell(row, name) for name in ("prompt", "chosen", "rejected")
            )
            if subset is None:
                raise Unusable(RejectReason.BAD_LABEL, f"RewardBench has no subset {given!r}")
            for name, text in (("prompt", prompt), ("chosen", chosen), ("rejected", rejected)):
                if not text.strip():
                    raise Unusable(RejectReason.EMPTY, f"{name} is missing or blank")
            key = (subset, str(row.get("id", f"row {index}")))
            if key in seen:
                raise Unusable(RejectReason.EXACT_DUPLICATE, f"a second row {key[1]!r} of {subset}")
        except Unusable as error:
            yield Reject(index, error.reason, error.detail)
            continue
        seen.add(key)
        yield PreferencePair(
            stable_id(*key), stable_id(prompt), prompt, chosen, rejected, subset, None, _models(row)
        )


def _models(row: Row) -> tuple[str, str] | None:
    chosen, rejected = row.get("chosen_model"), row.get("rejected_model")
    if isinstance(chosen, str) and isinstance(rejected, str) and chosen and rejected:
        return chosen, rejected
    return None


TASK = PreferenceTask(
    name="reward_bench",
    title="RewardBench",
    license="ODC-BY, parts CC BY-NC 4.0",
    hub=HubSet("allenai/reward-bench", "filtered"),
    columns=({"prompt", "chosen", "rejected", "subset"},),
    pairs=pairs,
)
