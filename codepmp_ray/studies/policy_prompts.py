"""Which prompts of a set's test part policies answer, and what is said about the choice."""

from __future__ import annotations

from codepmp_ray.config.studies import PromptFilter
from codepmp_ray.errors import InputError
from codepmp_ray.studies.scores import Prompt
from codepmp_ray.studies.study import Context

_PAIRS_A_PROMPT = 4  # few prompts have more
_EVERY = 1 << 30


def test_prompts(context: Context, name: str, num: int) -> list[Prompt]:
    """`num` prompts of the test part, each once, whatever number of its pairs is measured.

    Raises InputError when `prompt_filter` leaves none.
    """
    chosen = context.options.prompt_filter.get(name)
    if chosen is None:
        return _distinct_prompts(context, name, _PAIRS_A_PROMPT * num)[:num]
    every = _distinct_prompts(context, name, _EVERY)
    kept = [prompt for prompt in every if _passes(context, chosen, prompt)]
    if not kept:
        raise InputError(
            f"studies.{context.name}.prompt_filter leaves none of the {len(every)} test prompts of "
            f"{name!r}: max_turns={chosen.max_turns}, max_tokens={chosen.max_tokens}.",
            "Raise its limits, or leave the set out of prompt_filter.",
        )
    return kept[:num]


def _distinct_prompts(context: Context, name: str, num_pairs: int) -> list[Prompt]:
    found: dict[str, Prompt] = {}
    for row in context.bench.pairs.test_pairs(name, num_pairs, context.model).rows:
        prompt = row["messages"] or row["prompt"]
        found.setdefault(str(prompt), prompt)
    return list(found.values())


def _passes(context: Context, chosen: PromptFilter, prompt: Prompt) -> bool:
    if chosen.max_turns is not None and num_turns(prompt) > chosen.max_turns:
        return False
    encoder = context.bench.pairs.encoder(context.model)
    return chosen.max_tokens is None or len(encoder.prompt_ids(prompt)) <= chosen.max_tokens


def num_turns(prompt: Prompt) -> int:
    """Turns of the human; a text that is no transcript is one."""
    if isinstance(prompt, str):
        return max(1, prompt.count("\n\nHuman:"))
    return sum(turn["role"] == "user" for turn in prompt)


def how_filtered(context: Context, name: str, num: int) -> str:
    """Which of a set's prompts were asked."""
    title = context.bench.set(name).title
    asked = len(test_prompts(context, name, num))
    chosen = context.options.prompt_filter.get(name)
    if chosen is None:
        return f"{title}: {asked} prompts, unfiltered."
    every = _distinct_prompts(context, name, _EVERY)
    kept = sum(_passes(context, chosen, prompt) for prompt in every)
    limits = {"turns": chosen.max_turns, "tokens": chosen.max_tokens}
    words = " and ".join(f"at most {most} {of}" for of, most in limits.items() if most is not None)
    return (
        f"{title}: {asked} of the {kept} prompts with {words or 'any length'}, of {len(every)} in "
        "the test part: a filter of ours, the protocol's not being known."
    )
