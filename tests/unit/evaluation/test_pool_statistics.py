"""jobs.pool_statistics: files of labelled candidates with rewards, from columns and from tables."""

import io
import json
import math
import random

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from codepmp_ray.config.pool_statistics import PoolStatisticsConfig
from codepmp_ray.config.recipe import parse_recipe
from codepmp_ray.errors import ConfigError, InputError
from codepmp_ray.evaluation.pool_files import load_labelled_pool
from codepmp_ray.evaluation.pool_statistics import (
    folder_of,
    measure_pool_file,
    print_pool_statistics,
)
from codepmp_ray.records import CANDIDATE, GRADE, SCORE, SCORED_ROW, table_from_rows
from codepmp_ray.storage import open_store

COLUMN = [{"name": "rm", "column": "reward"}]


def pool_row(number, marks, rewards=None, **more):
    """A problem whose answers are right where `marks` says 1."""
    candidates = [
        {
            "text": "x" * (place + 1),
            "answer": str(mark),
            "correct": bool(mark),
            "model": f"m{place}",
        }
        for place, mark in enumerate(marks)
    ]
    for candidate, reward in zip(candidates, rewards or [], strict=bool(rewards)):
        candidate["reward"] = reward
    return {"id": f"q{number}", "question": f"{number}?", "candidates": candidates, **more}


POOL = [
    pool_row(0, [1, 0, 0], [2.0, 1.0, 0.0]),
    pool_row(1, [0, 1, 0], [0.0, 0.0, 0.0]),
    pool_row(2, [0, 0, 1], [1.0, 0.0, 2.0]),
    pool_row(3, [1, 1, 0], [0.0, 1.0, 3.0]),
]


@pytest.fixture
def written(tmp_path):
    def write(rows, name="pool.jsonl"):
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
        return str(tmp_path / name)

    return write


@pytest.fixture
def table(tmp_path):
    def write(name, rows, schema):
        folder = tmp_path / name / "00000"
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(table_from_rows(rows, schema), folder / "00000000.a.parquet")
        return str(tmp_path / name)

    return write


def load(path, rewards=(), **more):
    return load_labelled_pool(
        PoolStatisticsConfig.model_validate({"path": path, "rewards": rewards, **more})
    )


def rewards_of(loaded):
    return [[answer.rewards for answer in question.answers] for question in loaded]


def test_the_job_measures_prints_and_writes(written, tmp_path, capsys):
    from codepmp_ray.command import evaluation as job

    recipe = parse_recipe(
        {
            "run_dir": str(tmp_path / "run"),
            "pool_statistics": {
                "path": written(POOL),
                "rewards": [*COLUMN, {"name": "other", "column": "reward2"}],
                "nan_scores": "last",
            },
            "evaluation": {"num_bootstrap": 200},
        },
        "test",
    )
    job.pools(recipe)
    shown = capsys.readouterr().out
    store = open_store(recipe.run_dir).sub(folder_of(recipe))
    found = json.loads(store.read_bytes("pool_statistics.json"))
    assert found["k"] == [1, 2, 3] and found["num_problems"] == 4
    series = found["series"]
    # By hand: the best is right in the problems 0 and 2, all equal in 1, wrong in 3.
    assert series["rm"]["accuracy"][-1] == pytest.approx((1 + 1 / 3 + 1 + 0) / 4)
    assert series["rm"]["one_draw_sd"][-1] == pytest.approx(math.sqrt(1 / 3 * 2 / 3) / 4)
    # Of two: in problem 3 the pairs are won by 1, 0 (wrong), 0 (wrong).
    assert series["rm"]["accuracy"][1] == pytest.approx((2 / 3 + 1 / 3 + 2 / 3 + 1 / 3) / 4)
    assert series["oracle"]["accuracy"][-1] == 1.0
    assert series["length"]["accuracy"][-1] == 0.25 and series["shortest"]["accuracy"][-1] == 0.5
    assert series["majority"]["accuracy"][-1] == pytest.approx(1 / 4)
    assert {"model_prior", "weighted_majority:rm", "weighted_majority:other"} <= series.keys()
    assert series["weighted_majority:rm"]["monte_carlo_error"][-1] == 0.0
    # No candidate has a reward of the other model: its pick is a random one.
    assert found["num_nan_scores"] == 12
    assert series["other"]["accuracy"] == series["random"]["accuracy"]
    pairs = [(item["left"], item["right"]) for item in found["comparisons"]]
    assert ("rm", "other") in pairs and ("other", "majority") in pairs
    assert all(item["holm_p_value"] >= item["test_p_value"] for item in found["comparisons"])
    for words in (
        *("Best of k by each model on 4 problems", "one draw", "Monte Carlo", "model prior"),
        *("rm - other", "p (Holm)", "Allowing for their number", "12 rewards are missing"),
    ):
        assert words in shown, words
    measure_pool_file(recipe)  # the same folder again
    assert folder_of(recipe) == found["folder"].rpartition("/")[2]


