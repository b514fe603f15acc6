"""Rows of each task's schema become problems or pairs; what is none is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from codepmp_ray.config.accuracy import PreferenceTaskName
from codepmp_ray.config.evaluation import Task
from codepmp_ray.errors import ConfigError, InputError
from codepmp_ray.evaluation.problems import load_problems
from codepmp_ray.evaluation.tasks import loading
from codepmp_ray.evaluation.tasks.loading import load_preferences, read_problems
from codepmp_ray.evaluation.tasks.registry import (
    PREFERENCE_TASKS,
    PROBLEM_TASKS,
    preference_task,
    problem_task,
)
from codepmp_ray.evaluation.tasks.reward_bench import SUBSETS

Row = dict[str, Any]
# Of the exact schemas, with contents of our own.
GSM8K = {
    "question": "A tram has 4 doors and 3 are shut. How many are open?",
    "answer": "4 - 3 = <<4-3=1>>1 door is open.\n#### 1,001",
}
MATH = {
    "problem": "What is $\\frac{1}{4} + \\frac{1}{4}$?",
    "level": "Level 1",
    "type": "Algebra",
    "solution": "It is $\\frac{2}{4} = \\boxed{\\frac{1}{2}}$.",
}
MATH_500 = MATH | {"answer": "\\frac{1}{2}", "unique_id": "test/algebra/1.json"}
RECLOR = {
    "context": "All trams are late.",
    "question": "Which follows?",
    "answers": ["This one is.", "None is.", "Buses are.", "Trains are."],
    "label": 0,
    "id_string": "train_7",
}
LOGIQA2 = {
    "id": 9,
    "answer": 2,
    "text": "All trams are late.",
    "question": "Which follows?",
    "options": ["None is.", "Buses are.", "This one is.", "Trains are."],
    "type": {"Categorical Reasoning": True},
}
PAIR = {"prompt": "2 + 2?", "chosen": "4", "rejected": "5", "subset": "math-prm", "id": 1}
RM_BENCH = {
    "id": 8,
    "prompt": "2 + 2?",
    "chosen": ["4", "It is 4.", "**4**"],
    "rejected": ["5", "It is 5.", "**5**"],
    "domain": "safety-refuse",
}
REWARD_BENCH_2 = {
    "id": "tied:3", "prompt": "Name a colour.", "chosen": ["Red", "Blue"], "rejected": ["Seven"],
    "num_correct": 2, "num_incorrect": 1, "total_completions": 3, "models": ["m"] * 3,
    "subset": "Ties", "additional_metadata": None,
}  # fmt: skip
JUDGE_BENCH = {
    "pair_id": "a1", "original_id": "7", "source": "mmlu-pro-physics", "question": "2 + 2?",
    "response_model": "m", "response_A": "4", "response_B": "5", "label": "A>B",
}  # fmt: skip
PPE_HUMAN = {
    "question_id": "q1", "prompt": "2 + 2?", "response_1": "5", "response_2": "4",
    "model_a": "m", "model_b": "n", "winner": "model_b", "language": "English",
}  # fmt: skip
PPE_CORRECT = {
    "question_id": "q1", "prompt": "2 + 2?", "model_name": "m", "response_1": "5",
    "response_2": "4", "response_3": "6", "scores": [False, True, False],
    "sampled_conflict_pairs": [[0, 1], [1, 2]],
}  # fmt: skip
CODE_REWARD_BENCH = {
    "id": "c1", "prompt": "2 + 2?", "chosen": "4", "rejected": "5", "language": "Go",
    "aspect": "Runtime_Efficiency", "subset": "ECCO",
}  # fmt: skip
LSAT = {
    "passage": "All trams are late.", "question": "Which follows?",
    "options": ["(A)None is.", "(B)Buses are.", "(C) This one is."], "label": "C",
    "answer": None, "other": None,
}  # fmt: skip
LSAT_OF_HUB = {
    "query": "All trams are late.Q: Which follows? Answer Choices: (A)None is. (B)Buses are. "
    "(C)This one is.\nA: Among A through C, the answer is",
    "choices": ["(A)None is.", "(B)Buses are.", "(C)This one is."], "gold": [2],
}  # fmt: skip
HH = {
    "chosen": "\n\nHuman: Hi\n\nAssistant: Hello!",
    "rejected": "\n\nHuman: Hi\n\nAssistant: What?",
}
SHEPHERD = [
    {"input": f"2 + 2? Step 1: It is {n}. The answer is: {n} ки",
     "label": f"2 + 2? Step 1: It is {n}. The answer is: {n} {sign}"}
    for n, sign in ((4, "+"), (5, "-"))
]  # fmt: skip


def write(path: Path, *rows: Any) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return str(path)


def test_the_recipe_names_the_tasks_there_are() -> None:
    assert set(get_args(Task)) == set(PROBLEM_TASKS)
    assert set(get_args(PreferenceTaskName)) == set(PREFERENCE_TASKS)
    for name, task in {**PROBLEM_TASKS, **PREFERENCE_TASKS}.items():
        assert task.name == name and task.license
    with pytest.raises(ConfigError, match=r"'sums'.*gsm8k"):
        problem_task("sums")
    with pytest.raises(ConfigError, match=r"'gsm8k'.*reward_bench"):
        preference_task("gsm8k")


@pytest.mark.parametrize(
    ("task", "row", "problem_id", "answer"),
    [
        ("gsm8k", GSM8K, "GSM8K/0", "1001"),
        ("math", MATH, "MATH/0", "\\frac{1}{2}"),
        ("reclor", RECLOR, "ReClor/train_7", "This one is."),
        ("logiqa2", LOGIQA2, "LogiQA2/0", "This one is."),
        ("lsat_lr", LSAT, "LSAT-LR/0", "This one is."),
        ("lsat_lr", LSAT_OF_HUB, "LSAT-LR/0", "This one is."),
    ],
)
def test_a_row_becomes_a_problem(
    tmp_path: Path, task: str, row: Row, problem_id: str, answer: str
) -> None:
    (problem,) = read_problems(problem_task(task), write(tmp_path / "rows.jsonl", row))
    assert (problem.problem_id, problem.reference.answer) == (problem_id, answer)
    if problem_task(task).kind == "choice":
        assert problem.prompt == "Passage: All trams are late.\nQuestion: Which follows?"
        assert len(problem.reference.options) >= 3 and problem.canonical_answer == answer
        assert all(not option.startswith("(") for option in problem.reference.options)
    else:
        assert problem.prompt == row.get("question", row.get("problem"))


def test_math_500_has_ids_and_must_be_whole(tmp_path: Path) -> None:
    rows = [MATH_500 | {"unique_id": f"test/{i}.json"} for i in range(500)]
    path = write(tmp_path / "rows.jsonl", *rows)
    problems = load_problems("math500", path)
    assert list(problems)[:2] == ["test/0.json", "test/1.json"]
    with pytest.raises(InputError, match=r"MATH-500 has 500 problems, .*part\.jsonl holds 3"):
        load_problems("math500", write(tmp_path / "part.jsonl", *rows[:3]))


def test_a_file_that_is_one_array_is_read_too(tmp_path: Path) -> None:
    """ReClor's own files are."""
    path = tmp_path / "val.json"
    path.write_text(json.dumps([RECLOR, RECLOR | {"id_string": "train_8"}], indent=1))
    assert list(load_problems("reclor", str(path))) == ["ReClor/train_7", "ReClor/train_8"]
    path.write_text("[{")
    with pytest.raises(InputError, match=r"task reclor: .*val\.json cannot be read: not a JSON"):
        list(read_problems(problem_task("reclor"), str(path)))


