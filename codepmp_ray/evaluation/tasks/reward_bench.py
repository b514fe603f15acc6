"""RewardBench (Lambert et al. 2024): its subsets, and how much each counts in its section.

Counts are numbers of prompts as in rewardbench/constants.py of allenai/reward-bench, commit
05a9005 (earlier versions had the two xstest counts exchanged), with math-prm's 447 raised to the
984 of the code subsets. `pairwise.reward_bench` makes the figures. The prior sets of other
benchmarks are not in the set's `filtered` part, but may be in a file.
"""

from __future__ import annotations

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
