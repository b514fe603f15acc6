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
from codepmp_ray.evaluation.tasks import reading
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
    ],
)
def test_a_row_becomes_a_problem(
    tmp_path: Path, task: str, row: Row, problem_id: str, answer: str
) -> None:
    (problem,) = read_problems(problem_task(task), write(tmp_path / "rows.jsonl", row))
    assert (problem.problem_id, problem.reference.answer) == (problem_id, answer)
    if problem_task(task).kind == "choice":
        assert problem.prompt == "Passage: All trams are late.\nQuestion: Which follows?"
        assert len(problem.reference.options) == 4 and problem.canonical_answer == answer
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
    with pytest.raises(
        InputError, match=r"val\.json of the task reclor cannot be read: not a JSON"
    ):
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
        ("reclor", RECLOR | {"question": "Why?"}, "the id 'ReClor/train_7' is that of row 1, too"),
    ],
)
def test_a_row_that_is_no_problem_is_named(
    tmp_path: Path, task: str, row: Row, message: str
) -> None:
    good = {"gsm8k": GSM8K, "math": MATH, "reclor": RECLOR, "logiqa2": LOGIQA2}[task]
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
    with pytest.raises(InputError, match=r"columns answer, question, but needs chosen, domain"):
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
    assert reading.place_of(problem_task("humaneval"), None) == "its package"


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
