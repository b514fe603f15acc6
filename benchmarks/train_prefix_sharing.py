"""What sharing the prompt gains, against our own packing without it, at three prompt shares.

Unshared packs prompt + chosen and prompt + rejected as sequences of their own: no padding either,
the same attention and losses. The ratio of tokens is the ceiling of what sharing can gain; the
value is the share of it that is reached, of the reward loss alone.

    python -m benchmarks.train_prefix_sharing [--rounds 3] [--pairs 8]
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

from torch.nn.functional import logsigmoid

from benchmarks._results import options, require_memory
from benchmarks._training import (
    SMOLLM2_135M,
    VOCABULARY,
    alternate,
    device,
    gain_results,
    measure_gains,
    training_bytes,
)
from codepmp_ray.preference.items import EncodedItem
from codepmp_ray.preference.packing import pack

# Share of a pair's prompt in prompt + one response; two responses of 160 tokens.
SHARES = (0.25, 0.5, 0.75)
RESPONSE_TOKENS = 160


def prompt_tokens(share: float) -> int:
    return round(RESPONSE_TOKENS * share / (1 - share))


def pairs_of_share(share: float, num_pairs: int) -> list[EncodedItem]:
    rng = random.Random(0)
    num_prompt = prompt_tokens(share)

    def ids(num: int) -> list[int]:
        return [rng.randrange(3, VOCABULARY) for _ in range(num)]

    return [
        EncodedItem.of_pair(str(i), ids(num_prompt), ids(RESPONSE_TOKENS), ids(RESPONSE_TOKENS))
        for i in range(num_pairs)
    ]


def shared_step(model: Any, pairs: list[EncodedItem]) -> None:
    (model(pack(pairs).to(device()))["rm"] / len(pairs)).backward()
    model.zero_grad()


def unshared_step(model: Any, pairs: list[EncodedItem]) -> None:
    sides = [
        EncodedItem.of_pair(pair.item_id, pair.prompt, side, [0])
        for pair in pairs
        for side in pair.answers
    ]
    rewards = model(pack(sides, sides="best_alone").to(device()))["rewards"]
    loss = -logsigmoid(rewards[0::2] - rewards[1::2]).sum()
    (loss / len(pairs)).backward()
    model.zero_grad()


def memory_needed(num_pairs: int) -> float:
    """The unshared step of the longest prompts, all pairs in one pack; no optimizer."""
    num_tokens = 2 * num_pairs * (prompt_tokens(max(SHARES)) + RESPONSE_TOKENS + 1)
    return training_bytes(SMOLLM2_135M, num_tokens, num_moments=0)


def measure_share(
    model: Any, share: float, num_pairs: int, rounds: int, until_s: float | None = None
) -> list[dict[str, Any]]:
    """What is gained where the prompt is that share of prompt and answer."""
    pairs = pairs_of_share(share, num_pairs)
    steps: dict[str, Callable[[], None]] = {
        "unshared": partial(unshared_step, model, pairs),
        "shared": partial(shared_step, model, pairs),
    }
    times = alternate(steps, rounds, until_s)
    num_prompt = len(pairs[0].prompt)
    ceiling = 2 * (num_prompt + RESPONSE_TOKENS) / (num_prompt + 2 * RESPONSE_TOKENS)
    context = {"prompt_share": share, "precision": "fp32"}
    metric, goal = "shared_over_unshared", "at least 0.95"
    return gain_results(metric, times["unshared"], times["shared"], ceiling, goal, **context)


def main() -> None:
    arguments = options(__doc__, rounds=3, pairs=8).parse_args()
    smaller = ((f"--pairs {n}", memory_needed(n)) for n in range(arguments.pairs - 1, 0, -1))
    require_memory(memory_needed(arguments.pairs), smaller)
    measure_gains(
        "train_prefix_sharing",
        lambda model, share: measure_share(model, share, arguments.pairs, arguments.rounds),
        SHARES,
    )


if __name__ == "__main__":
    main()
