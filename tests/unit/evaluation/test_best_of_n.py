import io
import json
import sys
import types
from contextlib import contextmanager

import pytest
from rich.console import Console

from codepmp_ray.analysis.closing import print_closing
from codepmp_ray.client import CandidateScore
from codepmp_ray.config.evaluation import CandidatesConfig, EvaluationConfig
from codepmp_ray.config.recipe import parse_recipe
from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.best_of_n import evaluation_pool, summarise, verdict
from codepmp_ray.evaluation.problems import load_problems
from codepmp_ray.evaluation.scoring_run import evaluate, read_results
from codepmp_ray.records import CANDIDATE, GRADE, table_from_rows
from codepmp_ray.runs import open_stage

PROBLEMS = [load_problems("humaneval")[f"HumanEval/{i}"] for i in range(32)]
NUM_SAMPLES = 4


def _rows():
    """32 evaluation problems: answers 0 and 1 are equal and right, the others wrong."""
    candidates, grades = [], []
    for number, problem in enumerate(PROBLEMS):
        for index in range(NUM_SAMPLES):
            code = f"    return {max(index, 1)}"
            name = f"{number}-{index}"
            candidates.append(
                {
                    "candidate_id": name,
                    "problem_id": problem.problem_id,
                    "split": "eval",
                    "sample_index": index,
                    "prompt": problem.prompt,
                    "completion": f"```python\ndef {problem.entry_point}(*a):\n{code}\n```",
                    "num_tokens": 10 + index,
                    "model": "generator",
                }
            )
            grades.append(
                {
                    "candidate_id": name,
                    "problem_id": problem.problem_id,
                    "passed": index < 2,
                    "outcome": "passed" if index < 2 else "failed",
                    "detail": "",
                    "answer": str(max(index, 1)),
                }
            )
    return candidates, grades


def _scores(candidates, score):
    return [
        {"candidate_id": row["candidate_id"], "score": score(row["sample_index"])}
        for row in candidates
    ]


def _summary(score):
    candidates, grades = _rows()
    pool = evaluation_pool(candidates)
    return summarise(
        pool, grades, _scores(candidates, score), CandidatesConfig(), EvaluationConfig()
    )


def test_curves_of_a_perfect_model_and_the_baselines():
    results = _summary(lambda index: -float(index))
    bon = results["bon"]
    assert bon["k"] == [1, 2, 4]
    assert bon["reward_model"]["accuracy"] == pytest.approx([0.5, 5 / 6, 1.0])
    assert bon["oracle"]["accuracy"] == pytest.approx([0.5, 5 / 6, 1.0])
    assert bon["random"]["accuracy"] == pytest.approx([0.5, 0.5, 0.5])
    assert bon["length"]["accuracy"] == pytest.approx([0.5, 1 / 6, 0.0])
    assert bon["majority"]["accuracy"][-1] == pytest.approx(1.0)  # two equal answers of four
    assert bon["majority"]["monte_carlo_error"][-1] == 0.0
    assert results["difference"]["mean"] == pytest.approx(0.5)
    assert results["verdict"] == (
        "Best of 4 by the reward model solves 100.0 % of 32 problems, a random pick 50.0 %: "
        "+50.0 points (95 % interval +39.1 to +60.9), better than chance."
    )
    assert results["num_problems"] == 32 and results["num_candidates"] == 4
    json.dumps(results, allow_nan=False)


def test_a_model_without_opinion_is_too_small_to_tell():
    results = _summary(lambda index: 0.0)
    assert results["difference"]["mean"] == pytest.approx(0.0)
    assert results["verdict"].endswith("too small to tell.")


def test_a_misleading_model_is_called_worse():
    assert _summary(float)["verdict"].endswith("worse than chance.")


def test_rules_without_a_model_are_measured_and_the_best_is_named():
    results = _summary(lambda index: -float(index))
    assert results["bon"]["shortest"]["accuracy"] == pytest.approx([0.5, 5 / 6, 1.0])
    assert results["null_rule"] == "shortest" and "style" not in results["bon"]
    assert set(results["differences"]) == set(results["bon"]) - {"k", "random"}
    assert results["differences"]["length"]["mean"] == pytest.approx(-0.5)
    assert results["picked"] == dict.fromkeys((problem.problem_id for problem in PROBLEMS), 1.0)
    assert results["parts"] == {}  # HumanEval's ids name none
    screen = io.StringIO()
    print_closing(results, console=Console(file=screen, width=80))
    text = screen.getvalue()
    assert "Best of 4 on 32 HumanEval problems" in text
    assert "shortest answer (best null rule)" in text and "longest answer" not in text


def test_a_rule_of_style_is_what_training_answers_told():
    """Right answers of the training problems shout; so do answers 2 and 3, which are wrong."""
    candidates, grades = _rows()
    for row in candidates:
        row["completion"] += "!" if row["sample_index"] > 1 else ""
    training = [
        {"problem_id": str(problem), "completion": "x!" if right else "xy", "passed": right}
        for problem in range(4)
        for right in (True, False)
    ]
    pool = evaluation_pool(candidates)
    config = (CandidatesConfig(), EvaluationConfig())
    scores = _scores(candidates, float)
    results = summarise(pool, grades, scores, *config, training)
    assert results["bon"]["style"]["accuracy"][-1] == 0.0
    known = [row | {"passed": True} for row in training]  # nothing to tell apart
    assert "style" not in summarise(pool, grades, scores, *config, known)["bon"]


