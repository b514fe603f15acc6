"""A whole run on disk, written through the same stages and ledgers that the jobs write through."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from codepmp_ray.config.recipe import Recipe, parse_recipe
from codepmp_ray.records import (
    CANDIDATE,
    GRADE,
    PAIR,
    REJECTED,
    SCORE,
    SNIPPET,
    stable_id,
    table_from_rows,
)
from codepmp_ray.runs import Stage, open_stage

Row = dict[str, Any]


class RunMaker:
    """Writes the stages of one run. Every method completes its stage unless told otherwise."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def all_stages(self) -> None:
        self.corpus()
        self.synthesis([pair(i) for i in range(8)])
        self.training("pretraining", [step(i) for i in range(1, 11)], [held_out(10, 0.625, 120)])
        self.sampling()
        self.training("finetuning", [step(i) for i in range(1, 6)], [held_out(5, 0.75)])
        self.evaluation()

    def corpus(self, num_snippets: int = 12) -> None:
        snippets = [snippet(i) for i in range(num_snippets)]
        rejected = [
            reject("corpus", reason, i) for i, reason in enumerate(["too_short"] * 3 + ["binary"])
        ]
        stage = self._started("corpus")
        stage.ledger.commit(
            0,
            len(snippets) + len(rejected),
            {
                "snippets": table_from_rows(snippets, SNIPPET),
                "rejected": table_from_rows(rejected, REJECTED),
            },
        )
        stage.complete({"duration_s": 3.25, "num_snippets": num_snippets})

    def synthesis(self, pairs: list[Row], reasons: tuple[str, ...] = ("sides_equal",) * 2) -> Stage:
        rejected = [reject("synthesis", reason, i) for i, reason in enumerate(reasons)]
        stage = self._started("synthesis")
        half = len(pairs) // 2
        for shard, (good, bad) in enumerate([(pairs[:half], rejected), (pairs[half:], [])]):
            stage.ledger.commit(
                shard,
                len(good) + len(bad),
                {
                    "pairs": table_from_rows(good, PAIR),
                    "rejected": table_from_rows(bad, REJECTED),
                },
            )
        stage.complete({"duration_s": 184.0})
        return stage

    def training(self, name: str, steps: list[Row], evals: list[Row], done: bool = True) -> Stage:
        stage = self._started(name)
        lines = [json.dumps(row) for row in [*steps, *evals]]
        stage.store.put("metrics.jsonl", "\n".join(lines).encode())
        stage.ledger.commit(
            0, 1, {"rejected": table_from_rows([reject(name, "over_max_length", 0)], REJECTED)}
        )
        if done:
            stage.complete({"duration_s": 61.5})
        return stage

    def sampling(self) -> None:
        rows = candidates()
        stage = self._started("candidates")
        stage.ledger.commit(0, len(rows), {"candidates": table_from_rows(rows, CANDIDATE)})
        stage.complete({"duration_s": 90.0})
        grades = [grade(row) for row in rows]
        stage = self._started("grades")
        stage.ledger.commit(0, len(grades), {"grades": table_from_rows(grades, GRADE)})
        stage.complete({"duration_s": 5.0})

    def evaluation(self, without_pmp: Row | None = None, **changes: Any) -> Stage:
        rows = [score(row) for row in candidates() if row["split"] == "eval"]
        stage = self._started("evaluation")
        stage.ledger.commit(0, len(rows), {"scores": table_from_rows(rows, SCORE)})
        stage.store.put("results.json", json.dumps({**results(), **changes}).encode())
        if without_pmp:
            stage.store.put("without_pmp.json", json.dumps(without_pmp).encode())
        stage.complete({"duration_s": 40.0})
        return stage

    def synthesis_again(self, pairs: list[Row]) -> None:
        shutil.rmtree(self.run_path("synthesis"))
        self.synthesis(pairs)

    def run_path(self, name: str) -> Path:
        return Path(open_stage(self.recipe, name).uri)

    def _started(self, name: str) -> Stage:
        stage = open_stage(self.recipe, name)
        stage.start()
        return stage


