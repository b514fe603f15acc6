import asyncio
import socket
import time

import pytest
from fastapi.responses import JSONResponse, PlainTextResponse

from codepmp_ray.client import AsyncRewardClient, RewardClient, ServedModel
from codepmp_ray.client.attempts import retry_after_s
from codepmp_ray.client.rewards import trl_reward_function
from codepmp_ray.errors import DeadlineError, EngineError, InputError
from tests.unit.client.conftest import HINTS, error_answer


def test_scores_come_back_in_the_order_of_the_candidates(client, service):
    scores = client.score("p", ["aaa", "", "a"])
    assert [item.score for item in scores] == [3.0, 0.0, 1.0]
    assert service.requests == [({"prompt": "p", "candidates": ["aaa", "", "a"]}, "Bearer sk-test")]


def test_a_service_is_asked_which_model_it_serves(client, service):
    card = {"id": "tiny", "weights_digest": "ab" * 32, "max_model_len": 256, "dtype": "float32"}
    service.cards = [card]
    assert client.served_model() == ServedModel("tiny", "ab" * 32, 256, "float32")
    service.cards = [{"id": "of an older service"}]
    assert client.served_model() == ServedModel("of an older service", None, None, None)

    async def ask():
        async with AsyncRewardClient(service.url, "sk-test", HINTS) as made:
            return await made.served_model()

    assert asyncio.run(ask()).name == "of an older service"
    for cards in ([], [{"name": "tiny"}], ["tiny"], None):
        service.cards = cards
        with pytest.raises(InputError, match="does not name a model"):
            client.served_model()
    service.cards = [card, {**card, "id": "second", "max_model_len": 9}]
    assert client.served_model().name == "tiny"
    with RewardClient(service.url, "sk-test", HINTS, model="second") as of_second:
        assert of_second.served_model().max_model_len == 9
        of_second.score("p", ["a"])
        assert service.requests[-1][0]["model"] == "second"
    with (
        RewardClient(service.url, "sk-test", HINTS, model="third") as of_third,
        pytest.raises(InputError, match="does not name the model 'third'"),
    ):
        of_third.served_model()
    with RewardClient("http://127.0.0.1:9", "", HINTS) as nobody:
        with pytest.raises(EngineError, match="cannot be reached") as caught:
            nobody.served_model()
        assert "evaluation.endpoint" in caught.value.remedy


def test_busy_answers_are_retried_as_long_as_they_ask(client, service):
    service.script += [
        error_answer(429, "busy", **{"Retry-After": "7"}),
        error_answer(504, "gateway"),
        PlainTextResponse("Internal Server Error", 500),  # of a proxy, in a form of its own
    ]
    assert len(client.score("p", ["a"])) == 1
    assert client.waits == [7.0, 1.0, 2.0]
    assert len(service.requests) == 4


def test_a_service_that_stays_busy_is_an_error_with_its_words(client, service):
    service.script += [error_answer(429, "queue is full")] * 8
    with pytest.raises(EngineError, match=r"queue is full.*8 attempts"):
        client.score("p", ["a"])
    assert len(service.requests) == 8 and client.waits == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (error_answer(401, "no"), InputError, "refused the API key.*MY_KEY"),
        (error_answer(404, "Not Found"), InputError, "no best-of-N service at .*without a path"),
        (error_answer(422, "too many candidates"), InputError, "status 422: too many candidates"),
        (error_answer(500, "boom"), EngineError, "status 500: boom"),
        (PlainTextResponse("<html>"), InputError, "JSON object"),
        (JSONResponse([1]), InputError, "JSON object"),
        (JSONResponse({"data": []}), EngineError, "scored 0 of 1"),
        (JSONResponse({"choices": []}), EngineError, "without valid scores"),
        (
            JSONResponse({"data": [{"index": 0, "score": None, "num_tokens": 1, "truncated": 0}]}),
            EngineError,
            "scored 0 of 1",
        ),
        (
            JSONResponse({"error": {"message": "late", "code": "deadline_exceeded"}}, 504),
            DeadlineError,
            "answered too late: late",
        ),
        (
            JSONResponse({"data": [{"index": 0, "score": "nan", "num_tokens": 1, "truncated": 0}]}),
            EngineError,
            "candidate 0 is nan",
        ),
    ],
)
def test_other_failures_are_told_apart_at_once(client, service, answer, kind, words):
    service.script.append(answer)
    with pytest.raises(kind, match=words):
        client.score("p", ["a"])
    assert client.waits == []


def test_an_address_without_a_service_names_it():
    words = r"127\.0\.0\.1:1 cannot be reached.*endpoint"
    with (
        RewardClient("http://127.0.0.1:1", "", HINTS, sleep=lambda wait_s: None) as client,
        pytest.raises(EngineError, match=words),
    ):
        client.score("p", ["a"])


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [(None, 2.0), ("3", 3.0), ("-5", 0.0), ("1e9", 60.0), ("soon", 2.0), ("nan", 2.0)],
)
def test_retry_after(header, wait_s):
    assert retry_after_s(header, 2.0) == wait_s


