"""Does PMP on code pairs help a reward model for GSM8K? SmolLM2-135M, with and without, by seed.

For every seed the product's own jobs run: PMP on preference pairs, then RM finetuning on right and
wrong GSM8K solutions from it, and the same finetuning from the plain model. Questions of the test
half are never trained on. Accuracy is the share of test questions whose right solution gets the
higher reward than their wrong one (one of each, drawn once); intervals resample questions, of the
means over seeds.

Stages are kept in `--dir`, so the command can be stopped and repeated.

    python -m benchmarks.train_pmp_transfer --pairs pairs.jsonl.zst \
        --solutions example_model_solutions.jsonl.zst --dir runs/pmp-transfer

`--pairs` are rows of prompt, chosen, rejected; `--solutions` are OpenAI's example_model_solutions
of grade-school-math (1,319 questions, four labelled solutions each).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks._results import write_results
from codepmp_ray.evaluation.statistics import bootstrap_intervals, paired_difference

CONFIDENCE, DRAWS = 0.95, 10_000
MODEL = "builtin:smollm2-135m-instruct"
TRAINING: dict[str, Any] = {
    "model_name_or_path": MODEL,
    "batch_size": 16,
    "max_length": 640,
    "max_tokens_per_micro_batch": 4096,
    "num_workers": 1,
    "cpus_per_worker": 2.0,
    "eval_fraction": 0.0,
}


def labelled_questions(path: Path) -> list[dict[str, Any]]:
    """{question, solutions: [{text, label}]} of the questions with right and wrong solutions."""
    with pa.input_stream(str(path), compression="detect") as stream:
        rows = [json.loads(line) for line in stream.read().decode().splitlines()]
    questions = []
    for row in rows:
        solutions = [
            {"text": value["solution"], "label": value["is_correct"]}
            for value in row.values()
            if isinstance(value, dict)
        ]
        if len({solution["label"] for solution in solutions}) == 2:
            questions.append({"question": row["question"], "solutions": solutions})
    random.Random(0).shuffle(questions)
    return questions


def make_recipe(arguments: Any, seed: int, with_pmp: bool) -> dict[str, Any]:
    folder = Path(arguments.dir)
    common = {**TRAINING, "seed": seed}
    pairs = {"kind": "preference", "path": arguments.pairs, "max_rows": arguments.num_pairs}
    solutions = {"kind": "gsm8k_solutions", "path": str(folder / "train.jsonl")}
    pretraining = {
        **common,
        "objective": "pmp",
        "learning_rate": 2e-5,
        "schedule": "wsd",
        "warmup_ratio": 0.1,
        "decay_ratio": 0.2,
        "data": [pairs],
    }
    finetuning = {
        **common,
        "objective": "rm",
        "learning_rate": 2e-5,
        "schedule": "cosine",
        "warmup_ratio": 0.1,
        "weight_decay": 0.0,
        "data": [{**solutions, "max_pairs_per_problem": 1}],
        "model_name_or_path": None if with_pmp else MODEL,
    }
    name = f"seed-{seed}"
    return {
        "name": name,
        "run_dir": str(folder / name),
        "pretraining": pretraining,
        "finetuning": finetuning,
    }


def train(recipe: dict[str, Any], stages: list[str]) -> Path:
    """Run the jobs; the folder of the last one's model."""
    text = json.dumps(recipe)
    file = Path(recipe["run_dir"]) / f"recipe-{hashlib.sha256(text.encode()).hexdigest()[:12]}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)  # JSON is YAML
    for stage in stages:
        subprocess.run([sys.executable, "-m", f"jobs.{stage}", "--config", str(file)], check=True)
    from codepmp_ray.config.recipe import load_recipe
    from codepmp_ray.runs import open_stage

    return Path(open_stage(load_recipe(file), "finetuning").require().uri) / "model"


