"""What the training benchmarks share: pairs of real lengths, our step, fair timing.

Token ids are random: time and memory of a step depend on lengths alone. The lengths are those of
real pairs (data/pair_lengths.json). Everything runs on the GPU where there is one.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from benchmarks._results import free_port, require_memory, series_result, write_results
from codepmp_ray.modeling.collectives import leave_process_group
from codepmp_ray.preference.items import EncodedItem

MODEL = "builtin:smollm2-135m-instruct"
PAIRS_PER_MICRO_BATCH = 8
# Eight real pairs have about 4,000 tokens.
MAX_TOKENS = 6_000
# A GPU is waited for by nobody only when it has enough to do: a step of 64 pairs, as the recipes'.
GPU_PAIRS_PER_STEP, GPU_MAX_TOKENS = 64, 16_384
VOCABULARY = 49_000
LENGTHS_FILE = Path(__file__).parent / "data" / "pair_lengths.json"
# Libraries, the kernels' scratch space and what the allocator keeps: bytes of a training process.
PROCESS_BYTES = 5 * 2**29
Lengths = list[list[int]]  # of each pair: tokens of prompt, chosen and rejected


QWEN2_1_5B = {
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}


# To see anywhere that a benchmark works.
TINY = {
    **QWEN2_1_5B,
    "hidden_size": 96,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "vocab_size": 49152,
}


SMOLLM2_135M = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}


def shape_of(name: str) -> Any:
    """The configuration of a model whose weights are arbitrary; None for the weights of MODEL.

    Time and memory depend on the shape alone. Where MODEL's weights lie it is used as it is.
    """
    from transformers import LlamaConfig, Qwen2Config

    from codepmp_ray.errors import ModelError
    from codepmp_ray.modeling.sources import resolve_model

    if name == "tiny":
        return Qwen2Config(**TINY)
    if name == "qwen2-1.5b":
        return Qwen2Config(**QWEN2_1_5B)
    try:
        resolve_model(MODEL)
    except ModelError:
        return LlamaConfig(**SMOLLM2_135M)
    return None


def models_here() -> list[tuple[str, tuple[bool, ...]]]:
    """(model, whether in bf16) that steps are compared with on this machine."""
    smollm2 = ("smollm2-135m", (True, False))
    return [("qwen2-1.5b", (True,)), smollm2] if torch.cuda.is_available() else [smollm2]


def measure_models(
    name: str, measure: Callable[..., list[dict[str, Any]]], *args: Any
) -> list[dict[str, Any]]:
    """`measure(model, bf16, *args)` of `models_here`; what is there is written after each."""
    results: list[dict[str, Any]] = []
    for model, precisions in models_here():
        for bf16 in precisions:
            results += measure_alone(measure, model, bf16, *args)
            write_results(name, results)
    return results


def any_tokenizer() -> Any:
    """TRL asks for one, and for its pad token; the pairs here are ids already."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = models.WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<pad>")
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(words), pad_token="<pad>", eos_token="<eos>"
    )


def labelled(shape: Any) -> Any:
    """The shape with one label, for transformers' own reward models."""
    return type(shape)(**{**shape.to_dict(), "num_labels": 1, "pad_token_id": 0})


def make_pairs(num_pairs: int, seed: int = 0) -> list[EncodedItem]:
    """Pairs with the lengths of real ones, drawn by `seed`, and random ids."""
    rng = random.Random(seed)

    def ids(num: int) -> list[int]:
        return [rng.randrange(3, VOCABULARY) for _ in range(num)]

    return [
        EncodedItem.of_pair(str(i), ids(prompt), ids(chosen), ids(rejected))
        for i, (prompt, chosen, rejected) in enumerate(draw_lengths(num_pairs, rng))
    ]


def draw_lengths(num_pairs: int, rng: random.Random) -> Lengths:
    return rng.sample(json.loads(LENGTHS_FILE.read_text())["lengths"], num_pairs)


