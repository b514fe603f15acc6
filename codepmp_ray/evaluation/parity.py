"""Do all ways to compute a reward agree? The trainer's own forward, transformers, and serve's.

A way gives one reward for each response of each question, computed from the same ids. In fp32 ways
differ by the order of sums; in bf16 by roundings that add up over the layers, so that only a share
of the scores' own spread can be asked for, and that every question has the same winner. The shares
are about twice what SmolLM2 with a random head needs (13 % and 5 %); training spreads scores more.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from codepmp_ray.errors import InputError, ModelError, ParityError
from codepmp_ray.evaluation.problems import load_problems
from codepmp_ray.modeling.loading import load_preference_model
from codepmp_ray.modeling.objectives import make_objective
from codepmp_ray.preference.items import EncodedItem
from codepmp_ray.preference.packing import pack
from codepmp_ray.preference.plan import plan_step
from codepmp_ray.preference.tokenization import Encoder
from codepmp_ray.scoring.best_of_n import ScoringRequest, plan_request

FP32_TOLERANCE = 1e-4
BF16_SHARE = 0.25  # of the range of the scores, for the largest difference
BF16_MEAN_SHARE = 0.1  # and for the mean one
# Scores that hardly differ agree whatever is wrong with them.
_LEAST_SPREAD = 10 * FP32_TOLERANCE

Rewards = list[list[float]]  # by question, by response
_MAX_TOKENS = 8192  # of one packed forward, where no pair is longer


@dataclass(frozen=True)
class Question:
    """One prompt with distinct responses, as texts and as the ids that training and scoring use."""

    prompt: str
    candidates: list[str]
    prompt_ids: list[int]
    response_ids: list[list[int]]


@dataclass(frozen=True)
class Difference:
    """Between the rewards of two ways.

    Attributes:
        num_same_winners: questions in which both have the same best response.
    """

    left: str
    right: str
    largest: float
    mean: float
    num_same_winners: int


@dataclass(frozen=True)
class Comparison:
    """Every pair of ways. `spread` is the range of the first way's rewards."""

    dtype: str
    spread: float
    num_questions: int
    differences: list[Difference]

    @property
    def tolerance(self) -> float:
        """Of the largest difference."""
        return FP32_TOLERANCE if self.dtype == "float32" else BF16_SHARE * self.spread

    @property
    def mean_tolerance(self) -> float:
        return FP32_TOLERANCE if self.dtype == "float32" else BF16_MEAN_SHARE * self.spread

    def agrees(self, item: Difference) -> bool:
        return (  # with "not larger than", a NaN would agree
            item.largest <= self.tolerance
            and item.mean <= self.mean_tolerance
            and item.num_same_winners == self.num_questions
        )

    def require(self) -> None:
        """Raises ParityError that names the pair of ways furthest apart."""
        failed = [item for item in self.differences if not self.agrees(item)]
        if not failed and self.spread < _LEAST_SPREAD:
            raise ParityError(
                f"All rewards lie within {self.spread:.2g}; nothing can be told from them.",
                "Compare with a trained reward model.",
            )
        if not failed:
            return
        worst = max(failed, key=lambda item: (math.isnan(item.largest), item.largest))
        raise ParityError(
            f"{worst.left} and {worst.right} differ by up to {worst.largest:.2g} in {self.dtype} "
            f"({worst.mean:.2g} in the mean), where {self.tolerance:.2g} "
            f"({self.mean_tolerance:.2g}) is tolerated, and have the same winner in "
            f"{worst.num_same_winners} of {self.num_questions} questions.",
            "Do not compare or mix their scores. Check the versions of transformers and vLLM and "
            "the model's folder; serving.dtype=float32 tells roundings from errors.",
        )


def compare(ways: dict[str, Rewards], dtype: str) -> Comparison:
    """Compare all ways with each other. Raises ParityError for a way with other counts."""
    first, rewards = next(iter(ways.items()))
    shape = [len(row) for row in rewards]
    for name, found in ways.items():
        if [len(row) for row in found] != shape:
            raise ParityError(f"{name} and {first} did not score the same texts.")
    flat = [reward for row in rewards for reward in row]
    return Comparison(
        dtype,
        max(flat) - min(flat),
        len(rewards),
        [_difference(left, right, ways) for left, right in combinations(ways, 2)],
    )


def _difference(left: str, right: str, ways: dict[str, Rewards]) -> Difference:
    pairs = list(zip(ways[left], ways[right], strict=True))
    gaps = [abs(a - b) for one, other in pairs for a, b in zip(one, other, strict=True)]
    # max() drops a NaN that is not its first argument.
    largest = max(gaps) if not any(map(math.isnan, gaps)) else float("nan")
    return Difference(
        left,
        right,
        largest,
        sum(gaps) / len(gaps),
        sum(_winner(one) == _winner(other) for one, other in pairs),
    )


def _winner(rewards: Sequence[float]) -> int:
    """The first of the highest, as the service ranks."""
    return max(range(len(rewards)), key=rewards.__getitem__)


def humaneval_questions(
    encoder: Encoder, max_model_len: int, num_questions: int, num_candidates: int
) -> list[Question]:
    """HumanEval problems, each with its canonical solution and those of the problems after it.

    Raises InputError when there are not as many.
    """
    problems = list(load_problems("humaneval").values())
    if not 1 <= num_questions <= len(problems) or not 2 <= num_candidates <= len(problems):
        raise InputError(
            f"{num_questions} questions with {num_candidates} candidates: HumanEval has "
            f"{len(problems)} problems, and a candidate needs another to be compared with."
        )
    made = []
    for start in range(num_questions):
        chosen = [problems[(start + i) % len(problems)] for i in range(num_candidates)]
        texts = [problem.canonical_answer for problem in chosen]
        made.append(make_question(encoder, max_model_len, problems[start].prompt, texts))
    return made


def make_question(
    encoder: Encoder, max_model_len: int, prompt: str, candidates: list[str]
) -> Question:
    """Ids as the service makes them. `candidates` have to differ."""
    plan = plan_request(encoder, max_model_len, ScoringRequest(prompt, candidates))
    if len(plan.responses) != len(candidates):
        raise ValueError("candidates repeat")
    return Question(prompt, candidates, plan.prompt_ids, plan.response_ids)


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
    pairs: list[EncodedItem] = []
    places: list[tuple[int, int, int]] = []  # question, and which of its responses
    for number, question in enumerate(questions):
        ids = question.response_ids
        for first in range(0, len(ids), 2):
            second = first + 1 if first + 1 < len(ids) else 0
            sides = ids[first], ids[second]
            pairs.append(EncodedItem.of_pair(str(number), question.prompt_ids, *sides))
            places.append((number, first, second))
    lengths = [pair.num_tokens for pair in pairs]
    found = [[float("nan")] * len(question.response_ids) for question in questions]
    for indices in plan_step(lengths, 1, max(_MAX_TOKENS, *lengths)).micro_batches[0]:
        batch = pack([pairs[index] for index in indices]).to(device)
        for index, rewards in zip(
            indices, model(batch)["rewards"].view(-1, 2).tolist(), strict=True
        ):
            number, *sides = places[index]
            for side, reward in zip(sides, rewards, strict=True):
                found[number][side] = reward
    return found
