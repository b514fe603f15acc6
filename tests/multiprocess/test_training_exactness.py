"""Real processes over gloo: world size does not change the result, SIGKILL does not either."""

from __future__ import annotations

import functools
import math
import multiprocessing
import os
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.errors import CodePMPError
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.storage import LocalStore, open_store
from codepmp_ray.training.metrics import read_metrics
from tests.processes import PATIENCE_S

TRAINING = {
    "objective": "pmp",
    "batch_size": 5,  # 24 pairs, some held out: the last batch of an epoch is a smaller one
    "num_train_epochs": 2,
    "learning_rate": 1e-3,
    "max_length": 256,
    "max_tokens_per_micro_batch": 512,
    "eval_fraction": 0.15,
    "bf16": False,
    "export_dtype": "float32",
    "save_steps": 2,
}

# Pairs of an evaluation set; none of them is among the rows of the tests.
HARD_ROWS = [
    {"pair_id": f"hard-{n}", "prompt": f"Say {n}.", "chosen": "x" * n, "rejected": "y" * (9 - n)}
    for n in range(1, 8)
]

_PRELOADED = ["codepmp_ray.training.loop", "transformers.models.llama.modeling_llama"]


def _rank_main(
    rank: int,
    world_size: int,
    port: int,
    task: Any,
    die_at: int | None,
    die_rank: int,
    notice_at: int | None,
    stop_at: int | None,
    environment: dict[str, str],
) -> None:
    os.environ.update(environment)
    import torch
    import torch.distributed as dist

    from codepmp_ray.modeling.collectives import leave_process_group
    from codepmp_ray.training.loop import train
    from codepmp_ray.training.stopping import request_stop

    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, rank=rank, world_size=world_size)

    steps = []

    def report(row: dict[str, Any]) -> None:
        steps.append(row["step"])
        if stop_at is not None and rank == 0 and row["step"] == stop_at:
            request_stop(open_store(task.out_dir))
        if die_at is not None and rank == die_rank and row["step"] == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        asked = iter(range(1, 1000))  # after every step
        train(task, report, lambda: notice_at is not None and next(asked) >= notice_at)
    except CodePMPError as error:
        sys.exit(error.exit_code)
    leave_process_group()


def run(
    out_dir: Path | str,
    model: Path | str,
    rows: list[dict],
    world_size: int,
    die_at: int | None = None,
    die_rank: int = -1,
    notice_at: int | None = None,
    stop_at: int | None = None,
    trunk: Any = None,
    sets: dict[str, list[dict]] | None = None,
    environment: dict[str, str] | None = None,
    exit_code: int = 0,
    on_gpu: bool = False,
    **settings: Any,
) -> list[dict]:
    """Train in `world_size` processes; `die_rank` (the last) is killed at step `die_at`.

    From step `notice_at` on the processes are told that they will be preempted; at `stop_at` they
    are asked to stop. `sets` are the rows of `eval_data` by name. `environment` is theirs beside
    what the fork server has. Each of them has to end with `exit_code`, an error's of ours. They
    see no GPU unless asked to.
    """
    from codepmp_ray.training.task import InputShard, TrainingTask

    config = TrainingConfig.model_validate({**TRAINING, **settings})
    inputs = tuple(
        InputShard("run", f"digest of {start}", functools.partial(list, rows[start : start + 10]))
        for start in range(0, len(rows), 10)
    )
    inputs += tuple(
        InputShard(name, f"digest of {name}", functools.partial(list, own), is_evaluation=True)
        for name, own in (sets or {}).items()
    )
    task = TrainingTask("pretraining", config, str(model), inputs, str(out_dir), trunk)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # The fork server has loaded the libraries, so that not every rank does: seconds each.
    own = {} if on_gpu else {"CUDA_VISIBLE_DEVICES": ""}
    own |= environment or {}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    workers = [
        context.Process(
            target=_rank_main,
            args=(
                *(rank, world_size, port, task, die_at, die_rank % world_size),
                *(notice_at, stop_at, own),
            ),
        )
        for rank in range(world_size)
    ]
    for worker in workers:
        worker.start()
    for worker in [workers[die_rank], *workers]:
        worker.join(PATIENCE_S)
        if die_at is not None:
            assert worker.exitcode == -signal.SIGKILL
            break
    for worker in workers:
        if worker.is_alive():
            worker.kill()
        worker.join()
        assert die_at is not None or worker.exitcode == exit_code
    return read_metrics(open_store(out_dir))