def require_memory_for_pairs(num_pairs: int, needed: Callable[[Lengths], float]) -> None:
    """End the process where the lengths of `make_pairs(num_pairs)` need more than there is."""

    def bytes_of(number: int) -> float:
        return needed(draw_lengths(number, random.Random(0)))

    smaller = ((f"--pairs {n}", bytes_of(n)) for n in range(num_pairs - 1, 0, -1))
    require_memory(bytes_of(num_pairs), smaller)


def training_bytes(
    shape: dict[str, Any],
    num_tokens: int,
    *,
    num_models: int = 1,
    num_moments: int = 2,
    num_logit_rows: int = 0,
    bf16: bool = False,
) -> float:
    """Resident bytes of a process at the peak of a step on a CPU, without recomputation.

    - State: weights and AdamW's two moments of each of `num_models` models, 4 bytes a value, and
      the gradients of the one whose step runs; the others have let theirs go.
    - Activations: every layer keeps for a token 15 values of the hidden size (two norms with their
      fp32 copies; queries, keys and values before and after the rotation; repeated heads, the
      attention's output, two residuals) and 4 of the intermediate size (gate, its activation, up,
      product). Autocast makes about 2.5 bytes of 4. Padding counts like a token.
    - Logits: `num_logit_rows` x vocabulary in fp32, their log-probabilities and their gradient, for
      a peer that has them at once. Ours take a few hundred tokens at a time: part of PROCESS_BYTES.

    Held against results/train_memory_vs_trl.json and train_memory_plan.json (fp32, SmolLM2-135M):
    13.6 GiB for the activations of TRL's 8 pairs (8,256 padded tokens), where 12.9 are measured
    above the state; 10.8 GiB for all that our step of 3,840 tokens holds, where 10.6 are measured.
    """
    hidden, intermediate = shape["hidden_size"], shape["intermediate_size"]
    layers, vocabulary = shape["num_hidden_layers"], shape["vocab_size"]
    key_values = hidden * shape["num_key_value_heads"] // shape["num_attention_heads"]
    block = 2 * hidden * hidden + 2 * hidden * key_values + 3 * hidden * intermediate
    num_parameters = vocabulary * hidden + layers * block
    state = 4 * num_parameters * (num_models * (1 + num_moments) + 1)
    value_bytes = 2.5 if bf16 else 4
    activations = num_tokens * layers * value_bytes * (15 * hidden + 4 * intermediate)
    logits = 3 * 4 * num_logit_rows * vocabulary
    return PROCESS_BYTES + state + activations + logits


def padded_tokens(lengths: Lengths, micro_batch: int) -> int:
    """Of the widest micro-batch of a peer, in whatever order: two rows a pair, padded."""
    widest = max(prompt + max(chosen, rejected) for prompt, chosen, rejected in lengths)
    return 2 * min(len(lengths), micro_batch) * widest


def packed_tokens(lengths: Lengths) -> int:
    """At most, of a micro-batch of ours on a CPU."""
    return min(MAX_TOKENS, sum(map(sum, lengths)))


def pairs_per_step() -> int:
    """Pairs between two updates; one micro-batch of theirs on a CPU."""
    return GPU_PAIRS_PER_STEP if torch.cuda.is_available() else PAIRS_PER_MICRO_BATCH


def optimizer_steps(pairs: list[EncodedItem]) -> Iterator[list[EncodedItem]]:
    yield from parts_of(pairs, pairs_per_step())


def parts_of(pairs: list[EncodedItem], size: int) -> Iterator[list[EncodedItem]]:
    for start in range(0, len(pairs), size):
        yield pairs[start : start + size]


@contextmanager
def single_process_group() -> Iterator[None]:
    """A group of one rank, as the trainer has it on one worker."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    torch.distributed.init_process_group(backend, rank=0, world_size=1)
    try:
        yield
    finally:
        leave_process_group()


def device() -> torch.device:
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def now_s() -> float:
    """The clock, once the GPU has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def measure_alone(measure: Callable[..., list[dict[str, Any]]], *args: Any) -> list[dict[str, Any]]:
    """`measure(*args)` in a process of its own, which gives its memory back; adds the threads.

    What one precision leaves behind (torch's and TRL's models refer to themselves) would make the
    next one's steps fight for memory.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as process:
        return process.submit(_alone, measure, args).result()


def _alone(
    measure: Callable[..., list[dict[str, Any]]], args: tuple[Any, ...]
) -> list[dict[str, Any]]:
    threads = use_all_cores()
    with single_process_group():
        return [{**result, "threads": threads} for result in measure(*args)]


def child_says(module: str, *arguments: str) -> str:
    """The last line that `python -m module arguments` prints, in a process of its own."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip().splitlines()[-1]


