"""Stages in /v1/bon: what falls out, what the answer says of it, what is refused."""

import time

import pytest
from fastapi.testclient import TestClient

from codepmp_ray.errors import SandboxUnavailable
from codepmp_ray.evaluation import stages
from codepmp_ray.evaluation.sandbox import Execution
from codepmp_ray.serve.app import create_app
from tests.unit.serve.http_fakes import HEADERS, SETTINGS, FakeBackend, bon, error_of

TESTS = {"entry_point": "f", "test": "def check(f):\n    assert f(2) == 4\n"}
GOOD = "```python\ndef f(x):\n    return x + 2\n```"
WRONG = "It is this one:\n```python\ndef f(x):\n    return x\n```"
CUT = "And certainly this, as I will explain at length:\n```python\ndef f(x: return x\n```"
PROSE = "I would rather talk about something else entirely, if you do not mind, for a long while."
ALL = ["extract", "parse", "run", "reward"]


@pytest.fixture
def executing(monkeypatch):
    """A service that executes; the sandbox knows the right program, slow ones take a while."""

    class Executor:
        num = 0

        def run(self, job):
            Executor.num += 1
            time.sleep(0.3 if "slow" in job.program else 0.0)
            return Execution("passed" if "x + 2" in job.program else "failed", "", 0.0)

    monkeypatch.setattr(stages.Sandbox, "detect", lambda config: Executor())
    app = create_app(SETTINGS.model_copy(update={"execute": True}), FakeBackend())
    with TestClient(app, raise_server_exceptions=False, headers=HEADERS) as client:
        client.executor = Executor
        yield client


def test_the_reward_chooses_among_what_is_left(executing):
    """Rewards are lengths: without stages the prose wins."""
    candidates = [PROSE, GOOD, CUT, WRONG, GOOD, f"{GOOD} "]
    answer = bon(executing, candidates=candidates, stages=ALL, tests=TESTS).json()
    data = answer["data"]
    assert [item["index"] for item in data] == list(range(6))
    assert [item.get("fell_out") for item in data] == ["extract", None, "parse", "run", None, None]
    assert answer["best_index"] == 5 and "all_fell_at" not in answer and not answer["partial"]
    for item in data:
        fell = "fell_out" in item
        assert (item["score"] is None) == (item["rank"] is None) == fell
        assert (item.get("missing") == "fell_out") == fell
    assert [item["rank"] for item in data if item["rank"]] == [2, 3, 1]
    assert [item["duplicate_of"] for item in data] == [None, None, None, None, 1, None]
    alone = bon(executing, candidates=[GOOD]).json()["data"][0]
    assert data[1]["score"] == alone["score"] and data[1]["num_tokens"] == alone["num_tokens"]


def test_where_all_fall_out_the_answer_says_so_and_has_a_best_one(executing):
    longer = WRONG.replace("this one", "this other one")
    answer = bon(executing, candidates=[PROSE, WRONG, longer], stages=ALL, tests=TESTS).json()
    assert (answer["all_fell_at"], answer["best_index"]) == ("run", 2)
    assert [item["score"] is None for item in answer["data"]] == [True, False, False]
    assert [item["fell_out"] for item in answer["data"]] == ["extract", "run", "run"]


def test_the_reward_alone_is_what_it_was(executing):
    plain = bon(executing, candidates=[PROSE, GOOD]).json()
    staged = bon(executing, candidates=[PROSE, GOOD], stages=["reward"]).json()
    assert staged["data"] == plain["data"] and staged["best_index"] == plain["best_index"]


def test_each_of_many_prompts_has_its_own_tests_and_errors(executing):
    requests = [
        {"prompt": "p", "candidates": [WRONG, GOOD], "tests": TESTS},
        {"prompt": "p", "candidates": [WRONG, GOOD], "tests": {**TESTS, "test": "no Python"}},
        {"prompt": "p", "candidates": [WRONG, GOOD]},
        {"prompt": "p", "candidates": [WRONG, WRONG], "tests": TESTS},
    ]
    answer = executing.post("/v1/bon", json={"requests": requests, "stages": ALL}).json()
    first, second, third, fourth = answer["results"]
    assert first["best_index"] == 1 and first["data"][0]["fell_out"] == "run"
    assert "tests.test" in second["error"]["message"]
    assert "there are no tests" in third["error"]["message"]
    assert (fourth["all_fell_at"], fourth["best_index"]) == ("run", 0)


def test_refused_texts_are_named_by_their_place_in_the_request(executing):
    long = GOOD + "x" * 5_000
    fields = {"candidates": [PROSE, GOOD, long], "stages": [*ALL[:2], "reward"], "tests": TESTS}
    error = error_of(bon(executing, truncate="refuse", **fields), 422)
    assert "Text 2 has" in error["message"]


def test_programs_that_come_too_late_are_not_begun(executing):
    many = [f"```python\ndef f(x):\n    slow = {i}\n```" for i in range(100)]
    executing.executor.num = 0
    error = error_of(bon(executing, candidates=many, stages=ALL, tests=TESTS, deadline_ms=400), 504)
    assert error["code"] == "deadline_exceeded"
    assert executing.executor.num < 100


@pytest.mark.parametrize(
    "fields, param",
    [
        ({"stages": ["run", "parse", "reward"], "tests": TESTS}, "stages"),
        ({"stages": ["extract", "extract", "reward"]}, "stages"),
        ({"stages": ["extract", "parse"]}, "stages"),
        ({"stages": []}, "stages"),
        ({"stages": ["guess", "reward"]}, "stages.0"),
        ({"stages": ["run", "reward"]}, "tests"),
        ({"tests": TESTS}, "tests"),
        ({"stages": ["reward"], "tests": TESTS}, "tests"),
        ({"stages": ALL, "tests": {**TESTS, "more": 1}}, "tests.more"),
        ({"stages": ALL, "tests": {"entry_point": "f"}}, "tests.test"),
        ({"stages": ALL, "tests": {**TESTS, "entry_point": "f()"}}, "tests"),
    ],
)
def test_stages_that_mean_nothing_are_refused(executing, fields, param):
    error = error_of(bon(executing, candidates=[GOOD], **fields), 422)
    assert param.split(".")[0] in f"{error['param']} {error['message']}"


def test_a_service_that_does_not_execute_says_so_and_parses_all_the_same(client):
    fields = {"candidates": [CUT, GOOD], "tests": TESTS}
    error = error_of(bon(client, stages=ALL, **fields), 501)
    assert (error["param"], error["code"]) == ("stages", "not_implemented")
    assert "serving.execute" in error["message"]
    answer = bon(client, stages=["extract", "parse", "reward"], **fields).json()
    assert (answer["best_index"], answer["data"][0]["fell_out"]) == (1, "parse")


def test_where_no_sandbox_works_nothing_is_executed(executing, monkeypatch):
    def refuse(config):
        raise SandboxUnavailable("bubblewrap: a detail of the machine")

    monkeypatch.setattr(stages.Sandbox, "detect", refuse)
    error = error_of(bon(executing, candidates=[GOOD], stages=ALL, tests=TESTS), 501)
    assert "no sandbox works" in error["message"] and "bubblewrap" not in error["message"]
    many = {"requests": [{"prompt": "p", "candidates": [GOOD], "tests": TESTS}], "stages": ALL}
    error_of(executing.post("/v1/bon", json=many), 501)