@pytest.mark.parametrize(
    ("task", "row", "message"),
    [
        ("gsm8k", {"question": "How many?"}, "no text in 'answer'"),
        ("gsm8k", GSM8K | {"answer": "It is 4."}, "no number after '####'"),
        ("gsm8k", GSM8K | {"question": "half \ud83d"}, "surrogate pair in 'question'"),
        ("math", MATH | {"solution": "It is 4."}, "no 'answer', and no box"),
        ("reclor", RECLOR | {"label": 4}, "label=4 with 4 options"),
        ("reclor", RECLOR | {"label": ""}, "label is '', not an index"),
        ("reclor", RECLOR | {"answers": ["a", "a"]}, "all the same"),
        ("logiqa2", LOGIQA2 | {"options": "abcd"}, "not a list"),
        ("lsat_lr", LSAT | {"label": "F"}, "label is 'F', not an index"),
        ("lsat_lr", LSAT | {"options": ["(A)a", "(C)b"]}, "label is 'C', not an index"),
        ("reclor", RECLOR | {"question": "Why?"}, "the id 'ReClor/train_7' is that of row 1, too"),
    ],
)
def test_a_row_that_is_no_problem_is_named(
    tmp_path: Path, task: str, row: Row, message: str
) -> None:
    good = {
        "gsm8k": GSM8K, "math": MATH, "reclor": RECLOR, "logiqa2": LOGIQA2, "lsat_lr": LSAT
    }[task]  # fmt: skip
    path = write(tmp_path / "rows.jsonl", good, row)
    with pytest.raises(
        InputError, match=rf"(?s)Row 2 .*rows\.jsonl is no problem.*{message}.*Mend"
    ):
        list(read_problems(problem_task(task), path))