def weights(out_dir: Path) -> dict:
    return load_file(out_dir / "model" / "model.safetensors")


def losses(rows: list[dict]) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


@pytest.fixture(scope="module")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path, preference_rows: list[dict]
) -> tuple[Path, list[dict]]:
    out_dir = tmp_path_factory.mktemp("whole") / "two ranks"
    return out_dir, run(out_dir, tiny_model_dir, preference_rows, 2)


@pytest.fixture(scope="module")
def killed(
    tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path, preference_rows: list[dict]
) -> Path:
    """What a SIGKILL of the last rank after step 3, in the middle of an epoch, leaves behind."""
    out_dir = tmp_path_factory.mktemp("killed") / "run"
    run(out_dir, tiny_model_dir, preference_rows, 2, die_at=3)
    assert not (out_dir / "model").exists()
    return out_dir


def test_training_learns_and_accounts_for_every_row(uninterrupted) -> None:
    out_dir, rows = uninterrupted
    curve = losses(rows)
    assert list(curve) == list(range(1, rows[-1]["total_steps"] + 1))
    assert min(list(curve.values())[-3:]) < curve[1]
    evaluations = [row for row in rows if "eval_accuracy" in row]
    assert [row["step"] for row in evaluations] == [0, rows[-1]["total_steps"]]
    assert ShardLedger(LocalStore(out_dir)).totals().num_input_rows == 24
    # The exported model is all that stays of the weights.
    assert not (out_dir / "checkpoints").exists()


def test_evaluation_sets_are_measured_each_for_itself_and_not_trained_on(
    uninterrupted, tmp_path: Path, tiny_model_dir: Path, preference_rows: list[dict]
) -> None:
    expected_dir, expected_rows = uninterrupted
    turned = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in HARD_ROWS]
    sets = {"hard": HARD_ROWS, "turned": turned}
    rows = run(tmp_path, tiny_model_dir, preference_rows, 2, sets=sets)
    assert losses(rows) == losses(expected_rows)
    ours, theirs = weights(tmp_path), weights(expected_dir)
    assert all(ours[name].equal(theirs[name]) for name in theirs)
    for row, expected in zip(
        (row for row in rows if "eval_loss" in row),
        (row for row in expected_rows if "eval_loss" in row),
        strict=True,
    ):
        held_out = {name: value for name, value in row.items() if "eval/" not in name}
        assert held_out | {"eval_s": 0} == expected | {"eval_s": 0}
        assert row["eval/hard/num_pairs"] == row["eval/turned/num_pairs"] == len(HARD_ROWS)
        assert row["eval/hard/margin"] == pytest.approx(-row["eval/turned/margin"], abs=1e-6)
        assert row["eval/hard/loss_lm"] != row["eval/turned/loss_lm"]


def test_sigkill_in_mid_epoch_and_resume_gives_the_same_bits(
    uninterrupted, killed: Path, tmp_path: Path, tiny_model_dir: Path, preference_rows: list[dict]
) -> None:
    expected_dir, expected_rows = uninterrupted
    shutil.copytree(killed, tmp_path, dirs_exist_ok=True)
    rows = run(tmp_path, tiny_model_dir, preference_rows, 2)
    assert losses(rows) == losses(expected_rows)
    ours, theirs = weights(tmp_path), weights(expected_dir)
    assert set(ours) == set(theirs)
    assert all(ours[name].equal(theirs[name]) for name in ours)


def test_sigkill_of_the_rank_that_keeps_the_books_gives_the_same_bits(
    uninterrupted, tmp_path: Path, tiny_model_dir: Path, preference_rows: list[dict]
) -> None:
    """Rank 0 writes markers and metrics; at step 4 a checkpoint is being written."""
    expected_dir, expected_rows = uninterrupted
    run(tmp_path, tiny_model_dir, preference_rows, 2, die_at=4, die_rank=0)
    assert not (tmp_path / "model").exists()
    rows = run(tmp_path, tiny_model_dir, preference_rows, 2)
    assert losses(rows) == losses(expected_rows)
    ours, theirs = weights(tmp_path), weights(expected_dir)
    assert all(ours[name].equal(theirs[name]) for name in theirs)


