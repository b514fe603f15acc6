"""Submitting once, following across broken connections, exit codes; the client is scripted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from codepmp_ray.cluster import submit as module
from codepmp_ray.cluster.submit import Submission, follow, next_attempt, passed_on, submit
from codepmp_ray.errors import ResourceError

BASE = Submission("synthesize", ("run_dir=/x",), {"run_dir": "/x"})


class _Status(str):
    def is_terminal(self) -> bool:
        return self in ("STOPPED", "SUCCEEDED", "FAILED")


def details(status: str, code: int | None = None) -> Any:
    return SimpleNamespace(status=_Status(status), driver_exit_code=code, message="because")


@dataclass
class FakeClient:
    """The jobs API as far as it is used. `streams` are the log's connections, in order."""

    jobs: dict[str, str] = field(default_factory=dict)
    log: str = ""
    streams: list[Any] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    submitted: list[dict[str, Any]] = field(default_factory=list)
    refusals: list[Exception] = field(default_factory=list)
    work: str = ""

    def list_jobs(self) -> list[Any]:
        told = {"work": self.work}
        jobs = self.jobs.items()
        return [SimpleNamespace(submission_id=n, status=s, metadata=told) for n, s in jobs]

    def submit_job(self, **fields: Any) -> str:
        if self.refusals:
            raise self.refusals.pop(0)
        self.submitted.append(fields)
        return fields["submission_id"]

    async def tail_job_logs(self, name: str) -> AsyncIterator[str]:
        stream = self.streams.pop(0)
        if isinstance(stream, Exception):
            raise stream
        for part in stream:
            if isinstance(part, Exception):
                raise part
            yield part

    def get_job_info(self, name: str) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def get_job_logs(self, name: str) -> str:
        return self.log


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    clock = SimpleNamespace(
        monotonic=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds)
    )
    monkeypatch.setattr(module, "time", clock)
    return now


def test_the_id_follows_from_the_work_and_nothing_else() -> None:
    same = Submission("synthesize", ("other=order",), {"run_dir": "/x"}, Path("/a"), {"B": "c"})
    assert same.base_id == BASE.base_id
    assert Submission("synthesize", (), {"run_dir": "/y"}).base_id != BASE.base_id
    assert Submission("pretrain", (), {"run_dir": "/x"}).base_id != BASE.base_id
    assert replace(BASE, code="other").base_id != BASE.base_id


@pytest.mark.parametrize("status", ["PENDING", "RUNNING", "FAILED", "SUCCEEDED", "STOPPED"])
def test_two_codes_do_not_write_one_stage(status: str) -> None:
    client: Any = FakeClient({"old-1": status}, work=BASE.work)
    asked = replace(BASE, code="other")
    if status in ("PENDING", "RUNNING"):
        with pytest.raises(ResourceError, match=r"old-1 does the same work.*ray job stop old-1"):
            submit(client, asked)
        assert not client.submitted
    else:
        assert submit(client, asked) == (f"{asked.base_id}-1", True)
    assert submit(client, replace(asked, identity="another work"))[1]


@pytest.mark.parametrize(
    ("statuses", "anew", "expected"),
    [
        ({}, False, ("b-1", True)),
        ({"b-1": "RUNNING"}, False, ("b-1", False)),
        ({"b-1": "PENDING"}, True, ("b-1", False)),
        ({"b-1": "SUCCEEDED"}, False, ("b-1", False)),
        ({"b-1": "SUCCEEDED"}, True, ("b-2", True)),
        ({"b-1": "FAILED"}, False, ("b-2", True)),
        ({"b-1": "FAILED", "b-2": "STOPPED"}, False, ("b-3", True)),
        ({"b-9": "FAILED", "b-10": "RUNNING"}, False, ("b-10", False)),
        ({"b-x": "RUNNING", "bb-1": "RUNNING"}, False, ("b-1", True)),
    ],
)
def test_which_attempt_answers(
    statuses: dict[str, str], anew: bool, expected: tuple[str, bool]
) -> None:
    assert next_attempt("b", statuses, anew) == expected


def test_a_first_submission_carries_the_command_and_the_environment(tmp_path: Path) -> None:
    client: Any = FakeClient()
    asked = Submission("synthesize", ("a=b c",), 1, tmp_path, {"HF_TOKEN": "t"})
    assert submit(client, asked) == (f"{asked.base_id}-1", True)
    (sent,) = client.submitted
    assert sent["entrypoint"] == "python -m jobs.synthesize 'a=b c'"
    assert sent["runtime_env"]["working_dir"] == str(tmp_path)
    assert sent["runtime_env"]["env_vars"] == {"PYTHONUNBUFFERED": "1", "HF_TOKEN": "t"}