def correct(model: Path, questions: list[dict[str, Any]]) -> list[float]:
    """1 or 0 for every question: does the model prefer the right solution to the wrong one?"""
    from benchmarks._training import PAIRS_PER_MICRO_BATCH, use_all_cores
    from codepmp_ray.modeling.loading import load_preference_model
    from codepmp_ray.modeling.objectives import make_objective
    from codepmp_ray.preference.items import EncodedItem
    from codepmp_ray.preference.packing import pack
    from codepmp_ray.preference.tokenization import Encoder

    use_all_cores()
    encoder = Encoder.load(model)
    rng = random.Random(0)
    pairs = []
    for number, row in enumerate(questions):
        texts = [
            rng.choice([s["text"] for s in row["solutions"] if s["label"] == label])
            for label in (True, False)
        ]
        prompt, (right, wrong) = encoder.encode(row["question"].strip(), texts).split()
        pairs.append(EncodedItem.of_pair(str(number), prompt, right.ids, wrong.ids))
    objective = make_objective("rm")
    scorer = load_preference_model(str(model), objective, seed=0).eval()
    results: list[float] = []
    with torch.inference_mode():
        for start in range(0, len(pairs), PAIRS_PER_MICRO_BATCH):
            batch = pack(pairs[start : start + PAIRS_PER_MICRO_BATCH], sides=objective.sides)
            rewards = scorer(batch)["rewards"]
            results += (rewards[0::2] > rewards[1::2]).double().tolist()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", required=True)
    parser.add_argument("--solutions", required=True, type=Path)
    parser.add_argument("--dir", default="runs/pmp-transfer")
    parser.add_argument("--num-pairs", type=int, default=256)
    parser.add_argument("--num-train-questions", type=int, default=300)
    parser.add_argument("--num-test-questions", type=int, default=None, help="default: the others")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    questions = labelled_questions(arguments.solutions)
    train_part = questions[: arguments.num_train_questions]
    test_part = questions[arguments.num_train_questions :][: arguments.num_test_questions]
    Path(arguments.dir).mkdir(parents=True, exist_ok=True)
    (Path(arguments.dir) / "train.jsonl").write_text("".join(map(_line, train_part)))
    found: dict[str, list[list[float]]] = {"with_pmp": [], "without_pmp": []}
    for seed in range(arguments.seeds):
        for name, shares in found.items():
            stages = ["pretrain", "finetune"] if name == "with_pmp" else ["finetune"]
            model = train(make_recipe(arguments, seed, name == "with_pmp"), stages)
            shares.append(correct(model, test_part))
            print(f"seed {seed}, {name}: {np.mean(shares[-1]):.4f}", flush=True)
    common = {
        "unit": "share of questions whose right solution is preferred",
        "goal": None,
        "runs": arguments.seeds,
        "pmp_pairs": arguments.num_pairs,
        "train_questions": len(train_part),
        "test_questions": len(test_part),
        "interval": "95 %, questions resampled, of the mean over seeds",
    }
    means = {name: np.mean(shares, axis=0) for name, shares in found.items()}
    results = []
    for name, values in means.items():
        (interval,) = bootstrap_intervals(values[:, None], CONFIDENCE, DRAWS)
        by_seed = [round(float(np.mean(shares)), 4) for shares in found[name]]
        results.append(_result(f"accuracy_{name}", interval, common | {"by_seed": by_seed}))
    difference = paired_difference(means["with_pmp"], means["without_pmp"], CONFIDENCE, DRAWS)
    p_value = {"p_value": round(difference.p_value, 4)}
    results.append(_result("difference", difference, common | p_value))
    write_results("train_pmp_transfer", results)


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _result(metric: str, interval: Any, context: dict[str, Any]) -> dict[str, Any]:
    spread = [round(interval.low, 4), round(interval.high, 4)]
    return {"metric": metric, "value": round(interval.mean, 4), "spread": spread, **context}


if __name__ == "__main__":
    main()
