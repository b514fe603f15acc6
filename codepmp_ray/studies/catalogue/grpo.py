"""GRPO with CodePMP's reward model behind the service as its reward: did answers get better?

`codepmp train grpo` trains the policy, for it needs the service; the study compares it with the
base.

TRL's trainer does it (Shao et al. 2024); TRL is an optional dependency (the extra `rl`), and
everything else of the studies does without it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from codepmp_ray.config.base import fingerprint
from codepmp_ray.errors import ResourceError
from codepmp_ray.json_records import read_record, record_bytes
from codepmp_ray.modeling.sources import resolve_model
from codepmp_ray.studies import measures, policies
from codepmp_ray.studies.catalogue import common
from codepmp_ray.studies.catalogue.policies import base_weights
from codepmp_ray.studies.outcome import Outcome, Plot, Row, Series, Table, Value, not_measured
from codepmp_ray.studies.policies import test_prompts
from codepmp_ray.studies.scores import ScoreBook
from codepmp_ray.studies.study import Context, Models, Study
from codepmp_ray.studies.trainings import Arm

_JUDGE = f"RM, {common.WITH}"
LOG_FILE = "grpo_log.json"  # beside the weights: reward and divergence by step
Prompt = str | Sequence[dict[str, str]]


@dataclass(frozen=True)
class GrpoSettings:
    """Attributes:
    num_prompts: of one step, each answered `num_generations` times.
    beta: weight of the divergence from the model that training begins with.
    """

    num_steps: int
    max_new_tokens: int
    num_prompts: int = 2
    num_generations: int = 4
    learning_rate: float = 1e-5
    beta: float = 0.02
    seed: int = 0


def require_trl() -> None:
    """Raises ResourceError when TRL is not installed."""
    if find_spec("trl") is None:
        raise ResourceError(
            "GRPO needs TRL, which is not installed.", "Install the extra: pip install -e '.[rl]'."
        )


def train_grpo(
    base: str,
    prompts: Sequence[Prompt],
    reward: Any,
    folder: Path,
    settings: GrpoSettings,
) -> None:
    """Write the trained policy and its log to `folder`, whole or not at all.

    `reward` is a function as in TRL's `reward_funcs`: (prompts, completions, **columns) -> rewards.
    """
    require_trl()
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback

    trl = import_module("trl")

    weights = resolve_model(base)
    rows = [
        {"prompt": [{"role": "user", "content": p}] if isinstance(p, str) else list(p)}
        for p in prompts
    ]
    scratch = folder.with_name(f".{folder.name}.{os.getpid()}")
    batch_size = settings.num_prompts * settings.num_generations
    config = trl.GRPOConfig(
        output_dir=str(scratch / "trainer"),
        per_device_train_batch_size=batch_size,
        num_generations=settings.num_generations,
        max_completion_length=settings.max_new_tokens,
        max_steps=settings.num_steps,
        learning_rate=settings.learning_rate,
        beta=settings.beta,
        seed=settings.seed,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=not torch.cuda.is_available(),
        bf16=False,
        disable_tqdm=True,
    )
    model: Any = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(weights)
    trainer = trl.GRPOTrainer(
        model=model,
        reward_funcs=reward,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    try:
        trainer.train()
        model.save_pretrained(scratch / "model")
        tokenizer.save_pretrained(scratch / "model")
        log = [row for row in trainer.state.log_history if "reward" in row]
        (scratch / "model" / LOG_FILE).write_bytes(record_bytes(log, indent=1))
        os.rename(scratch / "model", folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def arms(context: Context) -> list[Arm]:
    """The judge alone; the policy is trained against it by `codepmp train grpo`."""
    sets = tuple(context.sets())
    num = context.num_train(*sets)

    def start(seed: int):
        return context.bench.plans.pmp(seed, context.model)

    return [common.rm_arm(context, _JUDGE, start, sets, num)]


def settings_of(context: Context) -> GrpoSettings:
    options = context.options
    return GrpoSettings(options.num_steps or 10, options.max_new_tokens or 50)


def folder_name(context: Context) -> str:
    """Of the policy in the run directory; follows from judge and settings."""
    (arm,) = arms(context)
    judge = context.bench.key(arm.by_seed[0])
    return f"policies/grpo-{fingerprint(judge, vars(settings_of(context)))}"


def training_prompts(context: Context) -> list[policies.Prompt]:
    """Prompts of the pairs that the judge was finetuned on."""
    (arm,) = arms(context)
    training = arm.by_seed[0]
    rows = context.bench.pairs.rows(training.pairs, training.base)
    return [row["messages"] or row["prompt"] for row in rows]


def measure(context: Context, models: Models, book: ScoreBook) -> Outcome:
    store, name = context.bench.store, folder_name(context)
    if not store.exists(f"{name}/{LOG_FILE}"):
        return not_measured(
            "resources", "The policy is not trained.", "Run codepmp train grpo, same recipe."
        )
    settings, encoder = settings_of(context), context.bench.pairs.encoder(context.model)
    num = context.options.num_prompts or 50
    prompts = [prompt for set_ in context.sets() for prompt in test_prompts(context, set_, num)]
    rewards = {}
    for label, folder in (("base", base_weights(context)), ("GRPO", context.bench.run_dir / name)):
        made = policies.answers(
            folder, encoder, prompts, settings.max_new_tokens, bf16=context.bf16
        )
        texts = [texts[0] for texts in made]
        rewards[label] = book.rewards(models[_JUDGE][0], prompts, texts)
    gaps = (rewards["GRPO"] - rewards["base"])[None]
    wins = (gaps > 0) + (gaps == 0) / 2
    comparison = measures.compare(
        "GRPO: share of prompts won against base, over one half",
        wins,
        np.full_like(wins, 0.5),
        context.confidence,
    )
    log = read_record(store.read_bytes(f"{name}/{LOG_FILE}"))
    steps = [float(i + 1) for i in range(len(log))]
    curve = Series("mean reward of the step's answers", steps, [row["reward"] for row in log])
    return Outcome(
        tables=[
            Table(
                f"Mean reward of greedy answers to {len(prompts)} prompts",
                ["reward"],
                [Row(label, [Value(float(v.mean()))], [None]) for label, v in rewards.items()],
                unit="number",
            )
        ],
        plots=[Plot("Reward while training", "step", "reward", [curve], False, "number")],
        comparisons=[comparison],
        differs=[
            common.model_difference(context),
            common.pmp_difference(context),
            f"{settings.num_steps} steps of {settings.num_prompts} prompts with "
            f"{settings.num_generations} answers each: it shows that the service serves as a "
            "reward, not what PPO would reach.",
            "The judge of the answers is the reward that was trained for.",
            *common.set_differences(context, context.sets()),
        ],
        facts={"log": log},
    )


GRPO = Study(
    "seed004_grpo",
    "HH-RLHF by GRPO",
    "the service as a reward for GRPO",
    "Do answers get better, by its own judgement, when a policy is trained against the service?",
    arms,
    measure,
)
