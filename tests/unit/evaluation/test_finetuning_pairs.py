import pytest

from codepmp_ray.config.recipe import parse_recipe
from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.finetuning_pairs import build_finetuning_pairs, pair_answers
from codepmp_ray.evaluation.problems import load_problems
from codepmp_ray.records import CANDIDATE, GRADE, table_from_rows
from codepmp_ray.runs import open_stage

PROBLEMS = [load_problems("humaneval")[f"HumanEval/{i}"] for i in range(4)]


def answers_to(problem, passed):
    return [
        {
            "candidate_id": f"{problem.problem_id}-{index}",
            "problem_id": problem.problem_id,
            "sample_index": index,
            "completion": f"answer {index} to {problem.problem_id}",
            "passed": value,
            "outcome": {True: "passed", False: "failed", None: "not_gradable"}[value],
            "detail": "",
        }
        for index, value in enumerate(passed)
    ]


def test_all_passing_answers_meet_all_failing_ones_and_the_canonical_one_stays_out():
    answers = answers_to(PROBLEMS[0], [False, True, False, True, False])
    rows, counts = pair_answers([PROBLEMS[0]], answers)
    name = PROBLEMS[0].problem_id
    assert [(row["chosen"], row["rejected"]) for row in rows] == [
        (f"answer 1 to {name}", f"answer 0 to {name}"),
        (f"answer 3 to {name}", f"answer 2 to {name}"),
        (f"answer 1 to {name}", f"answer 4 to {name}"),
        (f"answer 3 to {name}", f"answer 0 to {name}"),
        (f"answer 1 to {name}", f"answer 2 to {name}"),
        (f"answer 3 to {name}", f"answer 4 to {name}"),
    ]
    assert rows[0]["prompt"] == PROBLEMS[0].prompt and rows[0]["problem_id"] == name
    assert counts["num_with_passing"] == 1


def test_canonical_solution_stands_in_and_hopeless_problems_are_counted():
    answers = [
        *answers_to(PROBLEMS[0], [False]),
        *answers_to(PROBLEMS[1], [True, True]),
        *answers_to(PROBLEMS[2], [None, None]),
    ]
    rows, counts = pair_answers(PROBLEMS, answers)
    (row,) = rows
    assert row["chosen"] == PROBLEMS[0].canonical_answer and row["chosen_from"] == "canonical"
    assert row["chosen"].startswith("```python\n") and row["chosen"].endswith("\n```")
    assert counts == {
        "num_problems": 4,
        "num_with_passing": 0,
        "num_with_canonical": 1,
        "num_without_pair": 3,
    }


def test_an_answer_that_needs_a_missing_package_is_not_known_to_be_wrong():
    answers = answers_to(PROBLEMS[0], [True, False])
    answers[1]["outcome"] = "missing_package"
    assert pair_answers([PROBLEMS[0]], answers)[0] == []


def test_pairs_are_bounded_distinct_and_independent_of_row_order():
    answers = answers_to(PROBLEMS[0], [False] * 6)
    for row in answers[:3]:
        row["completion"] = "the same"
    answers.append({**answers[5], "completion": "", "sample_index": 9})
    rows, _ = pair_answers([PROBLEMS[0]], answers, max_answers=3)
    assert [row["rejected"].split(" to")[0] for row in rows] == ["the same", "answer 3", "answer 4"]
    assert len({row["pair_id"] for row in rows}) == 3
    assert pair_answers([PROBLEMS[0]], answers[::-1], max_answers=3)[0] == rows


def recipe_with(tmp_path, answers_of_split):
    recipe = parse_recipe({"run_dir": str(tmp_path)}, "test")
    candidates, grades = open_stage(recipe, "candidates"), open_stage(recipe, "grades")
    rows = [{**row, "split": split} for split, part in answers_of_split for row in part]
    keep = [{k: v for k, v in row.items() if k in CANDIDATE.names} for row in rows]
    marks = [{k: v for k, v in row.items() if k in GRADE.names} for row in rows]
    candidates.ledger.commit(0, len(rows), {"candidates": table_from_rows(keep, CANDIDATE)})
    grades.ledger.commit(0, len(rows), {"grades": table_from_rows(marks, GRADE)})
    candidates.complete({})
    grades.complete({})
    return recipe


def test_only_training_problems_give_pairs(tmp_path):
    recipe = recipe_with(
        tmp_path,
        [
            ("train", answers_to(PROBLEMS[0], [False, False])),
            ("eval", answers_to(PROBLEMS[1], [False])),
        ],
    )
    table = build_finetuning_pairs(recipe)
    assert set(table.column("problem_id").to_pylist()) == {PROBLEMS[0].problem_id}
    assert table.schema.metadata[b"num_with_canonical"] == b"1"


def test_no_pair_at_all_names_the_outcomes_and_the_way_out(tmp_path):
    recipe = recipe_with(tmp_path, [("train", answers_to(PROBLEMS[0], [True, True]))])
    with pytest.raises(InputError, match=r"'passed': 2.*Raise candidates"):
        build_finetuning_pairs(recipe)


@pytest.mark.parametrize(
    ("passed", "outcome", "is_refused"),
    [
        ([None, None, False], None, True),
        ([None, False, False], None, False),
        ([False, False, False], "missing_package", True),
    ],
)
def test_grades_that_no_execution_stands_behind_are_no_basis(tmp_path, passed, outcome, is_refused):
    answers = answers_to(PROBLEMS[0], passed)
    for row in answers[:2]:
        row["outcome"] = outcome or row["outcome"]
    recipe = recipe_with(tmp_path, [("train", answers)])
    if is_refused:
        with pytest.raises(InputError, match=r"2 of 3 answers .* have no grade"):
            build_finetuning_pairs(recipe)
    else:
        assert build_finetuning_pairs(recipe).num_rows == 2


def test_stages_are_required_by_name(tmp_path):
    with pytest.raises(InputError, match=r"codepmp answers sample"):
        build_finetuning_pairs(parse_recipe({"run_dir": str(tmp_path)}, "test"))