def test_without_rewards_the_baselines_stand_alone(written, tmp_path):
    data = {"run_dir": str(tmp_path), "pool_statistics": {"path": written(POOL), "ks": [3, 1]}}
    found = measure_pool_file(parse_recipe(data, "test"))
    assert found["k"] == [1, 3] and found["comparisons"] == [] and "rm" not in found["series"]
    screen = Console(file=io.StringIO(), width=80)
    print_pool_statistics(found, screen)
    assert "Without a model on 4 problems" in screen.file.getvalue()
    assert "Paired differences" not in screen.file.getvalue()
    wide = {**data, "pool_statistics": {**data["pool_statistics"], "ks": [9]}}
    with pytest.raises(InputError, match=r"k=9 is outside 1\.\.3"):
        measure_pool_file(parse_recipe(wide, "test"))


@pytest.mark.parametrize(
    ("row", "column"),
    [
        (pool_row(0, [1, 0], [2.5, -1]), "reward"),
        (pool_row(0, [1, 0], score=[2.5, -1.0]), "score"),
        (pool_row(0, [1, 0], pred_score=[[2.5], [-1.0]]), "pred_score"),
        # A column that would be read as labels if it was not asked for.
        ({"idx": 0, "question": "q", "response": ["a", "b"], "correct": [True, False],
          "score": [2.5, -1.0]}, "score"),
    ],
)  # fmt: skip
def test_rewards_come_from_columns_of_every_shape(written, row, column):
    loaded = load(written([row]), [{"name": "rm", "column": column}])
    assert rewards_of(loaded) == [[(2.5,), (-1.0,)]]
    assert [a.label for a in next(iter(loaded)).answers] == [True, False]


def test_one_answer_in_a_row_and_several_rows_of_one_problem(written):
    rows = [
        {"problem_id": 7, "completion": f"{n}", "label": n == 4, "reward": n, "num_tokens": n}
        for n in (4, 5)
    ]
    loaded = load(written(rows), COLUMN)
    assert list(loaded.questions) == ["7"] and rewards_of(loaded) == [[(4.0,), (5.0,)]]
    arrays = loaded.arrays(["rm"])
    assert loaded.length_unit == "tokens" and arrays.lengths.tolist() == [[4.0, 5.0]]
    # One generator, or none, is no prior; without final answers nobody votes.
    assert arrays.models is None and arrays.groups is None


def test_tables_of_jobs_score_are_found_by_id_and_by_place(written, table):
    rows = [
        {"id": "a", "prompt": "p1", "candidates": ["x", "y"], "labels": [True, False]},
        {"prompt": "p2", "candidates": ["x", "y"], "labels": [False, True]},
        {"id": "c", "prompt": "p3", "candidates": ["x", "y"], "labels": [False, True]},
        {"id": "d", "prompt": "p4", "candidates": ["x", 7, "y"], "labels": [True, True, False]},
    ]
    scored = [
        {"row_id": "a", "place": "other.jsonl#0", "scores": [1.0, 2.0]},
        {"row_id": "pool.jsonl#1", "place": "pool.jsonl#1", "scores": [3.0, float("nan")]},
        {"row_id": "c", "place": "pool.jsonl#2", "scores": [5.0]},  # another number of candidates
        {"row_id": "d", "place": "pool.jsonl#3", "scores": [6.0, 7.0, 8.0]},
        {"row_id": "z", "place": "pool.jsonl#0", "scores": [9.0, 9.0]},  # another row at that place
    ]
    rewards = [{"name": "rm", "path": table("scores", scored, SCORED_ROW)}]
    loaded = load(written(rows), rewards, nan_scores="last")
    assert rewards_of(loaded) == [
        [(1.0,), (2.0,)], [(3.0,), (None,)], [(None,), (None,)], [(6.0,), (8.0,)]
    ]  # fmt: skip
    assert loaded.reject_counts == {"not_text": 1}
    with pytest.raises(
        InputError, match=r"3 of 8 candidates have no reward of 'rm'.* candidate 1 "
    ):
        load(written(rows), rewards)