def pairs_of(task: str, path: Path, *rows: Any) -> tuple[list[Any], dict[str, int]]:
    found = load_preferences(preference_task(task), write(path / "rows.jsonl", *rows))
    assert len({pair.pair_id for pair in found.pairs}) == len(found.pairs)
    return found.pairs, found.reject_counts


@pytest.mark.parametrize(
    ("task", "rows", "expected"),
    [
        ("hh_harmless", [HH], ("Hi", "Hello!", "What?")),
        ("hh_helpful", [HH, HH], ("Hi", "Hello!", "What?")),
        ("math_shepherd", SHEPHERD,
         ("2 + 2?", "Step 1: It is 4. The answer is: 4", "Step 1: It is 5. The answer is: 5")),
        ("code_ultrafeedback", [{"instruction": "Sort.", "chosen": "a", "rejected": "b"}],
         ("Sort.", "a", "b")),
        ("reclor_pairs", [RECLOR],
         ("Passage: All trams are late.\nQuestion: Which follows?", "This one is.", "None is.")),
        ("logiqa2_pairs", [LOGIQA2],
         ("Passage: All trams are late.\nQuestion: Which follows?", "This one is.", "None is.")),
        ("reward_bench", [PAIR], ("2 + 2?", "4", "5")),
        ("rm_bench", [RM_BENCH], ("2 + 2?", "4", "5")),
        ("reward_bench_2", [REWARD_BENCH_2], ("Name a colour.", "Red", "Seven")),
        ("judge_bench", [JUDGE_BENCH], ("2 + 2?", "4", "5")),
        ("judge_bench", [JUDGE_BENCH | {"label": "B>A", "response_A": "5", "response_B": "4"}],
         ("2 + 2?", "4", "5")),
        ("ppe_human", [PPE_HUMAN], ("2 + 2?", "4", "5")),
        ("ppe_correctness", [PPE_CORRECT, PPE_CORRECT], ("2 + 2?", "4", "5")),
        ("code_reward_bench", [CODE_REWARD_BENCH], ("2 + 2?", "4", "5")),
    ],
)  # fmt: skip
def test_rows_become_pairs(
    tmp_path: Path, task: str, rows: list[Row], expected: tuple[str, str, str]
) -> None:
    pairs, rejects = pairs_of(task, tmp_path, *rows)
    assert (pairs[0].prompt, pairs[0].chosen, pairs[0].rejected) == expected
    assert rejects == {}


def test_reward_bench_knows_its_subsets_in_any_spelling(tmp_path: Path) -> None:
    rows = [PAIR | {"subset": subset.upper()} for subset in SUBSETS]
    pairs, _ = pairs_of("reward_bench", tmp_path, *rows)
    assert [pair.subset for pair in pairs] == list(SUBSETS) and len(SUBSETS) == 23
    assert len({pair.problem_id for pair in pairs}) == 1  # one prompt


