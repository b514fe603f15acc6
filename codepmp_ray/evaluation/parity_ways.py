"""Rewards of an exported model by the trainer's own forward, and by plain transformers."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from codepmp_ray.errors import ModelError
from codepmp_ray.evaluation.parity import Question, Rewards
from codepmp_ray.modeling.loading import load_preference_model
from codepmp_ray.modeling.objectives import make_objective
from codepmp_ray.preference.packing import EncodedPair, pack
from codepmp_ray.preference.plan import plan_step

_MAX_TOKENS = 8192  # of one packed forward, where no pair is longer


def torch_rewards(folder: Path, dtype: str, questions: list[Question]) -> dict[str, Rewards]:
    """Rewards of both ways, on a GPU if there is one; one model in memory at a time."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ways = {"transformers": transformers_rewards, "trainer": trainer_rewards}
    found: dict[str, Rewards] = {}
    for name, way in ways.items():
        found[name] = way(folder, getattr(torch, dtype), device, questions)
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()  # an engine comes next
    return found


@torch.inference_mode()
def transformers_rewards(
    folder: Path, dtype: torch.dtype, device: torch.device, questions: list[Question]
) -> Rewards:
    """What everybody gets who loads the export: one row at a time, nothing of ours."""
    try:
        model: Any = AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"transformers cannot load {folder}: {error}.") from error
    model.to(device).eval()

    def reward(ids: list[int]) -> float:
        return model(input_ids=torch.tensor([ids], device=device)).logits[0, 0].item()

    return [
        [reward(question.prompt_ids + ids) for ids in question.response_ids]
        for question in questions
    ]


@torch.no_grad()
def trainer_rewards(
    folder: Path, dtype: torch.dtype, device: torch.device, questions: list[Question]
) -> Rewards:
    """The forward of training: pairs of responses packed into one sequence, the head in fp32."""
    model = load_preference_model(str(folder), make_objective("rm"), seed=0).eval()
    # Parameters only, as FSDP's mixed precision has it: rounded buffers would move positions.
    for parameter in model.backbone.parameters():
        parameter.data = parameter.data.to(dtype)
    model.to(device)
    pairs: list[EncodedPair] = []
    places: list[tuple[int, int, int]] = []  # question, and which of its responses
    for number, question in enumerate(questions):
        ids = question.response_ids
        for first in range(0, len(ids), 2):
            second = first + 1 if first + 1 < len(ids) else 0
            pairs.append(EncodedPair(str(number), question.prompt_ids, ids[first], ids[second]))
            places.append((number, first, second))
    lengths = [pair.num_tokens for pair in pairs]
    found = [[float("nan")] * len(question.response_ids) for question in questions]
    for indices in plan_step(lengths, 1, max(_MAX_TOKENS, *lengths)).micro_batches[0]:
        batch = pack([pairs[index] for index in indices]).to(device)
        for index, rewards in zip(indices, model(batch)["rewards"].tolist(), strict=True):
            number, *sides = places[index]
            for side, reward in zip(sides, rewards, strict=True):
                found[number][side] = reward
    return found