def test_candidates_grades_and_scores_of_a_run(table):
    ids = [("eval", "p1", 0), ("eval", "p1", 1), ("eval", "p2", 0), ("train", "p3", 0)]
    candidates = [
        {"candidate_id": f"{problem}-{n}", "problem_id": problem, "split": split, "prompt": problem,
         "sample_index": n, "completion": "code", "num_tokens": 9, "model": "m"}
        for split, problem, n in ids
    ]  # fmt: skip
    grades = [
        {"candidate_id": "p1-0", "passed": True, "answer": "4"},
        {"candidate_id": "p1-1", "passed": False, "answer": None},
        {"candidate_id": "p2-0", "passed": None},
    ]
    scores = [{"candidate_id": f"p1-{n}", "score": float(n)} for n in (0, 1)]
    where = table("candidates", candidates, CANDIDATE)
    loaded = load(
        where,
        [{"name": "reward_model", "path": table("scores", scores, SCORE)}],
        grades_path=table("grades", grades, GRADE),
        split="eval",
    )
    assert list(loaded.questions) == ["p1"] and rewards_of(loaded) == [[(0.0,), (1.0,)]]
    assert [(a.label, a.final) for a in loaded.questions["p1"].answers] == [
        (True, "4"),
        (False, None),
    ]
    assert loaded.reject_counts == {"not_executed": 1}
    with pytest.raises(InputError, match=r"no candidate with a label: 4 rows .*row 1, .*no label"):
        load(where)


def test_bad_rows_are_counted_and_end_nothing(written):
    twice = {"candidate_id": "c1", "text": "x", "correct": True}
    rows = [
        *POOL,
        "{not json",
        {"question": "no answers"},
        {"id": "q9", "question": "9?", "candidates": ["unlabelled"]},
        {"id": "q0", "question": "another question", "candidates": [{"text": "x", "correct": 1}]},
        {"id": "q8", "question": "8?", "candidates": [twice, twice, {"text": "y", "correct": 0.5}]},
        [1, 2],
    ]
    loaded = load(written(rows))
    assert loaded.reject_counts == {
        "bad_label": 3, "exact_duplicate": 1, "too_few_answers": 1, "unreadable": 2
    }  # fmt: skip
    assert list(loaded.questions) == ["q0", "q1", "q2", "q3", "q8"]


def test_cuts_take_the_first_and_count_the_rest(written):
    loaded = load(written(POOL), COLUMN, num_problems=2, num_candidates=2)
    assert rewards_of(loaded) == [[(2.0,), (1.0,)], [(0.0,), (0.0,)]]
    assert loaded.num_unused == 2 + 6


def test_wrong_settings_and_files_are_refused_with_a_remedy(written, table, tmp_path):
    with pytest.raises(ConfigError, match=r"pool_statistics\.path is not set"):
        load(None)
    with pytest.raises(InputError, match=r"pool_statistics\.path=.*none\.jsonl does not exist"):
        load(str(tmp_path / "none.jsonl"))
    with pytest.raises(InputError, match=r"the rewards of 'rm', has no row with row_id and scores"):
        load(written(POOL), [{"name": "rm", "path": written([{"a": 1}], "scores.jsonl")}])
    with pytest.raises(InputError, match="the grades, has no row with a candidate_id"):
        load(written(POOL), grades_path=written([{"a": 1}], "grades.jsonl"))
    for rewards, words in (
        ([{"name": "rm"}], "either column or path"),
        ([{"name": "rm", "column": "a", "path": "b"}], "either column or path"),
        ([{"name": "oracle", "column": "a"}], "name of a baseline"),
        ([*COLUMN, *COLUMN], "two models are called 'rm'"),
    ):
        with pytest.raises(ConfigError, match=words):
            parse_recipe({"pool_statistics": {"rewards": rewards}}, "test")


def stop_recipe(tmp_path, path, **stop):
    section = {"path": path, "rewards": COLUMN, "stop": stop}
    return parse_recipe({"run_dir": str(tmp_path / "run"), "pool_statistics": section}, "test")


def printed(results):
    screen = Console(file=io.StringIO(), width=400)
    print_pool_statistics(results, screen)
    return screen.file.getvalue()


def test_a_threshold_to_stop_at_is_told_or_refused_in_words(tmp_path, written):
    generator = random.Random(0)
    rows = []
    for number in range(600):
        marks = [generator.randrange(2) for _ in range(4)]
        rows.append(pool_row(number, marks, [mark + generator.random() / 2 for mark in marks]))
    recipe = stop_recipe(tmp_path, written(rows), at_once=2)

    results = measure_pool_file(recipe)

    fitted = results["stop"]["rm"]
    assert fitted["at_once"] == 2 and 0.45 < fitted["threshold"] < 1.5
    assert f"at a reward of {fitted['threshold']:g}" in printed(results)
    store = open_store(recipe.run_dir).sub(folder_of(recipe))
    assert json.loads(store.read_bytes("pool_statistics.json"))["stop"]["rm"] == fitted

    few = measure_pool_file(stop_recipe(tmp_path, written(POOL, "few.jsonl")))
    assert few["stop"]["rm"]["threshold"] is None
    assert "no threshold, because each half needs" in printed(few)


def test_a_threshold_needs_rewards():
    with pytest.raises(ValueError, match="there are none"):
        PoolStatisticsConfig.model_validate({"path": "p", "stop": {}})
