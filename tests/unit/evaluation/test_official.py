"""Benchmarks put together as their authors do, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.pairwise.accuracy import Bootstrap
from codepmp_ray.evaluation.pairwise.official import BENCHMARKS, official
from codepmp_ray.evaluation.tasks.preference_sets import STYLES
from codepmp_ray.evaluation.tasks.registry import PREFERENCE_TASKS
from codepmp_ray.evaluation.tasks.reward_bench import SECTIONS, SUBSETS

FEW = Bootstrap(num_bootstrap=600)


def row(task: str, part: str, chosen: float, rejected: float, prompt: Any, variant: Any = None):
    section = f"{task}/{part}" if part else task
    return {
        "source": task, "section": section, "problem_id": str(prompt), "variant": variant,
        "chosen_score": chosen, "rejected_score": rejected,
    }  # fmt: skip


def means(found: dict[str, Any], of: str = "sections") -> dict[str, float]:
    return {name: value["mean"] for name, value in found[of].items()}


def test_every_benchmark_is_a_task_and_other_sets_have_no_figures_of_their_own() -> None:
    assert set(BENCHMARKS) <= set(PREFERENCE_TASKS)
    assert official("hh_helpful", [row("hh_helpful", "", 1, 0, 0)], FEW) is None
    assert official("judge_bench", [], FEW) is None


@pytest.mark.parametrize("task", sorted(set(BENCHMARKS) - {"rm_bench", "reward_bench_2"}))
def test_ties_are_wrong_and_no_interval_is_a_point(task: str) -> None:
    part = {"reward_bench": "hep-js", "code_reward_bench": "Security/Go"}.get(task, "math")
    tied = official(task, [row(task, part, 1, 1, i) for i in range(40)], FEW)
    right = official(task, [row(task, part, 1, 0, i) for i in range(40)], FEW)
    for found, mean in ((tied, 0.0), (right, 1.0)):
        for value in (found["sections"]["Total"], *found["parts"].values()):
            assert value["mean"] == mean and value["high"] - value["low"] > 0.05


# --- RewardBench ---


def test_reward_bench_has_its_own_counts() -> None:
    assert len(SUBSETS) == 23
    assert [sum(parts.values()) for parts in SECTIONS.values()] == [358, 456, 740, 1968]


def test_reward_bench_weights_by_the_official_counts() -> None:
    """Two pairs of each subset; those of llmbar-natural, math-prm and donotanswer go wrong."""
    wrong = {"llmbar-natural", "math-prm", "donotanswer"}
    rows = [
        row("reward_bench", name, float(name not in wrong), 0.5, i)
        for i, name in enumerate(np.repeat(SUBSETS, 2))
    ]
    found = official("reward_bench", rows, FEW)
    score = means(found)
    assert score["Chat"] == 1.0
    assert score["Chat Hard"] == pytest.approx(1 - 100 / 456)
    assert score["Safety"] == pytest.approx(1 - 136 / 740)
    assert score["Reasoning"] == pytest.approx(0.5)
    assert score["Total"] == pytest.approx(np.mean([1.0, 356 / 456, 604 / 740, 0.5]))
    assert found["missing"] == [] and means(found, "parts")["math-prm"] == 0.0


def test_prior_sets_count_half_and_missing_subsets_are_named() -> None:
    parts = {"hep-python": 1, "hep-go": 0, "summarize": 1, "shp": 1}
    rows = [row("reward_bench", n, v, 1 - v, i) for i, (n, v) in enumerate(parts.items())]
    found = official("reward_bench", rows, FEW)
    score = means(found)
    assert score["Reasoning"] == 0.5 and score["Prior Sets"] == 1.0
    assert score["Total"] == pytest.approx((2 * 0.5 + 1 * 1.0) / 3)
    assert "math-prm" in found["missing"]
    capitals = official("reward_bench", [row("reward_bench", "llmbar-adver-Manual", 1, 0, 0)], FEW)
    assert list(capitals["parts"]) == ["llmbar-adver-manual"]
    with pytest.raises(InputError, match="no subset 'hep-cobol'"):
        official("reward_bench", [row("reward_bench", "hep-cobol", 1, 0, 0)], FEW)


# --- RM-Bench ---


def styled(domain: str, prompt: Any, chosen: list[float], rejected: list[float]) -> list[Any]:
    return [
        row("rm_bench", domain, chosen[i], rejected[j], prompt, f"{one}/{two}")
        for i, one in enumerate(STYLES)
        for j, two in enumerate(STYLES)
    ]


def test_rm_bench_levels_are_the_triangles_of_its_matrix() -> None:
    # The reward is the style: a fancier answer always wins, an equally fancy one never.
    domains = ["chat", "math", "safety", "safety"]
    rows = [r for i, d in enumerate(domains) for r in styled(d, i, [0, 1, 2], [0, 1, 2])]
    found = official("rm_bench", rows, FEW)
    matrix = means(found, "parts")
    assert [matrix[f"{a}/{b}"] for a in STYLES for b in STYLES] == [0, 0, 0, 1, 0, 0, 1, 1, 0]
    score = means(found)
    assert [score[level] for level in ("hard", "normal", "easy")] == [0, 0, 1]
    assert score["Total"] == pytest.approx(1 / 3) and found["missing"] == ["code"]
    assert {"chat", "math", "safety"} < score.keys()


def test_rm_bench_averages_domains_not_prompts() -> None:
    rows = styled("code", 0, [1, 1, 1], [0.5] * 3)
    rows += [r for i in (1, 2, 3) for r in styled("chat", i, [0, 0, 0], [0.5] * 3)]
    score = means(official("rm_bench", rows, FEW))
    assert score["Total"] == pytest.approx(0.5) and score["code"] == pytest.approx(1.0)


def test_forty_prompts_all_right_leave_room_for_others_and_one_says_nothing() -> None:
    rows = [r for i in range(40) for r in styled("chat", i, [9, 9, 9], [1, 1, 1])]
    found = official("rm_bench", rows, FEW)
    for value in (*found["sections"].values(), *found["parts"].values()):
        assert value["high"] == 1.0 and value["low"] == pytest.approx(0.912, abs=1e-3)
    one = official("rm_bench", styled("chat", 0, [9, 9, 0], [1, 1, 1]), FEW)
    assert (one["sections"]["Total"]["low"], one["sections"]["Total"]["high"]) == (0.0, 1.0)


# --- RewardBench 2 ---


def answers(part: str, name: str, right: list[float], wrong: list[float]) -> list[Any]:
    return [
        row("reward_bench_2", part, a, b, f"{part} {name}", f"{name}|{i}/{j}")
        for i, a in enumerate(right)
        for j, b in enumerate(wrong)
    ]


def test_best_of_four_is_the_share_of_the_highest_reward() -> None:
    rows = [
        *answers("Math", "1", [4], [1, 2, 3]),
        *answers("Math", "2", [4], [4, 2, 3]),  # two have it
        *answers("Math", "3", [4], [5, 2, 3]),
        *answers("Focus", "1", [1], [1, 1, 1]),
    ]
    found = official("reward_bench_2", rows, FEW)
    parts = means(found, "parts")
    assert parts == pytest.approx({"Math": 0.5, "Focus": 0.25})
    assert means(found)["Total"] == pytest.approx(0.375)  # parts count alike, not prompts
    assert found["missing"] == ["Factuality", "Precise IF", "Safety", "Ties"]


@pytest.mark.parametrize(
    ("ref", "tied", "expected"),
    [
        # Right ones far above wrong ones, and near to each other.
        (([5], [0]), ([5, 4.5], [0]), 0.3 + 0.3 + 0.2 + 0.2 + 0.01 * np.tanh(4.5 / 0.5 - 1)),
        # Above, but further from each other than from wrong ones.
        (([5], [4]), ([9, 5], [4]), 0.3 + 0.3 + 0.01 * np.tanh(1 / 4 - 1)),
        # The margin holds where there are many right ones, and not in both.
        (([5], [4.9]), ([5, 4.5], [0]), 0.3 + 0.3 + 0.2 + 0.01 * np.tanh(0.1 / 0.5 - 1)),
        (([0], [5]), ([0, 0], [5]), 0.01 * -1.0),
        (([5], [0]), ([5, 5], [0]), 1.0 + 0.01),
    ],
)
def test_ties_have_the_score_of_their_authors(ref: Any, tied: Any, expected: float) -> None:
    rows = [r for n in range(3) for kind, (right, wrong) in (("ref", ref), ("tied", tied))
            for r in answers("Ties", f"{kind}:{n}", right, wrong)]  # fmt: skip
    assert means(official("reward_bench_2", rows, FEW), "parts")["Ties"] == pytest.approx(expected)


def test_half_a_couple_is_refused() -> None:
    with pytest.raises(InputError, match=r"1 questions .* make 0 couples"):
        official("reward_bench_2", answers("Ties", "ref:1", [1], [0]), FEW)


# --- micro and macro ---


@pytest.mark.parametrize(("task", "total"), [("judge_bench", 0.25), ("ppe_correctness", 0.5)])
def test_pairs_or_parts_count_alike(task: str, total: float) -> None:
    rows = [row(task, "math", 0, 1, i) for i in range(3)] + [row(task, "coding", 1, 0, 9)]
    found = official(task, rows, FEW)
    assert means(found)["Total"] == total
    assert means(found, "parts") == {"math": 0.0, "coding": 1.0}


def test_code_reward_bench_is_shown_by_criterion_and_by_language() -> None:
    cells = [("Speed", "Go", 1), ("Speed", "C", 0), ("Safety", "Go", 1)]
    rows = [row("code_reward_bench", f"{a}/{b}", v, 0.5, i) for i, (a, b, v) in enumerate(cells)]
    found = official("code_reward_bench", rows, FEW)
    assert means(found, "parts") == {"Speed": 0.5, "Safety": 1.0, "Go": 1.0, "C": 0.0}
    assert means(found)["Total"] == pytest.approx(2 / 3)
