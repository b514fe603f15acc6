"""A training stage on preference sets: built, mixed, trained, accounted for. Without Ray."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from codepmp_ray.command.train import outcome
from codepmp_ray.config.recipe import parse_recipe
from codepmp_ray.errors import InputError
from codepmp_ray.runs import open_stage


def test_finetuning_on_two_sets_needs_no_stage_before_it(
    tmp_path: Path, tiny_model_dir: Path, preference_rows: list[dict]
) -> None:
    from codepmp_ray.cluster.training import finetune

    pairs, talks = tmp_path / "pairs.jsonl", tmp_path / "talks.jsonl"
    rows = [*preference_rows, {**preference_rows[0], "chosen": "x" * 500}, {"prompt": 3}]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    head = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c{}\n\nAssistant:"
    talk = [
        {"chosen": head.format(i) + " good", "rejected": head.format(i) + " bad"} for i in range(6)
    ]
    talks.write_text("".join(json.dumps(row) + "\n" for row in talk))
    settings = {
        "objective": "rm",
        "model_name_or_path": str(tiny_model_dir),
        "batch_size": 8,
        "max_length": 256,
        "max_tokens_per_micro_batch": 512,
        "eval_fraction": 0.1,
        "bf16": False,
        "use_gpu": False,
        "num_workers": 2,
        "cpus_per_worker": 0.5,
        "data": [
            {"path": str(pairs), "weight": 2.0},
            {"kind": "hh_rlhf", "path": str(talks)},
        ],
    }
    recipe = parse_recipe({"run_dir": str(tmp_path / "run"), "finetuning": settings}, "test")
    summary = finetune(recipe, in_process=True)
    sources = summary["sources"]
    assert sources["preference"]["num_pairs"] == 24 and sources["preference"]["num_rejected"] == 2
    assert sources["preference"]["num_over_max_length"] == 1
    assert sources["hh_rlhf"]["num_pairs"] == 6
    held_out = {name: counts.get("num_held_out", 0) for name, counts in sources.items()}
    per_epoch = 2 * (24 - held_out["preference"]) + (6 - held_out["hh_rlhf"])
    assert summary["num_steps"] == -(-per_epoch // 8)
    assert summary["num_pairs"] + summary["num_rejected"] == 32
    assert "(over max_length: preference 1 rejected)" in outcome(recipe, "finetuning", summary)
    stage = open_stage(recipe, "finetuning")
    assert (Path(stage.uri) / "model" / "model.safetensors").exists()
    reasons = sorted(row["reason"] for row in stage.ledger.read("rejected").to_pylist())
    assert reasons == ["not_text", "over_max_length"]


def test_a_missing_set_is_refused_before_workers_start(
    tmp_path: Path, tiny_model_dir: Path
) -> None:
    from codepmp_ray.cluster.training import pretrain

    settings = {"model_name_or_path": str(tiny_model_dir), "data": [{"path": "no/such/file"}]}
    recipe = parse_recipe({"run_dir": str(tmp_path), "pretraining": settings}, "test")
    with pytest.raises(InputError, match=r"path=no/such/file does not exist"):
        pretrain(recipe, in_process=True)
    assert not Path(open_stage(recipe, "pretraining").uri).exists()
