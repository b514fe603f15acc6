"""Best-of-N in rounds, with a rule that says stop, and with stages before the reward."""

import asyncio
import json

import numpy as np
import pytest
from fastapi.responses import JSONResponse

from codepmp_ray.client import AsyncRewardClient, Stages, Stop
from codepmp_ray.client.stopping import expected_gain
from codepmp_ray.errors import DeadlineError, InputError
from tests.unit.client.conftest import HINTS, error_answer


class Generator:
    """Answers whose rewards are `lengths`, in this order."""

    def __init__(self, lengths):
        self.left, self.asked = list(lengths), []

    def __call__(self, prompt, n):
        self.asked.append(n)
        return ["x" * self.left.pop(0) for _ in range(min(n, len(self.left)))]


@pytest.mark.parametrize(
    "at_once, asked, best, num_saved",
    [(1, [1] * 3, 7, 5), (2, [2, 2], 7, 4), (3, [3], 7, 5), (5, [5], 9, 3), (8, [8], 9, 0)],
)
def test_drawing_ends_with_the_first_round_that_reaches_the_threshold(
    client, at_once, asked, best, num_saved
):
    generate = Generator([1, 3, 7, 2, 9, 1, 1, 1])
    text, choice = client.best_of_n("p", generate, 8, stop=Stop(6.0, at_once=at_once))
    assert (generate.asked, len(text), choice.num_saved) == (asked, best, num_saved)
    assert len(choice.rewards) == sum(asked)


def test_without_a_good_answer_all_are_drawn_and_none_more(client):
    generate = Generator([1, 3, 2, 1, 1, 1])
    text, choice = client.best_of_n("p", generate, 5, stop=Stop(6.0, at_once=2))
    assert (generate.asked, len(text), choice.num_saved) == ([2, 2, 1], 3, 0)


def test_a_threshold_is_reached_by_equality_and_below_zero(client, service):
    row = {"index": 0, "score": -2.0, "num_tokens": 1, "truncated": False}
    service.script += [JSONResponse({"data": [row]})]
    _, choice = client.best_of_n("p", Generator([1, 1]), 2, stop=Stop(-2.0))
    assert choice.num_saved == 1


def test_the_asynchronous_client_stops_too(service):
    generate = Generator([1, 9, 1, 1])

    async def generate_later(prompt, n):
        return generate(prompt, n)

    async def run():
        async with AsyncRewardClient(service.url, "k", HINTS) as client:
            return await client.best_of_n("p", generate_later, 4, stop=Stop(5.0))

    text, choice = asyncio.run(run())
    assert (len(text), choice.num_saved) == (9, 2)


def test_a_generator_that_ends_is_told_so(client):
    with pytest.raises(InputError, match="no answers"):
        client.best_of_n("p", Generator([1]), 3, stop=Stop(5.0))


def test_a_late_round_ends_the_drawing_and_a_late_first_one_raises(client, service):
    late = JSONResponse(
        {"error": {"message": "late", "code": "deadline_exceeded"}}, status_code=504
    )
    service.script.append(late)
    with pytest.raises(DeadlineError):
        client.best_of_n("p", Generator([1, 1]), 2, 50_000, stop=Stop(5.0))
    rows = [{"index": 0, "score": 2.0, "num_tokens": 1, "truncated": False}]
    service.script += [JSONResponse({"data": rows}), late]
    text, choice = client.best_of_n("p", Generator([2, 9, 9]), 3, 50_000, stop=Stop(5.0))
    assert (len(text), choice.num_saved) == (2, 1)
    assert [item.missing for item in choice.scores] == [None, "deadline"]


def test_the_expected_gain_is_that_of_a_normal_draw():
    rewards = [0.0, 1.0, 1.5, 3.0]
    draws = np.random.default_rng(0).normal(np.mean(rewards), np.std(rewards, ddof=1), 400_000)
    assert expected_gain(rewards) == pytest.approx(np.maximum(draws - 3.0, 0).mean(), rel=0.02)
    assert expected_gain([2.0, 2.0]) == 0.0


