"""Prompts with several answers: kills, other numbers of workers and packings change nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.multiprocess.test_plain_path import save
from tests.multiprocess.test_training_exactness import losses, run, weights

ROWS: list[dict[str, Any]] = [
    {
        "problem_id": str(number),
        "prompt": f"Add {number} and {2 * number}.",
        "chosen": f"{3 * number}{' indeed' * right}",
        "rejected": f"{3 * number + 1 + wrong} of course",
    }
    for number in range(14)
    for right in range(1 + number % 3)
    for wrong in range(1 + number % 4)
]
# Batches of 9 pairs are two or three items; some prompts do not fit into one item.
SETTINGS = {
    "batch_size": 9,
    "max_length": 64,
    "pair_weight": "one_per_prompt",
    "max_tokens_per_micro_batch": 300,
}


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path
) -> tuple[Path, list[dict]]:
    out_dir = tmp_path_factory.mktemp("whole") / "two ranks"
    return out_dir, run(out_dir, tiny_model_dir, ROWS, 2, **SETTINGS)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Path:
    out_dir = tmp_path_factory.mktemp("killed") / "run"
    run(out_dir, tiny_model_dir, ROWS, 2, die_at=3, **SETTINGS)
    return out_dir


def test_sigkill_and_resume_give_the_same_bits(
    whole, killed: Path, tmp_path: Path, tiny_model_dir: Path
) -> None:
    expected_dir, expected = whole
    shutil.copytree(killed, tmp_path, dirs_exist_ok=True)
    rows = run(tmp_path, tiny_model_dir, ROWS, 2, **SETTINGS)
    assert losses(rows) == losses(expected)
    assert min(list(losses(rows).values())[-3:]) < losses(rows)[1]
    ours, theirs = weights(tmp_path), weights(expected_dir)
    assert all(ours[name].equal(theirs[name]) for name in theirs)


@pytest.mark.parametrize("num_workers", [1, 3])
def test_another_number_of_workers_and_other_micro_batches_give_the_same_losses(
    whole, killed: Path, tmp_path: Path, tiny_model_dir: Path, num_workers: int
) -> None:
    shutil.copytree(killed, tmp_path, dirs_exist_ok=True)
    settings = SETTINGS | {"max_tokens_per_micro_batch": 140}
    rows = run(tmp_path, tiny_model_dir, ROWS, num_workers, **settings)
    assert losses(rows).keys() == losses(whole[1]).keys()
    for step, loss in losses(rows).items():
        assert loss == pytest.approx(losses(whole[1])[step], abs=1e-4), step
    names = ("num_tokens", "num_pairs_seen", "num_pairs")
    counts = [[tuple(row[name] for name in names) for row in some if "loss" in row]
              for some in (rows, whole[1])]  # fmt: skip
    assert counts[0] == counts[1]
    assert counts[0][-1][1] == sum(row["num_pairs"] for row in rows if "loss" in row)


def test_the_references_of_dpo_are_those_of_every_answer(
    whole, tmp_path: Path, tiny_model_dir: Path
) -> None:
    """At first no answer is preferred: the policy is its own reference."""
    settings = SETTINGS | {"objective": "dpo", "learning_rate": 3e-3, "max_steps": 4}
    rows = run(tmp_path / "dpo", tiny_model_dir, ROWS, 2, **settings)
    steps = [row for row in rows if "loss" in row]
    assert abs(steps[0]["margin"]) < 1e-4 and steps[-1]["margin"] > 0.01
    run(tmp_path / "killed", tiny_model_dir, ROWS, 2, die_at=3, **settings)
    assert losses(run(tmp_path / "killed", tiny_model_dir, ROWS, 2, **settings)) == losses(rows)


@pytest.mark.rehearsal
def test_ordinary_sequences_of_many_answers_are_planned_alike_on_any_number_of_workers(
    tmp_path: Path,
) -> None:
    """Attention sinks: rows of a micro-batch are padded to its longest."""
    model = save("gpt_oss", tmp_path / "base")
    one, two = (run(tmp_path / str(n), model, ROWS, n, max_steps=4, **SETTINGS) for n in (1, 2))
    assert losses(one).keys() == losses(two).keys()
    for step, loss in losses(one).items():
        assert loss == pytest.approx(losses(two)[step], abs=1e-4), step
