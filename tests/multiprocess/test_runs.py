"""Runs that are watched and branched: evaluation at intervals, best step, stop, branches."""

from __future__ import annotations

from pathlib import Path

import pytest

from codepmp_ray.config.branches import BranchesConfig, branch_config, plan_branches
from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.errors import StorageError
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.storage import LocalStore
from codepmp_ray.training.checkpoint_folders import whole_steps
from codepmp_ray.training.shared_checkpoints import remove_shared
from codepmp_ray.training.task import Trunk
from tests.multiprocess.test_training_exactness import HARD_ROWS, TRAINING, losses, run, weights

BEST = {"eval_steps": 1, "best_metric": "eval_loss_lm", "greater_is_better": True, "save_steps": 3}
BRANCHING = {**TRAINING, "decay_ratio": 0.3}
BRANCHES = BranchesConfig(factor=1.3, num_branches=2)


def settings_of(config: TrainingConfig) -> dict:
    """What `run` needs to be told beside TRAINING."""
    return config.model_dump(exclude=set(TRAINING))


def equal(one: Path, other: Path) -> bool:
    ours, theirs = weights(one), weights(other)
    return set(ours) == set(theirs) and all(ours[name].equal(theirs[name]) for name in ours)


def test_held_out_pairs_are_evaluated_at_intervals_and_counts_run_on(
    tmp_path: Path, tiny_model_dir: Path, preference_rows: list[dict]
) -> None:
    rows = run(tmp_path, tiny_model_dir, preference_rows, 2, eval_steps=2, max_steps=5)
    evaluations = [row for row in rows if "eval_loss" in row]
    assert [row["step"] for row in evaluations] == [0, 2, 4, 5]
    steps = [row for row in rows if "loss" in row]
    num_train = 24 - evaluations[0]["eval_num_pairs"]
    per_epoch = -(-num_train // 5)
    expected, seen = [], 0
    for index in range(5):
        seen += min(5, num_train - 5 * (index % per_epoch))
        expected.append(seen)
    assert [row["num_pairs_seen"] for row in steps] == expected
    assert [row["num_pairs"] for row in steps] == [
        after - before for before, after in zip([0, *expected], expected, strict=False)
    ]
    sums = [sum(r["step_num_tokens"] for r in steps[: index + 1]) for index in range(5)]
    assert [row["num_tokens"] for row in steps] == sums
    assert all(row["mfu"] is None for row in steps)  # on a CPU it would say nothing


def test_max_steps_goes_on_into_further_epochs_and_the_schedule_spans_them(
    tmp_path: Path, tiny_model_dir: Path, preference_rows: list[dict]
) -> None:
    settings = {"eval_fraction": 0.0, "batch_size": 9, "schedule": "linear", "warmup_ratio": 0.0}
    rows = run(tmp_path, tiny_model_dir, preference_rows, 1, max_steps=7, **settings)
    assert [row["num_pairs"] for row in rows] == [9, 9, 6, 9, 9, 6, 9]
    assert rows[-1]["epoch"] == pytest.approx(7 / 3, abs=1e-4)
    rates = [row["learning_rate"] / rows[0]["learning_rate"] for row in rows]
    assert rates == pytest.approx([1 - step / 7 for step in range(7)])


def test_a_max_grad_norm_of_0_is_no_clipping(
    tmp_path: Path, tiny_model_dir: Path, preference_rows: list[dict]
) -> None:
    found = {
        limit: run(
            tmp_path / str(limit), tiny_model_dir, preference_rows, 1,
            max_steps=3, max_grad_norm=limit, learning_rate=1e-2,
        )
        for limit in (0.0, 1e9, 1e-3)
    }  # fmt: skip
    assert losses(found[0.0]) == losses(found[1e9]) != losses(found[1e-3])
    norms = [row["grad_norm"] for row in found[0.0] if "grad_norm" in row]
    assert len(norms) == 3 and all(norm > 1e-3 for norm in norms)


@pytest.mark.rehearsal
def test_the_best_step_is_exported_and_survives_a_kill(
    tmp_path: Path, tiny_model_dir: Path, preference_rows: list[dict]
) -> None:
    """The "best" is the highest LM loss here: an early step, long gone from the newest two."""
    whole, killed, plain = tmp_path / "whole", tmp_path / "killed", tmp_path / "plain"
    rows = run(whole, tiny_model_dir, preference_rows, 2, **BEST)
    evaluations = {row["step"]: row["eval_loss_lm"] for row in rows if "eval_loss" in row}
    total = rows[-1]["total_steps"]
    best = max((step for step in evaluations if step), key=lambda step: evaluations[step])
    assert best < total - 2

    run(killed, tiny_model_dir, preference_rows, 2, die_at=total - 1, **BEST)
    assert best in whole_steps(LocalStore(killed))
    run(killed, tiny_model_dir, preference_rows, 2, **BEST)
    assert equal(whole, killed)

    run(plain, tiny_model_dir, preference_rows, 2)
    assert not equal(whole, plain)
    # The exported weights make of the held-out pairs what was measured at that step.
    again = run(
        tmp_path / "again",
        whole / "model",
        preference_rows,
        2,
        max_steps=1,
    )
    assert again[0]["eval_loss"] == pytest.approx(
        next(row["eval_loss"] for row in rows if row["step"] == best and "eval_loss" in row)
    )


def test_early_stopping_on_a_named_set_is_the_same_after_a_kill_and_with_fewer_workers(
    tmp_path: Path, tiny_model_dir: Path, preference_rows: list[dict]
) -> None:
    """The "best" is the highest loss on the set, so the first step; two more, and it ends."""
    named = {"eval_data": [{"name": "hard", "path": "hard.jsonl"}], "eval_fraction": 0.0}
    best = {"eval_steps": 1, "best_metric": "eval/hard/loss", "greater_is_better": True}
    settings = {**named, **best, "early_stopping_patience": 2, "logging_steps": 10}
    made = {"sets": {"hard": HARD_ROWS}, **settings}
    rows = run(tmp_path / "whole", tiny_model_dir, preference_rows, 2, **made)
    assert rows[-1]["total_steps"] > 3
    found = {row["step"]: row["eval/hard/loss"] for row in rows if "eval/hard/loss" in row}
    assert list(found) == [0, 1, 2, 3] and found[1] > max(found[2], found[3])
    assert list(losses(rows)) == [3]  # logged, although it is no tenth step

    killed = tmp_path / "killed"
    run(killed, tiny_model_dir, preference_rows, 2, die_at=2, **{**made, "logging_steps": 1})
    assert not (killed / "model").exists()
    again = run(killed, tiny_model_dir, preference_rows, 2, **made)
    assert {r["step"]: r["eval/hard/loss"] for r in again if "eval/hard/loss" in r} == found
    assert equal(tmp_path / "whole", killed)

    alone = run(tmp_path / "alone", tiny_model_dir, preference_rows, 1, **made)
    assert losses(alone)[3] == pytest.approx(losses(rows)[3], abs=1e-4)
    # Of the exported weights the set has the loss that was the best.
    settings = {"sets": made["sets"], **named, "max_steps": 1}
    start = run(tmp_path / "from", tmp_path / "whole" / "model", preference_rows, 1, **settings)
    assert start[0]["eval/hard/loss"] == pytest.approx(found[1], abs=1e-5)


def test_an_export_that_one_rank_cannot_write_ends_all_and_is_made_by_the_next_run(
    tmp_path: Path, tiny_model_dir: Path, preference_rows: list[dict]
) -> None:
    obstacle = tmp_path / "model"
    obstacle.write_text("a file where the folder has to be")
    # Of two ranks the second writes the only file of weights; the first would wait for it.
    code = StorageError.exit_code
    run(tmp_path, tiny_model_dir, preference_rows, 2, max_steps=2, exit_code=code)
    assert whole_steps(LocalStore(tmp_path)) == [2]
    obstacle.unlink()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model-00001-of-00009.safetensors").write_text("of a killed attempt")
    rows = run(tmp_path, tiny_model_dir, preference_rows, 2, max_steps=2)
    assert list(losses(rows)) == [1, 2]
    assert len(list((tmp_path / "model").glob("*.safetensors"))) == 1
    # An attempt that comes when all is done leaves it alone.
    written = (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns
    assert run(tmp_path, tiny_model_dir, preference_rows, 2, max_steps=2) == rows
    assert (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns == written


def test_a_stop_request_leaves_a_checkpoint_and_the_next_run_goes_on(
    tmp_path: Path, tiny_model_dir: Path, preference_rows: list[dict]
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    expected = run(whole, tiny_model_dir, preference_rows, 2, max_steps=6)
    rows = run(stopped, tiny_model_dir, preference_rows, 2, stop_at=3, save_steps=100, max_steps=6)
    assert list(losses(rows)) == [1, 2, 3]
    assert whole_steps(LocalStore(stopped)) == [3] and not (stopped / "model").exists()
    LocalStore(stopped).delete("stop")
    rows = run(stopped, tiny_model_dir, preference_rows, 2, max_steps=6)
    assert losses(rows) == losses(expected) and equal(whole, stopped)


def test_a_branch_is_the_shorter_run_bit_for_bit(
    tmp_path: Path, tiny_model_dir: Path, preference_rows: list[dict]
) -> None:
    config = TrainingConfig.model_validate(BRANCHING)
    trunk = Trunk(str(tmp_path / "trunk"), config, BRANCHES)
    shared = LocalStore(trunk.folder)

    main = tmp_path / "main"
    rows = run(main, tiny_model_dir, preference_rows, 2, trunk=trunk, decay_ratio=0.3)
    main_rows, total = rows, rows[-1]["total_steps"]
    planned = plan_branches(config, BRANCHES, total)
    assert len(planned) == 2 and planned[0].leaves_at < total - 1
    assert whole_steps(shared) == sorted(branch.leaves_at for branch in planned)

    # The trunk is the plain run: passing on checkpoints changes nothing.
    plain = tmp_path / "plain"
    run(plain, tiny_model_dir, preference_rows, 2, decay_ratio=0.3)
    assert equal(main, plain)

    for branch in planned:
        settings = settings_of(branch_config(config, branch, total))
        alone, branched = (tmp_path / f"{kind}-{branch.total_steps}" for kind in ("a", "b"))
        expected = run(alone, tiny_model_dir, preference_rows, 2, **settings)
        rows = run(branched, tiny_model_dir, preference_rows, 2, trunk=trunk, **settings)
        # All of its curve is there, though only the decay was computed: times are the trunk's.
        assert losses(rows) == losses(expected)
        for row, shared_row in zip(rows, main_rows, strict=False):
            if row["step"] <= branch.leaves_at:
                assert row | {"total_steps": total} == shared_row
        assert {row["total_steps"] for row in rows} == {branch.total_steps}
        assert [row["step"] for row in rows] == [row["step"] for row in expected]
        rates = [row["learning_rate"] for row in rows if "loss" in row]
        assert rates[branch.leaves_at - 1] == config.learning_rate > rates[-1]
        assert equal(alone, branched)
        remove_shared(shared, branch.leaves_at)
    assert whole_steps(shared) == []
    assert not [name for name in shared.list("") if name.startswith("metrics")]


def test_a_killed_branch_goes_on_from_the_trunk_and_a_lost_trunk_is_only_slower(
    tmp_path: Path, tiny_model_dir: Path, preference_rows: list[dict]
) -> None:
    config = TrainingConfig.model_validate(BRANCHING)
    trunk = Trunk(str(tmp_path / "trunk"), config, BRANCHES)
    shared = LocalStore(trunk.folder)
    total = 10
    longest, *shorter = plan_branches(config, BRANCHES, total)
    settings = settings_of(branch_config(config, longest, total))
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    run(alone, tiny_model_dir, preference_rows, 2, **settings)
    # Nothing is shared yet: the longest branch begins at step 0 and leaves the trunk for the rest.
    killed_at = longest.leaves_at + 2
    run(
        killed,
        tiny_model_dir,
        preference_rows,
        2,
        die_at=killed_at,
        trunk=trunk,
        **settings,
    )
    assert whole_steps(shared) == sorted({b.leaves_at for b in [longest, *shorter]})
    rows = run(killed, tiny_model_dir, preference_rows, 2, trunk=trunk, **settings)
    assert equal(alone, killed)
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, longest.total_steps + 1))
    assert ShardLedger(LocalStore(killed)).totals().num_input_rows == 24


@pytest.mark.parametrize("name", ["tensorboard"])
def test_trackers_get_what_the_metrics_file_gets(
    name: str, tmp_path: Path, tiny_model_dir: Path, preference_rows: list[dict]
) -> None:
    pytest.importorskip(name, reason="an extra; the rows are tested in test_trackers.py")
    run(tmp_path, tiny_model_dir, preference_rows, 1, max_steps=2, report_to=[name])
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))
