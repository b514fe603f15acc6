"""What one pass over a prompt with N answers gains over packed pairs, which share it by two.

Both steps compute the reward loss over the same pairs: every answer in a pair, each in as few as
can be. The pairs' step packs each pair as an item of its own, so that an answer in several pairs is
computed several times. The ratio of tokens is the ceiling of what can be gained; the value is the
share of it that is reached. Lengths are those of real prompts and answers (data/tree_lengths.json).

    python -m benchmarks.train_trees [--rounds 3] [--tokens 6000]
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks._results import options, require_memory
from benchmarks._training import (
    MAX_TOKENS,
    SMOLLM2_135M,
    VOCABULARY,
    alternate,
    device,
    gain_results,
    measure_gains,
    training_bytes,
)
from codepmp_ray.preference.items import EncodedItem, join_pairs
from codepmp_ray.preference.packing import pack
from codepmp_ray.preference.plan import plan_step

SHAPES = ("logiqa2", "gsm8k_8", "gsm8k_16")
LENGTHS_FILE = Path(__file__).parent / "data" / "tree_lengths.json"
Pairs = list[list[EncodedItem]]  # of each prompt


def pairs_of_shape(name: str, max_tokens: int) -> Pairs:
    """Pairs of real lengths and random ids: prompts whose pairs have `max_tokens` together."""
    rng = random.Random(0)

    def ids(num: int) -> list[int]:
        return [rng.randrange(3, VOCABULARY) for _ in range(num)]

    found: Pairs = []
    num_tokens = 0
    for num_right, num_prompt, *lengths in json.loads(LENGTHS_FILE.read_text())[name]:
        prompt, answers = ids(num_prompt), [ids(length) for length in lengths]
        right, wrong = answers[:num_right], answers[num_right:]
        pairs = [
            EncodedItem.of_pair("x", prompt, right[i % len(right)], wrong[i % len(wrong)])
            for i in range(max(len(right), len(wrong)))
        ]
        num_tokens += sum(pair.num_tokens for pair in pairs)
        if found and num_tokens > max_tokens:
            break
        found.append(pairs)
    return found


def step(model: Any, items: list[EncodedItem], num_pairs: int) -> None:
    """Forward and backward in micro-batches that a pair's or an item's step may fill alike."""
    lengths = [item.num_tokens for item in items]
    for indices in plan_step(lengths, 1, max(MAX_TOKENS, *lengths)).micro_batches[0]:
        batch = pack([items[index] for index in indices]).to(device())
        (model(batch)["rm"] / num_pairs).backward()
    model.zero_grad()


def measure_shape(
    model: Any, name: str, max_tokens: int, rounds: int, until_s: float | None = None
) -> list[dict[str, Any]]:
    """What is gained on prompts and answers of these lengths."""
    found = pairs_of_shape(name, max_tokens)
    items, pairs = [join_pairs(some) for some in found], [pair for some in found for pair in some]
    steps: dict[str, Callable[[], None]] = {
        "pairs": partial(step, model, pairs, len(pairs)),
        "items": partial(step, model, items, len(pairs)),
    }
    times = alternate(steps, rounds, until_s)
    tokens = {"pairs": sum(p.num_tokens for p in pairs), "items": sum(i.num_tokens for i in items)}
    ceiling = tokens["pairs"] / tokens["items"]
    context = {"shape": name, "precision": "fp32", "prompts": len(items), "pairs": len(pairs)}
    return gain_results(
        "items_over_pairs", times["pairs"], times["items"], ceiling, "at least 0.9", **context
    )


def memory_needed(max_tokens: int) -> float:
    """A full micro-batch of pairs; no optimizer."""
    return training_bytes(SMOLLM2_135M, min(max_tokens, MAX_TOKENS), num_moments=0)


def main() -> None:
    parser = options(__doc__, rounds=3)
    parser.add_argument("--tokens", type=int, default=MAX_TOKENS, help="of the step of pairs")
    arguments = parser.parse_args()
    smaller = ((f"--tokens {n}", memory_needed(n)) for n in range(arguments.tokens, 500, -500))
    require_memory(memory_needed(arguments.tokens), smaller)
    measure_gains(
        "train_trees",
        lambda model, name: measure_shape(model, name, arguments.tokens, arguments.rounds),
        SHAPES,
    )


if __name__ == "__main__":
    main()