def test_drawing_ends_where_little_is_to_be_gained(client):
    generate = Generator([4, 5, 4, 5, 4, 50, 1, 1])
    _, choice = client.best_of_n("p", generate, 8, stop=Stop(min_gain=0.5))
    assert len(choice.scores) == 4  # the fewest that tell a spread
    _, choice = client.best_of_n("p", Generator([1, 50, 1, 50, 1, 50]), 6, stop=Stop(min_gain=0.5))
    assert choice.num_saved == 0


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"threshold": 1.0, "min_gain": 1.0},
        {"threshold": float("nan")},
        {"threshold": 1.0, "at_once": 0},
    ],
)
def test_what_is_no_rule_is_refused(rule):
    with pytest.raises(InputError, match="no rule"):
        Stop(**rule)


def test_a_threshold_for_other_weights_is_refused_before_anything_is_drawn(client, service):
    service.cards = [{"id": "m", "weights_digest": "ab"}]
    generate = Generator([9])
    with pytest.raises(InputError, match="serves the weights ab, and the threshold is for cd"):
        client.best_of_n("p", generate, 1, stop=Stop(5.0, weights_digest="cd"))
    assert generate.asked == []
    assert client.best_of_n("p", generate, 1, stop=Stop(5.0, weights_digest="ab"))[0] == "x" * 9


def test_a_fitted_threshold_is_read_and_a_refused_one_says_why(tmp_path):
    path = tmp_path / "pool_statistics.json"
    fitted = {"threshold": 1.5, "at_once": 4, "why_not": ""}
    refused = {"threshold": None, "at_once": 1, "why_not": "it does not beat random"}
    path.write_text(json.dumps({"stop": {"good": fitted, "bad": refused}}))
    assert Stop.read(path, "good", "ab") == Stop(1.5, at_once=4, weights_digest="ab")
    with pytest.raises(InputError, match="it does not beat random"):
        Stop.read(path, "bad")
    for place, model in ((path, "none"), (tmp_path / "missing.json", "good")):
        with pytest.raises(InputError, match="holds no threshold"):
            Stop.read(place, model)


def staged(*items):
    """An answer of the service, of (score, stage at which it fell out)."""
    rows = [
        {
            "index": index,
            "score": score,
            "num_tokens": 1,
            "truncated": False,
            "missing": "fell_out" if score is None else None,
            "fell_out": stage,
        }
        for index, (score, stage) in enumerate(items)
    ]
    return JSONResponse({"data": rows})


def test_stages_and_tests_are_passed_on(client, service):
    tests = {"entry_point": "f", "test": "def check(f): pass"}
    client.choose("p", ["a"], stages=Stages(("run", "reward"), tests))
    client.choose("p", ["a"])
    (first, _), (second, _) = service.requests
    assert (first["stages"], first["tests"]) == (["run", "reward"], tests)
    assert not {"stages", "tests"} & second.keys()


def test_who_came_through_more_stages_wins_whatever_its_reward(client, service):
    service.script.append(staged((None, "extract"), (1.0, None), (0.5, None)))
    choice = client.choose("p", list("abc"))
    assert (choice.best_index, choice.fell_out) == (1, None)
    assert (choice.scores[0].missing, choice.scores[0].fell_out) == ("fell_out", "extract")


def test_of_a_call_in_several_requests_the_furthest_wins(client, service):
    """In the first request all fell out early, in the second later: rewards are of both."""
    candidates = [str(number) for number in range(258)]
    service.script += [
        staged(*[(9.0, "parse")] * 256),
        staged((1.0, "run"), (2.0, "run")),
    ]
    choice = client.choose("p", candidates)
    assert (choice.best_index, choice.fell_out) == (257, "run")


def test_what_fell_out_reaches_no_threshold(client, service):
    service.script += [staged((9.0, "run")), staged((6.0, None))]
    text, choice = client.best_of_n("p", Generator([1, 2, 3]), 3, stop=Stop(5.0))
    assert (text, choice.num_saved, choice.fell_out) == ("xx", 1, None)


def test_a_refused_stage_is_told_as_it_is(client, service):
    service.script.append(error_answer(501, "nothing is executed here"))
    with pytest.raises(InputError, match="501: nothing is executed here"):
        client.choose("p", ["a"], stages=Stages(("run", "reward"), {}))