def test_parts_of_the_set_are_told_apart_by_their_ids():
    candidates, grades = _rows()
    for row in (*candidates, *grades):
        number = int(row["problem_id"].partition("/")[2])
        row["problem_id"] = f"Set/{'even' if number % 2 == 0 else 'odd'}/{number}"
    pool = evaluation_pool(candidates)
    scores = [
        row | {"score": float(-row["sample_index"] if "even" in row["problem_id"] else 0)}
        for row in candidates
    ]
    parts = summarise(pool, grades, scores, CandidatesConfig(), EvaluationConfig())["parts"]
    assert {name: part["num_problems"] for name, part in parts.items()} == {"even": 16, "odd": 16}
    assert parts["even"]["difference"]["mean"] == pytest.approx(0.5)
    assert parts["odd"]["difference"]["mean"] == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("num_problems", "low", "told"),
    [(32, 0.0, "too small to tell"), (32, 0.01, "better than chance"), (29, 0.01, "Too few")],
)
def test_verdict_at_its_borders(num_problems, low, told):
    results = _summary(float)
    difference = {"k": 4, "mean": 0.1, "low": low, "high": 0.2}
    assert told in verdict(results | {"num_problems": num_problems, "difference": difference})


def test_pools_are_cut_to_one_size_and_training_rows_left_out():
    candidates, _ = _rows()
    pool = evaluation_pool([*candidates[1:], {**candidates[0], "split": "train"}])
    assert {len(question.answers) for question in pool} == {3} and pool.num_unused == 31
    with pytest.raises(InputError, match="candidates of 0 evaluation problems, where 2 are needed"):
        evaluation_pool([])


def test_problems_that_cannot_be_graded_leave_n_and_one_is_too_few(tmp_path):
    recipe = _recipe_with_stages(tmp_path, not_gradable={PROBLEMS[0].problem_id})
    results = evaluate(recipe, _Client(), "model")
    assert (results["num_problems"], results["num_not_gradable"]) == (31, 1)
    names = {problem.problem_id for problem in PROBLEMS[1:]}
    with pytest.raises(InputError, match=r"of 1 evaluation problems.*31 problems could not"):
        evaluation_pool(_rows()[0], names)


def test_a_missing_score_names_the_candidate():
    candidates, grades = _rows()
    pool = evaluation_pool(candidates)
    with pytest.raises(InputError, match="0-0 has no score"):
        summarise(
            pool, grades, _scores(candidates[1:], float), CandidatesConfig(), EvaluationConfig()
        )


class _Client:
    def __init__(self, fail_after=None):
        self.calls = []
        self.fail_after = fail_after

    def score(self, prompt, candidates):
        if self.fail_after is not None and len(self.calls) >= self.fail_after:
            raise KeyboardInterrupt
        self.calls.append(prompt)
        return [CandidateScore(-float(i), 5, False) for i in range(len(candidates))]


def _recipe_with_stages(run_dir, not_gradable=()):
    recipe = parse_recipe({"run_dir": str(run_dir)}, "test")
    candidates, grades = _rows()
    for row in grades:
        if row["problem_id"] in not_gradable:
            row.update(passed=None, outcome="not_gradable")
    for name, rows, schema in (("candidates", candidates, CANDIDATE), ("grades", grades, GRADE)):
        stage = open_stage(recipe, name)
        stage.ledger.commit(0, len(rows), {name: table_from_rows(rows, schema)})
        stage.complete({"sandbox": "bubblewrap"})
    return recipe


def test_an_interrupted_evaluation_resumes_without_scoring_twice(tmp_path):
    recipe = _recipe_with_stages(tmp_path)
    first = _Client(fail_after=6)
    with pytest.raises(KeyboardInterrupt):
        evaluate(recipe, first, "model")
    second = _Client()
    results = evaluate(recipe, second, "model")
    assert len(second.calls) == 32 - 4  # one shard of four was committed
    assert results == read_results(recipe)
    assert results["sandbox"] == "bubblewrap" and results["generator"] == "generator"
    assert open_stage(recipe, "evaluation").ledger.read("scores").num_rows == 128


def test_the_job_starts_the_service_on_the_finetuned_model(tmp_path, monkeypatch, capsys):
    from codepmp_ray import client
    from codepmp_ray.command import evaluation as job

    recipe = _recipe_with_stages(tmp_path)
    finetuning = open_stage(recipe, "finetuning")
    finetuning.complete({})
    seen = {}

    @contextmanager
    def running_service(recipe, model_path, with_tls, is_measuring):
        assert is_measuring and not with_tls  # the client below knows no certificate
        seen["model"] = model_path
        yield types.SimpleNamespace(url="http://127.0.0.1:9", api_key="sk-made")
        seen["stopped"] = True

    class Client(_Client):
        def __init__(self, url, key, hint):
            super().__init__()
            seen.update(url=url, key=key)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    fake = types.ModuleType("codepmp_ray.serve.launch")
    fake.running_service = running_service
    monkeypatch.setitem(sys.modules, "codepmp_ray.serve.launch", fake)
    monkeypatch.setattr(client, "RewardClient", Client)
    job.bon(recipe)
    assert seen == {
        "model": finetuning.store.locate("model"),
        "url": "http://127.0.0.1:9",
        "key": "sk-made",
        "stopped": True,
    }
    shown = capsys.readouterr().out
    assert "reward model" in shown and "better than chance" in shown
    seen.clear()
    job.bon(recipe)  # complete: shown again, nothing started
    assert seen == {} and "better than chance" in capsys.readouterr().out


def test_the_job_takes_an_endpoint_and_needs_the_earlier_stages(tmp_path, monkeypatch):
    from codepmp_ray.command import evaluation as job

    recipe = parse_recipe(
        {"run_dir": str(tmp_path), "evaluation": {"endpoint": "http://127.0.0.1:9"}}, "test"
    )
    with pytest.raises(InputError, match=r"codepmp answers sample"):
        job.bon(recipe)