def test_retry_after_takes_dates():
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT", 2.0) == 0.0


def test_long_lists_go_in_several_requests(client, service):
    texts = ["a" * (i % 7) for i in range(600)]
    choice = client.choose("p", texts)
    assert [item.score for item in choice.scores] == [float(i % 7) for i in range(600)]
    assert choice.best_index == 6  # the first of the longest
    assert [len(body["candidates"]) for body, _ in service.requests] == [256, 256, 88]


def test_long_candidates_are_sent_few_at_a_time(client, service, monkeypatch):
    monkeypatch.setattr("codepmp_ray.client.attempts.MAX_BYTES", 1_000)
    texts = ["é" * 100, "a" * 700, "b" * 5_000, '"' * 400, "c"]
    assert [item.score for item in client.score("p", texts)] == [100, 700, 5_000, 400, 1]
    sent = [[len(text) for text in body["candidates"]] for body, _ in service.requests]
    assert sent == [[100, 700], [5_000], [400, 1]]


@pytest.mark.parametrize(("prompt", "texts"), [("p", ["ok", "\ud800"]), ("\udfff", ["a"])])
def test_half_a_character_is_named_before_anything_is_sent(client, service, prompt, texts):
    with pytest.raises(InputError, match="half of a surrogate pair"):
        client.score(prompt, texts)
    assert service.requests == []


def test_a_proxy_that_knows_no_routes_yet_is_asked_again(client, service):
    unknown = "Path '/v1/bon' not found. Ping http://.../-/routes for available routes."
    service.script += [PlainTextResponse(unknown, 404)] * 2
    assert len(client.score("p", ["a"])) == 1
    service.script += [PlainTextResponse(unknown, 404)] * 3  # a wrong address stays one
    with pytest.raises(InputError, match="no best-of-N service"):
        client.score("p", ["a"])


def test_a_candidate_without_a_finite_reward_has_none(client, service):
    row = {"index": 0, "score": None, "num_tokens": 1, "truncated": False, "missing": "not_finite"}
    service.script.append(JSONResponse({"data": [row]}))
    (found,) = client.score("p", ["a"])
    assert (found.score, found.missing) == (None, "not_finite")


def test_the_best_of_n(client, service):
    def generate(prompt, n):
        return [prompt * i for i in range(n)]

    text, choice = client.best_of_n("ab", generate, 4)
    assert (text, choice.best_index, choice.rewards) == ("ababab", 3, [0.0, 2.0, 4.0, 6.0])


def test_messages_and_deadlines_are_passed_on(client, service):
    messages = [{"role": "user", "content": "p"}]
    row = {"index": 0, "score": None, "num_tokens": 1, "truncated": False}
    other = {"index": 1, "score": 2.5, "num_tokens": 1, "truncated": False}
    service.script.append(JSONResponse({"data": [row, other]}))
    found = client.score(messages, ["a", "b"], deadline_ms=60_000)
    assert [item.score for item in found] == [None, 2.5]
    ((body, _),) = service.requests
    assert 30_000 < body.pop("deadline_ms") <= 60_000
    assert body == {"messages": messages, "candidates": ["a", "b"]}
    service.script.append(JSONResponse({"data": [row, other]}))
    choice = client.choose(messages, ["a", "b"], deadline_ms=60_000)
    assert choice.best_index == 1
    with pytest.raises(EngineError, match="1 of 2 candidates have no score in time"):
        _ = choice.rewards
    service.script.append(JSONResponse({"data": [row]}))
    with pytest.raises(EngineError, match="scored no candidate"):
        client.choose(messages, ["a"], deadline_ms=60_000)


LATE = {"error": {"message": "late", "code": "deadline_exceeded"}}


def test_a_deadline_is_for_all_requests_of_a_call(client, service):
    """What was scored by then is kept, and what was not says so."""
    row = [{"index": i, "score": 0.0, "num_tokens": 1, "truncated": False} for i in range(256)]
    service.script += [JSONResponse({"data": row}), JSONResponse(LATE, 504)]
    choice = client.choose("p", ["a"] * 600, deadline_ms=60_000)
    missing = [item.score is None for item in choice.scores]
    assert missing == [False] * 256 + [True] * 256 + [False] * 88
    assert choice.best_index == 512
    asked = [body["deadline_ms"] for body, _ in service.requests]
    assert asked == sorted(asked, reverse=True) and asked[0] <= 60_000
    service.script += [JSONResponse(LATE, 504)] * 2
    with pytest.raises(DeadlineError, match="answered too late: late"):
        client.choose("p", ["a"] * 300, deadline_ms=60_000)


def test_until_the_deadline_a_busy_service_is_asked_again(client, service):
    service.script += [error_answer(503, "starting", **{"Retry-After": "0"})] * 10
    assert len(client.score("p", ["a"], deadline_ms=60_000)) == 1
    assert client.waits == [0.0] * 10
    service.script.append(error_answer(429, "queue is full", **{"Retry-After": "30"}))
    with pytest.raises(DeadlineError, match=r"queue is full.*time is up"):
        client.score("p", ["a"], deadline_ms=20_000)
    assert client.waits == [0.0] * 10  # waiting would have been for nothing


