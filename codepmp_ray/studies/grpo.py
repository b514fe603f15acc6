"""GRPO (Shao et al. 2024) with the best-of-N service as its reward, by TRL's trainer.

TRL is an optional dependency (the extra `rl`); everything else of the studies does without it.
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

from codepmp_ray.errors import ResourceError
from codepmp_ray.json_records import record_bytes
from codepmp_ray.modeling.sources import resolve_model

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
