"""The service as a reward function of trainers."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from codepmp_ray.client.answers import RequestRefused
from codepmp_ray.client.attempts import Prompt
from codepmp_ray.client.clients import RewardClient

Messages = list[dict[str, Any]]
Reward = float | None


def trl_reward_function(client: RewardClient, num_parallel: int = 8) -> Callable[..., list[Reward]]:
    """For `reward_funcs` of TRL's GRPOTrainer and its like: one reward per completion.

    Plain and conversational prompts. Of a completion of several messages (tool calls, their
    results, an answer) the last one is scored after all the others. What has the same beginning
    goes in one request, where it is computed once; `num_parallel` of them are with the service at
    once. A completion that cannot be scored (too long, or its last message is no answer) has None,
    which trainers leave out, and a warning says why; it costs no other its reward.
    """

    def codepmp_reward(
        prompts: list[Prompt], completions: list[str | Messages], **columns: Any
    ) -> list[Reward]:
        rewards: list[Reward] = [None] * len(prompts)
        groups: dict[str, tuple[Prompt, list[tuple[int, str]]]] = {}
        for index, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            whole = _with_answer(prompt, completion)
            if whole is None:
                _warn(index, "its last message is not the assistant's, or has no text")
                continue
            key = json.dumps(whole[0], sort_keys=True, default=repr)
            groups.setdefault(key, (whole[0], []))[1].append((index, whole[1]))

        def score(group: tuple[Prompt, list[tuple[int, str]]]) -> None:
            prompt, answers = group
            try:
                found = client.score(prompt, [text for _, text in answers])
            except RequestRefused as error:
                _warn(answers[0][0], error.problem)
                return
            for (index, _), item in zip(answers, found, strict=True):
                rewards[index] = item.score
                if item.score is None:
                    _warn(index, f"the service gave no score ({item.missing})")

        with ThreadPoolExecutor(num_parallel) as pool:
            list(pool.map(score, groups.values()))
        return rewards

    return codepmp_reward


def _with_answer(prompt: Prompt, completion: str | Messages) -> tuple[Prompt, str] | None:
    """(prompt with all messages before the last, the last one's text), None if it has none."""
    if isinstance(completion, str):
        return prompt, completion
    if not completion:
        return None
    *before, last = completion
    text = last.get("content")
    if isinstance(text, list):  # parts
        parts = [part.get("text") if isinstance(part, dict) else None for part in text]
        text = "\n".join(map(str, parts)) if None not in parts else None
    if not isinstance(text, str) or last.get("role") != "assistant" or last.get("tool_calls"):
        return None
    if before:
        asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        return [*asked, *before], text
    return prompt, text


def _warn(index: int, why: str) -> None:
    warnings.warn(f"Completion {index} has no reward: {why}", stacklevel=3)