@pytest.mark.parametrize("is_done", [True, False])
def test_a_success_is_an_answer_while_what_it_made_is_there(is_done: bool) -> None:
    asked = replace(BASE, is_done=lambda: is_done)
    client: Any = FakeClient({f"{BASE.base_id}-1": "SUCCEEDED"})
    number = 1 if is_done else 2
    assert submit(client, asked) == (f"{BASE.base_id}-{number}", not is_done)
    asked = replace(BASE, is_done=lambda: pytest.fail("asked of a job that has not succeeded"))
    for status in ("RUNNING", "FAILED"):
        submit(FakeClient({f"{BASE.base_id}-1": status}), asked)  # type: ignore[arg-type]


def test_what_was_typed_is_shown_without_credentials_of_its_urls() -> None:
    client: Any = FakeClient()
    asked = replace(BASE, line="codepmp corpus corpus.source.path=https://u:PASS@h/x?sig=SIG")
    submit(client, asked)
    shown = client.submitted[0]["metadata"]["command"]
    assert shown == "codepmp corpus corpus.source.path=https://***@h/x?sig=***"


def test_a_head_that_goes_after_the_end_takes_no_outcome_along() -> None:
    client: Any = FakeClient(streams=[["a\n"]], answers=[details("SUCCEEDED", 0)])
    client.get_job_logs = lambda name: (_ for _ in ()).throw(ConnectionError("gone"))
    assert follow(client, "x", lambda text: None).exit_code == 0


def test_a_second_submission_starts_nothing() -> None:
    client: Any = FakeClient({f"{BASE.base_id}-1": "RUNNING"})
    assert submit(client, BASE) == (f"{BASE.base_id}-1", False)
    assert client.submitted == []


def test_whoever_loses_the_race_follows_the_winner() -> None:
    client: Any = FakeClient(refusals=[RuntimeError("Job with submission_id x already exists.")])
    assert submit(client, BASE) == (f"{BASE.base_id}-1", False)


def test_an_id_of_the_caller_s_own_is_used_as_it_is() -> None:
    client: Any = FakeClient({f"{BASE.base_id}-1": "RUNNING"})
    assert submit(client, BASE, "mine") == ("mine", True)


def test_a_head_without_its_agent_is_waited_for_but_not_for_ever(no_waiting: list[float]) -> None:
    busy = RuntimeError("status code 500: No available agent to submit job")
    client: Any = FakeClient(refusals=[busy, ConnectionError("reset"), busy])
    assert submit(client, BASE) == (f"{BASE.base_id}-1", True)
    with pytest.raises(ResourceError, match="refused the job"):
        submit(FakeClient(refusals=[busy] * 200), BASE)  # type: ignore[arg-type]
    assert no_waiting[0] < 100
    with pytest.raises(ResourceError, match="ValueError: bad"):
        submit(FakeClient(refusals=[ValueError("trace\nValueError: bad")]), BASE)  # type: ignore[arg-type]


def test_an_upload_that_is_too_large_names_the_folder_and_the_way_out(tmp_path: Path) -> None:
    client: Any = FakeClient(refusals=[RuntimeError("Request failed with status code 413: None.")])
    with pytest.raises(ResourceError, match=f"{tmp_path}.*100 MiB.*rayignore"):
        submit(client, replace(BASE, working_dir=tmp_path))


def test_a_log_goes_on_where_a_broken_connection_left_it() -> None:
    client: Any = FakeClient(
        log="one\ntwo\nthree\n",
        # Every connection starts at the beginning; the second breaks before it gets to new text.
        streams=[["one\nt", RuntimeError("closed")], ["one"], ["one\n", "two\nth"]],
        answers=[details("RUNNING"), details("SUCCEEDED", 0)],
    )
    shown: list[str] = []
    outcome = follow(client, "x", shown.append)
    assert "".join(shown) == "one\ntwo\nthree\n"
    assert (outcome.status, outcome.exit_code) == ("SUCCEEDED", 0)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [("FAILED", 4, 4), ("FAILED", None, 1), ("FAILED", -9, 137), ("STOPPED", None, 130)],
)
def test_the_exit_code_is_that_of_the_job(status: str, code: int | None, expected: int) -> None:
    client: Any = FakeClient(streams=[[]], answers=[details(status, code)])
    assert follow(client, "x", lambda text: None).exit_code == expected


def test_a_cluster_that_stays_away_is_given_up_and_one_that_forgot_is_named() -> None:
    gone: Any = FakeClient(streams=[RuntimeError("refused")] * 200)
    with pytest.raises(ResourceError, match="not answered for 60 s"):
        follow(gone, "x", lambda text: None)
    forgot: Any = FakeClient(streams=[[]], answers=[RuntimeError("Job x does not exist")])
    with pytest.raises(ResourceError, match="no longer knows x"):
        follow(forgot, "x", lambda text: None)


def test_variables_are_passed_on_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "value")
    assert passed_on(["SOME_TOKEN"]) == {"SOME_TOKEN": "value"}
    monkeypatch.delenv("SOME_TOKEN")
    with pytest.raises(ResourceError, match="--env SOME_TOKEN"):
        passed_on(["SOME_TOKEN"])