def measure_gains(
    name: str, measure: Callable[[Any, Any], list[dict[str, Any]]], cases: Iterable[Any]
) -> None:
    """Write `measure(model, case)` of all cases, MODEL with a reward head."""
    from codepmp_ray.modeling.loading import load_preference_model
    from codepmp_ray.modeling.objectives import make_objective

    threads = use_all_cores()
    model = load_preference_model(MODEL, make_objective("rm"), seed=0).train().to(device())
    found = [result for case in cases for result in measure(model, case)]
    write_results(name, [{**result, "threads": threads} for result in found])


def use_all_cores() -> int:
    num_threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(num_threads)
    return num_threads


# What the trainer's step reads of a TrainingConfig, with its defaults.
STEP_SETTINGS: dict[str, Any] = {
    "objective": "pmp",
    "lm_loss_weight": 1.0,
    "center_rewards_coefficient": 0.0,
    "ranking_loss": "pairwise",
    "pair_weight": "one",
    "dpo_beta": 0.1,
    "bf16": True,
    "max_tokens_per_micro_batch": 2048,
    "learning_rate": 3e-6,
    "weight_decay": 0.1,
    "adam_beta1": 0.9,
    "adam_beta2": 0.95,
    "adam_epsilon": 1e-8,
    "gradient_checkpointing": False,
    "cpu_offload": False,
    "torch_compile": None,
    "full_determinism": False,
    "data_parallel_replicate_degree": 1,
    "process_group_timeout_s": 1800.0,
}


def step_config(**settings: Any) -> Any:
    """The trainer's configuration; without pydantic, which checks it, what the step reads of it."""
    try:
        from codepmp_ray.config.training import TrainingConfig
    except ModuleNotFoundError as error:
        if error.name != "pydantic":
            raise
        return SimpleNamespace(**STEP_SETTINGS | settings)
    return TrainingConfig.model_validate(settings)


class OurStep:
    """One optimizer step of the product's trainer: FSDP2, packing, losses, clipping, AdamW."""

    def __init__(
        self, objective: str, *, bf16: bool, world_size: int = 1, shape: Any = None, **settings: Any
    ) -> None:
        from torch.distributed.device_mesh import init_device_mesh

        from codepmp_ray.modeling.building import model_from_config
        from codepmp_ray.modeling.loading import load_preference_model
        from codepmp_ray.training.compiling import compile_blocks
        from codepmp_ray.training.fsdp import shard
        from codepmp_ray.training.optimizer import make_optimizer
        from codepmp_ray.training.step import StepRunner, objective_of

        most = GPU_MAX_TOKENS if torch.cuda.is_available() else MAX_TOKENS
        ours = {"objective": objective, "bf16": bf16, "learning_rate": 1e-6}
        config = step_config(**ours | {"max_tokens_per_micro_batch": most} | settings)
        if shape is None:
            model = load_preference_model(MODEL, objective_of(config), seed=0)
        else:
            with device():  # drawing a billion weights takes a processor a minute
                # Its attention becomes ours, which other models of the same shape do not have.
                model = model_from_config(deepcopy(shape), objective_of(config))
        model.to(device())
        compile_blocks(model, config, device())
        shard(model, config, init_device_mesh(device().type, (world_size,)))
        model.train()
        self.model = model
        self.runner = StepRunner(model, config, device())
        self.optimizer = make_optimizer(model, config)

    def __call__(
        self, pairs: list[EncodedItem], before_update: Callable[[], None] = lambda: None
    ) -> None:
        self.runner.train(pairs)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        before_update()
        self.optimizer.step()
        self.optimizer.zero_grad()