def test_a_preemption_notice_saves_the_step_at_once(
    uninterrupted, tmp_path: Path, tiny_model_dir: Path, preference_rows: list[dict]
) -> None:
    """Also where few steps are logged."""
    settings = {"save_steps": 100, "notice_at": 3, "logging_steps": 5}
    run(tmp_path, tiny_model_dir, preference_rows, 2, die_at=5, **settings)
    markers = [name for name in LocalStore(tmp_path).list("checkpoints") if ".json" in name]
    assert markers == ["step-00000003.json"]  # once for the notice, not again at steps 4 and 5
    rows = run(tmp_path, tiny_model_dir, preference_rows, 2, save_steps=100)
    expected = losses(uninterrupted[1])
    assert losses(rows) == {step: expected[step] for step in range(4, max(expected) + 1)}


@pytest.mark.parametrize("num_workers", [1, 3])
def test_another_number_of_workers_gives_the_same_losses(
    uninterrupted,
    killed: Path,
    tmp_path: Path,
    tiny_model_dir: Path,
    preference_rows: list[dict],
    num_workers: int,
) -> None:
    """Same pairs per step; sums in another order move fp32 losses by less than 1e-4."""
    _, expected = uninterrupted
    shutil.copytree(killed, tmp_path, dirs_exist_ok=True)
    rows = run(tmp_path, tiny_model_dir, preference_rows, num_workers)
    for step, loss in losses(rows).items():
        assert loss == pytest.approx(losses(expected)[step], abs=1e-4), step
    assert [r["num_tokens"] for r in rows if "loss" in r] == [
        r["num_tokens"] for r in expected if "loss" in r
    ]


def test_replicas_of_a_sharded_model_give_the_same_losses(
    uninterrupted, tmp_path: Path, tiny_model_dir: Path, preference_rows: list[dict]
) -> None:
    """HSDP on 2 x 2 ranks, gradients over both dimensions, the export from one replica."""
    settings = {"data_parallel_replicate_degree": 2, "gradient_checkpointing": True}
    rows = run(tmp_path, tiny_model_dir, preference_rows, 4, **settings)
    for step, loss in losses(rows).items():
        assert loss == pytest.approx(losses(uninterrupted[1])[step], abs=1e-4), step
    ours, theirs = weights(tmp_path), weights(uninterrupted[0])
    assert all(ours[name].allclose(theirs[name], atol=1e-3) for name in theirs)


def test_small_micro_batches_change_nothing_but_the_packing(
    uninterrupted, tmp_path: Path, tiny_model_dir: Path, preference_rows: list[dict]
) -> None:
    """Ranks with idle micro-batches included: 5 pairs on 3 ranks, about one pair a batch."""
    _, expected = uninterrupted
    rows = run(
        tmp_path, tiny_model_dir, preference_rows, 3, max_tokens_per_micro_batch=256, max_steps=3
    )
    for step, loss in losses(rows).items():
        # The schedule of 3 steps differs from the whole one after the first step.
        if step == 1:
            assert loss == pytest.approx(losses(expected)[step], abs=1e-4)
    assert len(losses(rows)) == 3


def test_the_lm_objective_runs_alone(
    tmp_path: Path, tiny_model_dir: Path, preference_rows: list[dict]
) -> None:
    """The rm objective runs in every finetuning."""
    rows = run(tmp_path, tiny_model_dir, preference_rows, 1, objective="lm", max_steps=2)
    first = next(row for row in rows if "loss" in row)
    assert first["loss"] == pytest.approx(first["loss_lm"])


