"""A benchmark that asks for more memory than there is ends at once, and says what would fit."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import (
    _results,
    checkpoint_overhead,
    cluster_scaling,
    train_memory_plan,
    train_memory_vs_trl,
    train_mfu,
    train_prefix_sharing,
    train_scaling,
    train_step_vs_authors,
    train_step_vs_trl,
)
from benchmarks._results import available_bytes, require_memory
from benchmarks._training import PROCESS_BYTES, SMOLLM2_135M, draw_lengths, training_bytes

GIB = 2**30


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch) -> None:
    monkeypatch.setattr(_results, "gpu", lambda: "")


def has(monkeypatch, gib: float) -> None:
    monkeypatch.setattr(_results, "available_bytes", lambda: int(gib * GIB))


def test_too_much_is_refused_with_the_numbers_and_what_fits(monkeypatch) -> None:
    has(monkeypatch, 8)
    smaller = [("--pairs 3", 8.1 * GIB), ("--pairs 2", 8 * GIB), ("--pairs 1", GIB)]
    with pytest.raises(SystemExit) as refusal:
        require_memory(9.5 * GIB, smaller)
    assert str(refusal.value) == (
        "This run needs about 9.5 GiB of memory and 8.0 GiB are available: the most that fits is "
        "--pairs 2."
    )
    with pytest.raises(SystemExit, match="nothing smaller fits either"):
        require_memory(9.5 * GIB, smaller[:1])


def test_what_fits_runs(monkeypatch) -> None:
    has(monkeypatch, 8)

    def unread():
        raise AssertionError("nothing smaller is asked for")
        yield

    require_memory(8 * GIB, unread())


def test_a_gpu_is_not_asked(monkeypatch) -> None:
    has(monkeypatch, 1)
    monkeypatch.setattr(_results, "gpu", lambda: "1 x NVIDIA")
    require_memory(100 * GIB)


@pytest.mark.parametrize(
    ("module", "arguments", "gib", "fitting"),
    [
        (train_step_vs_trl, ["--pairs", "16"], 22.0, "--pairs 9"),
        (train_step_vs_trl, ["--pairs", "16"], 15.0, "--pairs 4"),
        (train_step_vs_authors, ["--pairs", "16"], 15.0, "--pairs 9"),
        (train_prefix_sharing, ["--pairs", "16"], 22.0, "--pairs 8"),
        (train_scaling, ["--pairs", "8"], 13.0, "--pairs 4"),
        (checkpoint_overhead, ["--model", "qwen2-1.5b"], 23.0, "--model smollm2-135m"),
        (cluster_scaling, ["--nodes", "1", "64"], 22.0, "--nodes 31"),
        (train_memory_vs_trl, [], 12.0, None),
        (train_memory_plan, [], 8.0, None),
        (train_mfu, ["--tiny", "--max-tokens", "1000000"], 10.0, "--max-tokens [0-9]+"),
    ],
)
def test_a_benchmark_is_refused_before_anything_is_loaded(
    monkeypatch, module, arguments: list[str], gib: float, fitting: str | None
) -> None:
    has(monkeypatch, gib)
    monkeypatch.setattr(sys, "argv", [module.__name__, *arguments])
    expected = f"the most that fits is ({fitting})[.]" if fitting else "nothing smaller fits"
    with pytest.raises(SystemExit, match=rf"^This run needs about .* {gib} GiB are.*{expected}"):
        module.main()


def test_a_benchmark_with_room_begins(monkeypatch) -> None:
    has(monkeypatch, 30)
    begun = []
    monkeypatch.setattr(train_step_vs_trl, "measure_models", lambda *given: begun.append(given[3]))
    monkeypatch.setattr(sys, "argv", ["train_step_vs_trl", "--pairs", "16"])
    train_step_vs_trl.main()
    assert begun == [16]


def test_the_estimate_counts_state_activations_and_logits() -> None:
    alone = training_bytes(SMOLLM2_135M, 0)
    weights = (alone - PROCESS_BYTES) / 4  # weights, two moments, gradients
    assert weights == pytest.approx(4 * 134.5e6, rel=0.001)
    assert training_bytes(SMOLLM2_135M, 0, num_models=3) - alone == 6 * weights
    a_token = 30 * 4 * (15 * 576 + 4 * 1536)
    assert training_bytes(SMOLLM2_135M, 7) - alone == 7 * a_token
    assert training_bytes(SMOLLM2_135M, 0, num_logit_rows=5) - alone == 5 * 49152 * 12


def test_drawing_lengths_is_what_making_pairs_draws() -> None:
    from random import Random

    from benchmarks._training import make_pairs

    parts = [[len(ids) for ids in (p.prompt, *p.answers)] for p in make_pairs(5)]
    assert parts == draw_lengths(5, Random(0))


@pytest.mark.parametrize(
    ("line", "folder", "names"),
    [
        ("0::/job/own", "job", ("memory.max", "memory.current", "inactive_file")),
        (
            "4:cpu,memory:/job/own",
            "memory/job",
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ),
    ],
)
def test_a_cgroup_s_limit_counts_and_its_idle_cache_does_not(
    tmp_path: Path, monkeypatch, line: str, folder: str, names: tuple[str, str, str]
) -> None:
    root, process = tmp_path / "cgroup", tmp_path / "self"
    group = root / folder
    (group / "own").mkdir(parents=True)
    process.mkdir()
    (process / "cgroup").write_text(f"7:blkio:/other\n{line}\n")
    limit, used, cache = names
    (group / limit).write_text(f"{3 << 20}\n")
    (group / used).write_text(f"{2 << 20}\n")
    (group / "memory.stat").write_text(f"anon 1\n{cache} {1 << 19}\n")
    (group / "own" / limit).write_text("max\n")
    assert _results._cgroup_rooms(root, process) == [(1 << 20) + (1 << 19)]
    (group / limit).write_text(f"{1 << 20}\n")  # lowered below what is used
    assert _results._cgroup_rooms(root, process) == [0]


def test_the_lower_of_machine_and_cgroup_is_available(monkeypatch) -> None:
    monkeypatch.setattr(_results, "_cgroup_rooms", lambda *_: [7, 5])
    assert available_bytes() == 5
    monkeypatch.setattr(_results, "_cgroup_rooms", lambda *_: [2**60])
    assert 0 < available_bytes() < 2**60
