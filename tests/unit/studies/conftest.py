"""Studies without trainings: rewards by a hash, models by name alone, a few rows of data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from codepmp_ray.config.studies import StudiesConfig
from codepmp_ray.studies.bench import Bench
from codepmp_ray.studies.catalogue import STUDIES
from codepmp_ray.studies.outcome import Outcome
from codepmp_ray.studies.scores import ScoreBook, Trained
from codepmp_ray.studies.study import Context

MakeBench = Callable[..., Bench]


class HashBook:
    """A ScoreBook whose rewards follow from model, prompt and text alone."""

    def rewards(self, model: Trained, prompts: Any, texts: Any) -> np.ndarray:
        names = [f"{model.key}|{p}|{t}" for p, t in zip(prompts, texts, strict=True)]
        digests = [hashlib.sha256(name.encode()).digest() for name in names]
        return np.array([int.from_bytes(digest[:4], "big") / 2**32 for digest in digests])

    pair_rewards, pool_rewards = ScoreBook.pair_rewards, ScoreBook.pool_rewards

    def close(self) -> None:
        pass


def measured(bench: Bench, name: str) -> Outcome:
    """What the study makes of models that answer by a hash, one for each arm and seed."""
    study = STUDIES[name]
    context = Context(name, bench, bench.config.options(name))
    models = {
        arm.label: [
            Trained(f"{arm.label} {seed}", arm.label, Path(), "trend") for seed in context.seeds
        ]
        for arm in study.trainings(context)
    }
    return study.measure(context, models, cast(ScoreBook, HashBook()))


def write_rows(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def make_bench(tmp_path: Path, tiny_model_dir: Path) -> MakeBench:
    """A bench of one set `sums` and, by name, of pools of 12 questions with 4 answers
    each, half of which the set does not train on."""

    def make(*pools: str, with_models: bool = True, **changes: Any) -> Bench:
        pairs = [
            {"prompt": f"p{i}", "chosen": f"yes {i}", "rejected": f"no {i}", "pair_id": str(i)}
            for i in range(60)
        ]
        write_rows(tmp_path / "sums.jsonl", pairs)
        for name in pools:
            questions = [
                {"question": f"{name} {i}?", "candidates": [
                    {"text": f"{i} by {m}", "correct": (i + j) % 3 == 0, "answer": str(i + j),
                     "model": m if with_models else None}
                    for j, m in enumerate("abcd")
                ]}
                for i in range(12)
            ]  # fmt: skip
            write_rows(tmp_path / f"{name}.jsonl", questions)
        options = {"sets": ["sums"], "pools": list(pools), "num_train": 8, "num_candidates": 4}
        fields: dict[str, Any] = {
            "run_dir": str(tmp_path / "run"),
            "data_dir": str(tmp_path),
            "num_bootstrap": 100,
            "models": {"trend": {"tokenizer": str(tiny_model_dir), "warmup_pairs": 4}},
            "sets": {"sums": {"paths": ["sums.jsonl"], "test_fraction": 0.5}},
            "pools": {n: {"path": f"{n}.jsonl", "test_of": "sums"} for n in pools},
            "code_pairs": ["sums"],
            "pmp_pairs": 16,
            "branches": {"factor": 2.0, "num_branches": 1},
            "pmp": {"objective": "pmp", "batch_size": 4, "decay_ratio": 0.25},
            "rm": {"objective": "rm", "batch_size": 4, "schedule": "cosine"},
            "defaults": {"seeds": 2, **options},
        }
        return Bench(StudiesConfig.model_validate(fields | changes))

    return make