def test_a_service_that_hangs_costs_no_more_than_the_deadline():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        start_s = time.monotonic()
        with RewardClient(url, "") as client, pytest.raises(DeadlineError, match="time is up"):
            client.score("p", ["a"], deadline_ms=50)
        assert time.monotonic() - start_s < 10


def test_calls_that_cannot_mean_anything_are_told_why(client, service):
    with pytest.raises(InputError, match="one text, not a list"):
        client.score("p", "abc")
    with pytest.raises(InputError, match="no candidates"):
        client.choose("p", [])
    with pytest.raises(InputError, match=r"generate\(prompt, n\)"):
        client.best_of_n("p", lambda prompt, n: [], 4)
    assert client.score("p", []) == [] == service.requests


def test_negative_scores_have_a_best_one_too(client, service):
    rows = [
        {"index": i, "score": score, "num_tokens": 1, "truncated": False}
        for i, score in enumerate([-3.0, -1.0, 0.0, -2.0])
    ]
    service.script.append(JSONResponse({"data": rows}))
    assert client.choose("p", list("abcd")).best_index == 2


def test_the_asynchronous_client_does_the_same(service):
    waits = []

    async def sleep(wait_s):
        waits.append(wait_s)

    async def generate(prompt, n):
        return [prompt * i for i in range(n)]

    async def run():
        async with AsyncRewardClient(service.url, "sk-test", HINTS, sleep) as client:
            service.script.append(error_answer(429, "busy", **{"Retry-After": "7"}))
            text, choice = await client.best_of_n("ab", generate, 3)
            assert (text, choice.rewards) == ("abab", [0.0, 2.0, 4.0])
            service.script.append(error_answer(401, "no"))
            with pytest.raises(InputError, match="MY_KEY"):
                await client.score("p", ["a"])

    asyncio.run(run())
    assert waits == [7.0]


def test_the_key_comes_from_the_environment(service, monkeypatch):
    monkeypatch.setenv("CODEPMP_API_KEY", "sk-env")
    with RewardClient(service.url) as client:
        client.score("p", ["a"])
    assert service.requests[0][1] == "Bearer sk-env"


def test_a_trainers_completions_are_scored_by_prompt(client, service):
    reward = trl_reward_function(client)
    talk = [{"role": "user", "content": "t"}]
    prompts = ["p", talk, "p", talk]
    answers = [
        "a",
        [{"role": "assistant", "content": "bb"}],
        "ccc",
        [{"role": "assistant", "content": ""}],
    ]
    assert reward(prompts, answers, some_column=[1, 2, 3, 4]) == [1.0, 2.0, 3.0, 0.0]
    asked = sorted((body for body, _ in service.requests), key=lambda body: "messages" in body)
    assert [body["candidates"] for body in asked] == [["a", "ccc"], ["bb", ""]]
    assert (asked[0]["prompt"], asked[1]["messages"]) == ("p", talk)


def test_completions_of_several_messages_are_scored_whole(client, service):
    reward = trl_reward_function(client)
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}
    result = {"role": "tool", "content": "42"}
    answer = {"role": "assistant", "content": "42!"}
    parts = {"role": "assistant", "content": [{"type": "text", "text": "a"}]}
    completions = [[call, result, answer], [answer], [call, result, answer], [call, result, parts]]
    assert reward(["p"] * 4, completions) == [3.0, 3.0, 3.0, 1.0]
    asked = sorted((body for body, _ in service.requests), key=lambda body: "messages" in body)
    assert [body["candidates"] for body in asked] == [["42!"], ["42!", "42!", "a"]]
    asked_prompt = {"role": "user", "content": "p"}
    assert asked[0]["prompt"] == "p" and asked[1]["messages"] == [asked_prompt, call, result]


@pytest.mark.parametrize(
    "completion",
    [[], [{"role": "assistant", "content": None, "tool_calls": [{}]}],
     [{"role": "assistant", "content": "a"}, {"role": "tool", "content": "42"}]],
)  # fmt: skip
def test_a_completion_that_is_no_answer_has_no_reward(client, service, completion):
    reward = trl_reward_function(client)
    with pytest.warns(UserWarning, match="Completion 1 has no reward"):
        assert reward(["p", "p"], ["aa", completion]) == [2.0, None]


def test_a_prompt_that_is_too_long_costs_its_own_reward(client, service):
    service.script.append(error_answer(422, "The prompt has 600 tokens"))
    reward = trl_reward_function(client, num_parallel=1)
    with pytest.warns(UserWarning, match="600 tokens"):
        assert reward(["p" * 600, "p"], ["a", "aa"]) == [None, 2.0]
    service.script.append(error_answer(401, "no"))
    with pytest.raises(InputError, match="refused the API key"):
        reward(["p"], ["a"])