def test_parts_and_forms_of_the_newer_sets(tmp_path: Path) -> None:
    pairs, _ = pairs_of("reward_bench_2", tmp_path, REWARD_BENCH_2)
    assert [(p.subset, p.variant) for p in pairs] == [
        ("Ties", "tied:3|0/0"), ("Ties", "tied:3|1/0")
    ]  # fmt: skip
    sources = ("mmlu-pro-law", "livebench-reasoning", "livebench-math", "livecodebench")
    rows = [JUDGE_BENCH | {"pair_id": str(i), "source": s} for i, s in enumerate(sources)]
    pairs, _ = pairs_of("judge_bench", tmp_path, *rows)
    assert [pair.subset for pair in pairs] == ["knowledge", "reasoning", "math", "coding"]
    pairs, _ = pairs_of("ppe_correctness", tmp_path, PPE_CORRECT | {"benchmark": "GPQA"})
    assert [(p.chosen, p.rejected, p.subset) for p in pairs] == [
        ("4", "5", "GPQA"), ("4", "6", "GPQA")
    ]  # fmt: skip
    (pair,), _ = pairs_of("code_reward_bench", tmp_path, CODE_REWARD_BENCH)
    assert pair.subset == "Runtime_Efficiency/Go"
    names = {task: PREFERENCE_TASKS[task].file_column for task in ("rm_bench", "ppe_correctness")}
    assert names == {"rm_bench": "domain", "ppe_correctness": "benchmark"}


def test_the_plus_sets_have_more_tests(tmp_path: Path) -> None:
    row = {
        "task_id": 2, "code": "def add(a, b):\n    return a + b", "prompt": "Add two numbers.",
        "source_file": "x", "test_imports": [], "test_list": ["assert add(1, 2) == 3"],
        "test": "import numpy as np\nfor i in range(9):\n    assert add(i, 1) == i + 1",
    }  # fmt: skip
    (plus,) = read_problems(problem_task("mbpp_plus"), write(tmp_path / "rows.jsonl", row))
    assert (
        "range(9)" in plus.test
        and "add = candidate" in plus.test
        and "(1, 2) == 3" not in plus.test
    )
    (plain,) = read_problems(
        problem_task("mbpp"), write(tmp_path / "rows.jsonl", row | {"test": ""})
    )
    assert "add(1, 2) == 3" in plain.test
    assert problem_task("humaneval_plus").hub.hub_id == "evalplus/humanevalplus"


def test_rm_bench_gives_nine_pairs_by_style(tmp_path: Path) -> None:
    pairs, _ = pairs_of("rm_bench", tmp_path, RM_BENCH)
    styles = ("concise", "detailed", "markdown")
    assert [pair.variant for pair in pairs] == [f"{a}/{b}" for a in styles for b in styles]
    assert {pair.subset for pair in pairs} == {"safety"}
    assert len({pair.problem_id for pair in pairs}) == 1
    assert (pairs[1].chosen, pairs[1].rejected) == ("4", "It is 5.")