def test_policies_begin_as_their_reference_and_are_exported_as_language_models(
    tmp_path: Path, tiny_model_dir: Path, preference_rows: list[dict]
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    settings = {"max_steps": 4, "learning_rate": 3e-3}
    dpo = run(tmp_path / "dpo", tiny_model_dir, preference_rows, 2, objective="dpo", **settings)
    first = next(row for row in dpo if "loss" in row)
    # The reference is what training begins with, so that no pair is preferred at first.
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert abs(first["margin"]) < 1e-4
    # Under TRL's names, too; likelihoods are those of whole responses, under model and reference.
    for row in (row for row in dpo if "loss" in row):
        assert row["rewards/accuracies"] == row["accuracy"]
        assert row["rewards/margins"] == row["margin"]
        assert row["rewards/chosen"] - row["rewards/rejected"] == pytest.approx(row["margin"])
        assert row["rewards/chosen"] + row["rewards/rejected"] == pytest.approx(
            2 * row["mean_reward"], abs=1e-9
        )
        assert row["logps/chosen"] < 0 and row["logps/rejected"] < 0
    held_out = [row for row in dpo if "eval_loss" in row]
    moved = held_out[-1]["eval_logps/chosen"] - held_out[0]["eval_logps/chosen"]
    assert held_out[-1]["eval_rewards/chosen"] == pytest.approx(0.1 * moved, abs=1e-4)
    assert held_out[-1]["eval_logits/chosen"] != held_out[0]["eval_logits/chosen"]
    assert dpo[-1]["eval_loss"] < dpo[0]["eval_loss"] == pytest.approx(math.log(2), abs=1e-5)
    store = LocalStore(tmp_path / "dpo")
    (name,) = [name for name in store.list("") if name.startswith("references-")]
    assert store.read_table(name).num_rows == 24

    sft = run(tmp_path / "sft", tiny_model_dir, preference_rows, 1, objective="sft", **settings)
    assert all("accuracy" not in row and "eval_accuracy" not in row for row in sft)
    assert not any("/" in name for row in sft for name in row)
    assert sft[-1]["eval_loss_lm"] < sft[0]["eval_loss_lm"]
    assert sft[-1]["num_tokens"] < dpo[-1]["num_tokens"]

    before = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    for name in ("dpo", "sft"):
        after = AutoModelForCausalLM.from_pretrained(tmp_path / name / "model")
        assert type(after) is type(before)
        ids = torch.tensor([[5, 6, 7, 8]])
        with torch.no_grad():
            assert not torch.allclose(after(ids).logits, before(ids).logits, atol=1e-3)


def test_dpo_resumes_with_the_reference_of_its_beginning(
    tmp_path: Path, tiny_model_dir: Path, preference_rows: list[dict]
) -> None:
    settings = {"objective": "dpo", "max_steps": 4, "learning_rate": 3e-3}
    whole = run(tmp_path / "whole", tiny_model_dir, preference_rows, 1, **settings)
    killed = tmp_path / "killed"
    run(killed, tiny_model_dir, preference_rows, 1, die_at=3, **settings)
    assert losses(run(killed, tiny_model_dir, preference_rows, 1, **settings)) == losses(whole)


def test_export_gives_the_trainers_rewards_in_plain_transformers(uninterrupted) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    from codepmp_ray.modeling.loading import load_preference_model
    from codepmp_ray.modeling.objectives import make_objective
    from codepmp_ray.preference.items import EncodedItem
    from codepmp_ray.preference.packing import pack
    from codepmp_ray.preference.tokenization import Encoder

    folder = uninterrupted[0] / "model"
    encoder = Encoder.load(folder)
    prompt, responses = encoder.encode("Add 3 to the input.", ["return x + 3", "pass"]).split()
    sides = [response.ids for response in responses]
    ours = load_preference_model(str(folder), make_objective("rm"), seed=0)
    packed = ours(pack([EncodedItem.of_pair("a", prompt, *sides)]))["rewards"]
    plain = AutoModelForSequenceClassification.from_pretrained(folder)
    assert plain.config.problem_type == "regression" and plain.config.num_labels == 1
    assert plain.config.pad_token_id != encoder.tokenizer.eos_token_id
    with torch.no_grad():
        for side, reward in zip(sides, packed.tolist(), strict=True):
            logits = plain(torch.tensor([prompt + side])).logits
            assert logits.item() == pytest.approx(reward, abs=1e-5)
