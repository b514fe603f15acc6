"""Language models as policies: greedy answers, and how likely they find given ones.

Plain transformers in this process, a model at a time: small models and some hundred prompts.

Which prompts of a set's test part they answer is chosen here, too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from codepmp_ray.config.studies import PromptFilter
from codepmp_ray.errors import InputError, ModelError
from codepmp_ray.modeling.objectives import make_objective
from codepmp_ray.modeling.sources import resolve_model
from codepmp_ray.preference.items import EncodedItem
from codepmp_ray.preference.packing import pack
from codepmp_ray.preference.plan import plan_step
from codepmp_ray.preference.tokenization import Encoder
from codepmp_ray.studies.measures import Floats
from codepmp_ray.studies.scores import Prompt, ScoreBook, Trained
from codepmp_ray.studies.study import Context
from codepmp_ray.training.settled_heap import returned_heap

_ROWS_AT_ONCE, _LONG_ROWS_AT_ONCE, _TOKENS_AT_ONCE = 16, 4, 4096
_PAIRS_A_PROMPT = 4  # few prompts have more
_EVERY = 1 << 30


def answers(
    model: str | Path,
    encoder: Encoder,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    *,
    temperature: float = 0.0,
    num_samples: int = 1,
    seed: int = 0,
    bf16: bool = False,
) -> list[list[str]]:
    """[prompts][num_samples] texts; greedy at temperature 0, where one sample is all there is.

    `bf16` takes half the time, also on processors that have it.
    """
    import torch

    eos = encoder.tokenizer.eos_token_id
    sampling: dict[str, Any] = {"do_sample": False}
    if temperature > 0:
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    rows = [encoder.prompt_ids(prompt) for prompt in prompts]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # little padding
    found: list[list[str]] = [[] for _ in rows]
    torch.manual_seed(seed)
    with _loaded(model, bf16) as (policy, device):
        for start in range(0, len(order), _ROWS_AT_ONCE):
            some = order[start : start + _ROWS_AT_ONCE]
            width = max(len(rows[i]) for i in some)
            padding = [width - len(rows[i]) for i in some]
            ids = [[eos] * n + rows[i] for n, i in zip(padding, some, strict=True)]
            mask = [[0] * n + [1] * (width - n) for n in padding]
            with torch.inference_mode():
                made = policy.generate(
                    input_ids=torch.tensor(ids, device=device),
                    attention_mask=torch.tensor(mask, device=device),
                    max_new_tokens=max_new_tokens,
                    num_return_sequences=num_samples,
                    eos_token_id=eos,
                    pad_token_id=eos,
                    **sampling,
                )
            texts = encoder.tokenizer.batch_decode(made[:, width:], skip_special_tokens=True)
            for position, i in enumerate(some):
                own = texts[position * num_samples : (position + 1) * num_samples]
                found[i] = [text.strip() for text in own]
    return found


def best_and_worst(
    book: ScoreBook, judge: Trained, prompts: Sequence[Prompt], sampled: Sequence[Sequence[str]]
) -> list[dict[str, Any]]:
    """Of each prompt's answers the one with the highest and the lowest reward, as a pair.

    Blank answers take no part; a prompt whose answers are all alike makes no pair. Raises
    InputError when no prompt does.
    """
    kept = [list(dict.fromkeys(text for text in texts if text.strip())) for texts in sampled]
    numbered = [(i, text) for i, texts in enumerate(kept) if len(texts) > 1 for text in texts]
    if not numbered:
        raise InputError("No prompt got two different answers.", "Raise the temperature.")
    rewards = book.rewards(judge, [prompts[i] for i, _ in numbered], [t for _, t in numbered])
    by_prompt: dict[int, list[tuple[float, str]]] = defaultdict(list)
    for (i, text), reward in zip(numbered, rewards, strict=True):
        by_prompt[i].append((float(reward), text))
    return [
        {"prompt": prompts[i], "chosen": max(found)[1], "rejected": min(found)[1]}
        for i, found in by_prompt.items()
    ]


@returned_heap()
def pair_log_likelihoods(
    model: str | Path,
    encoder: Encoder,
    prompts: Sequence[Prompt],
    chosen: Sequence[str],
    rejected: Sequence[str],
) -> Floats:
    """[pairs, 2]: of both texts, their ends included, after their prompt; in nats, over all tokens.

    Each prompt is computed once, as in training.
    """
    import torch

    from codepmp_ray.modeling.loading import load_preference_model

    asked = zip(map(encoder.render, prompts), zip(chosen, rejected, strict=True), strict=True)
    pairs = []
    for encoded in encoder.encode_rendered(list(asked)):
        prompt, (better, worse) = encoded.split()
        pairs.append(EncodedItem.of_pair(str(len(pairs)), prompt, better.ids, worse.ids))
    objective = make_objective("dpo")
    lengths = [pair.packed_length(objective.sides) for pair in pairs]
    plan = plan_step(lengths, 1, max([_TOKENS_AT_ONCE, *lengths]))
    device = device_of_models()
    policy = load_preference_model(str(model), objective, seed=0).to(device).eval()
    found = np.zeros((len(pairs), 2))
    with torch.inference_mode():
        for indices in plan.micro_batches[0]:
            batch = pack([pairs[i] for i in indices], sides=objective.sides).to(device)
            found[indices] = policy(batch)["log_likelihoods"].view(-1, 2).double().cpu().numpy()
    return found


def next_token_logits(
    model: str | Path, encoder: Encoder, prompts: Sequence[Prompt], tokens: Sequence[int]
) -> Floats:
    """[prompts, tokens]: how the model would go on after each prompt."""
    import torch

    rows = [encoder.prompt_ids(prompt) for prompt in prompts]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    found = np.zeros((len(rows), len(tokens)))
    with _loaded(model) as (policy, device), torch.inference_mode():
        for start in range(0, len(order), _LONG_ROWS_AT_ONCE):
            some = order[start : start + _LONG_ROWS_AT_ONCE]
            width = max(len(rows[i]) for i in some)
            ids = torch.tensor([_padded(rows[i], width) for i in some], device=device)
            hidden = policy.base_model(input_ids=ids, use_cache=False).last_hidden_state
            last = torch.tensor([len(rows[i]) - 1 for i in some], device=device)
            at = hidden[torch.arange(len(some), device=device), last]
            logits = policy.get_output_embeddings()(at).float()[:, list(tokens)]
            found[some] = logits.cpu().numpy()
    return found


@contextmanager
def _loaded(model: str | Path, bf16: bool = False) -> Iterator[tuple[Any, Any]]:
    """(causal language model, its device); freed afterwards."""
    import torch
    from transformers import AutoModelForCausalLM

    device = device_of_models()
    with returned_heap():
        try:
            policy: Any = AutoModelForCausalLM.from_pretrained(
                resolve_model(str(model)),
                dtype=torch.bfloat16 if bf16 else torch.float32,
                use_safetensors=True,
            )
        except (OSError, ValueError) as error:
            raise ModelError(f"The policy {model} cannot be loaded: {error}.") from error
        yield policy.to(device).eval(), device
        del policy


def device_of_models() -> Any:
    """The GPU where there is one."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _padded(ids: list[int], width: int) -> list[int]:
    return ids + [0] * (width - len(ids))


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