def snippet(i: int) -> Row:
    code = f"def f{i}(x):\n    return x + {i}\n"
    return {
        "snippet_id": stable_id("s", str(i)),
        "source_id": stable_id("f", str(i // 2)),
        "repo": "cpython",
        "path": f"lib/m{i // 2}.py",
        "language": "python",
        "license": "PSF-2.0",
        "kind": "function",
        "name": f"f{i}",
        "start_line": 1,
        "end_line": 2,
        "code": code,
    }


def reject(stage: str, reason: str, i: int) -> Row:
    return {
        "row_id": stable_id(stage, str(i)),
        "stage": stage,
        "reason": reason,
        "detail": "",
        "source_id": stable_id("r", str(i)),
        "repo": "cpython",
        "path": f"lib/r{i}.py",
    }


def pair(i: int, **changes: Any) -> Row:
    """Pair `i`: chosen has 10 + i tokens, rejected 12 + i."""
    row = {
        "pair_id": stable_id("p", str(i)),
        "prompt": f"Write Python code that adds {i}.",
        "chosen": f"```python\ndef add(x):\n    return x + {i}\n```",
        "rejected": f"def add(x): {i}",
        "snippet_id": stable_id("s", str(i)),
        "source_id": stable_id("f", str(i)),
        "repo": "cpython",
        "path": f"lib/m{i}.py",
        "language": "python",
        "license": "PSF-2.0",
        "construction": "strong_weak",
        "description": f"Adds {i}.",
        "describe_model": "big",
        "strong_model": "big",
        "weak_model": "small",
        "prompt_template": "codepmp-v1",
        "description_num_tokens": 5,
        "chosen_num_tokens": 10 + i,
        "rejected_num_tokens": 12 + i,
        "description_finish_reason": "stop",
        "chosen_finish_reason": "stop",
        "rejected_finish_reason": "stop",
    }
    return {**row, **changes}


def step(i: int) -> Row:
    loss_rm, loss_lm = 0.7 / i, 1.2 / i
    return {
        "step": i,
        "epoch": i / 10,
        "loss": loss_rm + loss_lm,
        "loss_rm": loss_rm,
        "loss_lm": loss_lm,
        "accuracy": min(0.4 + i / 20, 1.0),
        "margin": i / 10,
        "mean_reward": 0.1,
        "min_reward": -1.0,
        "max_reward": 1.0,
        "num_tokens": 512 * i,
        "grad_norm": 1.5,
        "learning_rate": 1e-5 * i,
        "tokens_per_second": 321.0,
    }


def held_out(i: int, accuracy: float, num_pairs: int = 16) -> Row:
    return {"step": i, "eval_accuracy": accuracy, "eval_loss_rm": 0.6, "eval_num_pairs": num_pairs}


def candidates() -> list[Row]:
    return [
        {
            "candidate_id": stable_id("c", f"{problem}", f"{sample}"),
            "problem_id": f"HumanEval/{problem}",
            "split": "train" if problem < 2 else "eval",
            "sample_index": sample,
            "prompt": f"def task_{problem}():\n",
            "completion": f"    return {problem}{sample}",
            "finish_reason": "stop",
            "num_tokens": 7 + sample,
            "model": "big",
        }
        for problem in range(5)
        for sample in range(4)
    ]


def grade(row: Row) -> Row:
    passed = row["sample_index"] == int(row["problem_id"][-1]) % 4
    return {
        "candidate_id": row["candidate_id"],
        "problem_id": row["problem_id"],
        "passed": passed,
        "outcome": "passed" if passed else "failed",
        "detail": "",
        "duration_s": 0.1,
    }


def score(row: Row) -> Row:
    """The highest score goes to sample 2: right for problem 2, wrong for 3 and 4."""
    return {
        "candidate_id": row["candidate_id"],
        "problem_id": row["problem_id"],
        "sample_index": row["sample_index"],
        "score": 1.5 - abs(row["sample_index"] - 2),
        "num_tokens": row["num_tokens"],
        "truncated": False,
    }


def results() -> Row:
    def curve(*accuracy: float) -> Row:
        return {
            "accuracy": list(accuracy),
            "low": [a - 0.1 for a in accuracy],
            "high": [a + 0.1 for a in accuracy],
        }

    return {
        "task": "humaneval",
        "title": "HumanEval",
        "num_problems": 36,
        "num_candidates": 4,
        "confidence": 0.95,
        "bon": {
            "k": [1, 2, 4],
            "reward_model": curve(0.25, 0.31, 0.333),
            "random": curve(0.25, 0.25, 0.25),
            "oracle": curve(0.25, 0.5, 0.9),
            "length": curve(0.25, 0.26, 0.27),
            "shortest": curve(0.25, 0.24, 0.23),
            "majority": curve(0.25, 0.28, 0.3),
        },
        "null_rule": "length",
        "differences": {
            name: {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "p_value": 0.4}
            for name, mean in (
                ("reward_model", 0.083),
                ("oracle", 0.65),
                ("length", 0.02),
                ("shortest", -0.02),
                ("majority", 0.05),
            )
        },
        "parts": {
            "sums": {
                "num_problems": 30,
                "accuracy": {"reward_model": 0.4, "random": 0.25},
                "difference": {"mean": 0.15, "low": 0.05, "high": 0.25},
            },
            "odd_ones": {
                "num_problems": 6,
                "accuracy": {"reward_model": 0.0, "random": 0.25},
                "difference": {"mean": -0.25, "low": -0.5, "high": 0.0},
            },
        },
        "verdict": "Too small to tell: the reward model differs from random by +8.3 points.",
        "difference": {"k": 4, "mean": 0.083, "low": -0.2, "high": 0.4, "p_value": 0.41},
        "model": "codepmp-rm",
        "generator": "big",
        "scores": {"num": 12, "mean": 0.25, "std": 0.9},
        "sandbox": "namespaces",
    }


@pytest.fixture
def make_recipe(tmp_path: Path) -> Callable[..., Recipe]:
    def make(**sections: Any) -> Recipe:
        return parse_recipe(
            {"name": "test run", "run_dir": str(tmp_path / "run"), **sections}, "test"
        )

    return make


@pytest.fixture
def maker(make_recipe: Callable[..., Recipe]) -> RunMaker:
    return RunMaker(make_recipe())


@pytest.fixture
def make_pair() -> Callable[..., Row]:
    return pair


@pytest.fixture
def make_step() -> Callable[[int], Row]:
    return step


@pytest.fixture
def make_held_out() -> Callable[..., Row]:
    return held_out