@pytest.mark.parametrize(
    ("task", "rows", "rejects"),
    [
        ("hh_helpful", [HH, {"chosen": "no transcript", "rejected": "x"}], {"bad_conversation": 1}),
        ("hh_helpful", [HH, HH | {"chosen": "\n\nHuman: Hi\n\nAssistant: "}], {"empty": 1}),
        ("hh_helpful", [HH, "text", HH | {"chosen": 7}], {"not_text": 1, "unreadable": 1}),
        ("reward_bench", [PAIR, PAIR], {"exact_duplicate": 1}),
        ("reward_bench", [PAIR, PAIR | {"id": 2, "subset": "new"}], {"bad_label": 1}),
        ("reward_bench", [PAIR, PAIR | {"id": 2, "chosen": " "}], {"empty": 1}),
        ("rm_bench", [RM_BENCH, RM_BENCH], {"exact_duplicate": 1}),
        ("rm_bench", [RM_BENCH, RM_BENCH | {"id": "b", "chosen": ["4"]}], {"not_text": 1}),
        ("rm_bench", [RM_BENCH, RM_BENCH | {"id": "b", "domain": "art"}], {"bad_label": 1}),
        ("rm_bench", [RM_BENCH, RM_BENCH | {"id": "b", "prompt": ""}], {"prompt_empty": 1}),
        (
            "reward_bench_2",
            [REWARD_BENCH_2, REWARD_BENCH_2 | {"id": "ref:3", "rejected": []}],
            {"not_text": 1},
        ),
        (
            "judge_bench",
            [JUDGE_BENCH, JUDGE_BENCH | {"pair_id": "b", "label": "A=B"}],
            {"bad_label": 1},
        ),
        (
            "judge_bench",
            [JUDGE_BENCH, JUDGE_BENCH | {"pair_id": "b", "source": "elsewhere"}],
            {"bad_label": 1},
        ),
        (
            "ppe_human",
            [PPE_HUMAN, PPE_HUMAN | {"question_id": "q2", "winner": "tie"}],
            {"bad_label": 1},
        ),
        (
            "ppe_correctness",
            [PPE_CORRECT, PPE_CORRECT | {"sampled_conflict_pairs": [[0, 2]]}],
            {"bad_label": 1},
        ),
        (
            "ppe_correctness",
            [PPE_CORRECT, PPE_CORRECT | {"sampled_conflict_pairs": [[0, 9]]}],
            {"bad_label": 1},
        ),
        (
            "ppe_correctness",
            [PPE_CORRECT, PPE_CORRECT | {"sampled_conflict_pairs": []}],
            {"no_contrast": 1},
        ),
        ("code_reward_bench", [CODE_REWARD_BENCH] * 2, {"exact_duplicate": 1}),
        ("math_shepherd", [*SHEPHERD, {"input": "x", "label": "y"}], {"prompt_empty": 1}),
    ],
)
def test_rows_that_are_no_pair_are_counted(
    tmp_path: Path, task: str, rows: list[Any], rejects: dict[str, int]
) -> None:
    pairs, found = pairs_of(task, tmp_path, *rows)
    assert pairs and found == rejects


def test_a_reject_names_its_row(tmp_path: Path) -> None:
    empty = HH | {"chosen": "\n\nHuman: Hi\n\nAssistant: "}
    path = write(tmp_path / "rows.jsonl", {"chosen": "x", "rejected": "y"}, HH, empty, HH)
    found = load_preferences(preference_task("hh_helpful"), path).rejects
    assert [(reject.index, str(reject.reason)) for reject in found] == [
        (0, "bad_conversation"), (2, "empty")
    ]  # fmt: skip
    assert found[1].detail == "chosen is blank"


def test_a_set_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"columns answer, domain, question, but needs chosen"):
        pairs_of("rm_bench", tmp_path, GSM8K)
    with pytest.raises(InputError, match=r"gives no pair, 1 rows were rejected \(first: row 1"):
        pairs_of("reward_bench", tmp_path, PAIR | {"subset": "new"})


def test_hub_sets_are_pinned_and_their_failure_is_explained(monkeypatch) -> None:
    import datasets

    asked = []

    def load(*names: str, **options: Any) -> list[Row]:
        asked.append((*names, options))
        if len(asked) > 1:
            raise ConnectionError("no\nnetwork")
        return [HH]

    monkeypatch.setattr(datasets, "load_dataset", load)
    found = load_preferences(preference_task("hh_helpful"))
    assert len(found.pairs) == 1 and found.origin == "Anthropic/hh-rlhf (test)"
    assert asked[0] == (
        "Anthropic/hh-rlhf", {"split": "test", "revision": None, "data_dir": "helpful-base"}
    )  # fmt: skip
    with pytest.raises(InputError, match=r"logiqa2 .*baber/logiqa2 \(no network\).*task_path"):
        list(read_problems(problem_task("logiqa2")))
    assert asked[1][1]["revision"] and asked[1][1]["name"] == "logiqa2"
    assert loading.place_of(problem_task("humaneval"), None) == "its package"


def test_only_the_first_rows_are_read_where_that_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", RM_BENCH, RM_BENCH | {"id": "b"}, "text")
    found = load_preferences(preference_task("rm_bench"), path, max_rows=1)
    assert len(found.pairs) == 9 and found.rejects == []
    with pytest.raises(InputError, match=r"reward_bench cannot be read .*accuracy\.tasks: path"):
        with_offline_hub(preference_task("reward_bench"))


def with_offline_hub(task: Any) -> None:
    with pytest.MonkeyPatch.context() as patched:
        import datasets

        def fail(*names: str, **options: Any) -> None:
            raise ConnectionError("no network")

        patched.setattr(datasets, "load_dataset", fail)
        load_preferences(task)