class TrlStep:
    """One optimizer step of TRL's RewardTrainer: its collator, its loss, its training_step."""

    def __init__(self, scratch: str, *, bf16: bool, shape: Any = None) -> None:
        from datasets import Dataset
        from transformers import AutoModelForSequenceClassification, AutoTokenizer
        from trl import RewardConfig, RewardTrainer

        from codepmp_ray.modeling.sources import resolve_model

        kind = AutoModelForSequenceClassification
        if shape is None:
            model = kind.from_pretrained(resolve_model(MODEL), num_labels=1, dtype=torch.float32)
        else:
            with device():
                model = kind.from_config(labelled(shape), dtype=torch.float32)
        settings: dict[str, Any] = {
            "output_dir": scratch,
            "per_device_train_batch_size": PAIRS_PER_MICRO_BATCH,
            "use_cpu": not torch.cuda.is_available(),
            "bf16": bf16,
            "gradient_checkpointing": False,
            "max_length": None,
            "report_to": [],
            "disable_tqdm": True,
            "learning_rate": 1e-6,
            "disable_dropout": True,
        }
        tokenizer = (
            any_tokenizer() if shape else AutoTokenizer.from_pretrained(resolve_model(MODEL))
        )
        any_pair = {"chosen_ids": [3, 4], "rejected_ids": [3, 5]}
        self.trainer = RewardTrainer(
            model,
            RewardConfig(**settings),
            train_dataset=Dataset.from_list([any_pair]),
            processing_class=tokenizer,
        )
        self.model = self.trainer.model
        self.model.train()
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=1e-6, weight_decay=0.1, fused=True
        )  # as its default, adamw_torch_fused

    def __call__(self, pairs: list[EncodedItem]) -> None:
        parts = list(parts_of(pairs, PAIRS_PER_MICRO_BATCH))
        self.trainer.current_gradient_accumulation_steps = len(parts)  # as train() sets it
        for part in parts:
            examples = [
                {"chosen_ids": p.prompt + p.answers[0], "rejected_ids": p.prompt + p.answers[1]}
                for p in part
            ]
            self.trainer.training_step(self.model, self.trainer.data_collator(examples))
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


def by_length(pairs: list[EncodedItem]) -> list[EncodedItem]:
    """Neighbours of like length, which padding likes best."""
    return sorted(pairs, key=lambda p: len(p.prompt) + max(map(len, p.answers)))


def alternate(
    steps: dict[str, Callable[[], None]], rounds: int, until_s: float | None = None
) -> dict[str, list[float]]:
    """Seconds of each step in each round; all of them in turn, after a round that is not timed.

    No round begins after `until_s` of `now_s`, but for the first that is timed.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        if until_s is not None and number > 1 and now_s() > until_s:
            break
        for name, step in steps.items():
            start_s = now_s()
            step()
            if number:
                times[name].append(now_s() - start_s)
        print(f"round {number} of {rounds}", flush=True)
    return times


def ratio_result(
    metric: str, slower: list[float], faster: list[float], goal: str | None, **context: Any
) -> dict[str, Any]:
    """How many times as fast: the median of the rounds' own ratios, with their range."""
    ratios = [a / b for a, b in zip(slower, faster, strict=True)]
    return series_result(metric, ratios, "ratio", goal, **context)


def gain_results(
    metric: str, slower: list[float], faster: list[float], ceiling: float, goal: str, **context: Any
) -> list[dict[str, Any]]:
    """What is reached of `ceiling`, the ratio of tokens; the ratio of times, called `metric`."""
    reached = [a / b / ceiling for a, b in zip(slower, faster, strict=True)]
    tokens = {"token_ratio": round(ceiling, 3)}
    return [
        series_result("share_of_token_ratio", reached, "ratio", goal, **tokens, **context),
        ratio_result(metric, slower, faster, None, **context),
    ]


def rate_result(metric: str, num_pairs: int, times: list[float], **context: Any) -> dict[str, Any]:
    return series_result(metric, [num_pairs / seconds for seconds in times], "pairs/s", **context)
