"""Submit a job to a running cluster, once, and follow it to its exit code.

A submission's id follows from the job, its settings and its code, so whoever submits the same thing
again, after a broken connection or by a scheduler's retry, follows what runs already:

    latest attempt waits or runs                     -> follow it
    it has succeeded, and its work is there          -> show it again
    it failed, was stopped or its work is gone,
    or there is none                                 -> a new attempt, which resumes from storage

Ray's table says how an attempt ended; what it made only the run directory says.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shlex
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codepmp_ray.cluster.jobs_api import first_line
from codepmp_ray.errors import ResourceError
from codepmp_ray.redaction import redacted

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

_EXIT_FAILED, _EXIT_STOPPED = 1, 130
# A head that restarts, or whose job agent has not registered yet, is waited for as long.
_PATIENCE_S = 60.0
_RETRY_S = 1.0
_MAX_COMMAND_CHARS = 1_000


@dataclass(frozen=True)
class Submission:
    """What is asked for.

    Attributes:
        job: name of the module below `jobs`.
        arguments: its command line, `--config` and overrides included.
        identity: what tells this work from other work, any JSON value; with an equal one, and equal
            `code`, two submissions are the same.
        working_dir: checkout that is uploaded, without what .rayignore and .gitignore name; None
            where the nodes have the code (a container image).
        env_vars: environment of the job and of everything that it starts.
        program: what the arguments are given to; `python -m jobs.JOB` unless it is another.
        code: digest of what runs.
        line: the command as people type it; without it what runs on the cluster.
        is_done: whether what the job makes is there. Asked only of a job that has succeeded.
    """

    job: str
    arguments: tuple[str, ...]
    identity: Any
    working_dir: Path | None = None
    env_vars: Mapping[str, str] = field(default_factory=dict)
    program: tuple[str, ...] = ()
    code: str = ""
    line: str = ""
    is_done: Callable[[], bool] = lambda: False

    @property
    def base_id(self) -> str:
        return f"{self.job}-{_digest([self.work, self.code])}"

    @property
    def work(self) -> str:
        """What it does, whatever code does it."""
        return _digest([self.job, self.identity])

    @property
    def entrypoint(self) -> str:
        program = self.program or ("python", "-m", f"jobs.{self.job}")
        return shlex.join([*program, *self.arguments])


@dataclass(frozen=True)
class Outcome:
    """How a job ended. `exit_code` is that of its process; 130 if it was stopped."""

    submission_id: str
    status: str
    exit_code: int
    message: str


def submit(
    client: JobSubmissionClient, submission: Submission, submission_id: str | None = None
) -> tuple[str, bool]:
    """Start the job unless it is there; returns its id and whether it was started now.

    A `submission_id` of the caller's own is taken as it is: used before, that job is followed.
    Raises ResourceError when the cluster refuses.
    """
    if submission_id is None:
        jobs = client.list_jobs()
        statuses = {
            str(job.submission_id): str(job.status)
            for job in jobs
            if str(job.submission_id).startswith(f"{submission.base_id}-")
        }
        _require_no_other_code(
            submission, [j for j in jobs if str(j.submission_id) not in statuses]
        )
        anew = "SUCCEEDED" in statuses.values() and not submission.is_done()
        submission_id, is_new = next_attempt(submission.base_id, statuses, anew)
        if not is_new:
            return submission_id, False
    return submission_id, _start(client, submission, submission_id)


def _require_no_other_code(submission: Submission, jobs: Sequence[Any]) -> None:
    """Raise ResourceError while another submission does the same work with other code: two writers
    of one stage."""
    for job in jobs:
        is_same = (getattr(job, "metadata", None) or {}).get("work") == submission.work
        if is_same and str(job.status) in ("PENDING", "RUNNING"):
            raise ResourceError(
                f"{job.submission_id} does the same work with other code and has not ended.",
                f"Stop it first (`ray job stop {job.submission_id}`), or wait for its end.",
            )


def submissions(client: JobSubmissionClient) -> dict[str, dict[str, Any]]:
    """Submission id -> status, start and command of what this project submitted, newest first."""
    found = [job for job in client.list_jobs() if (job.metadata or {}).get("job")]
    found.sort(key=lambda job: job.start_time or 0, reverse=True)
    return {
        str(job.submission_id): {
            "status": str(job.status),
            "started_s": job.start_time and job.start_time / 1000,
            "command": redacted((job.metadata or {}).get("command") or str(job.entrypoint)),
        }
        for job in found
    }


def next_attempt(base_id: str, statuses: Mapping[str, str], anew: bool) -> tuple[str, bool]:
    """Id of the attempt to follow, or of the one to start (then True).

    `statuses` are those of the jobs whose ids begin with `base_id`; with `anew` a success does
    not count as an answer.
    """
    numbers = {
        int(found[1]): status
        for name, status in statuses.items()
        if (found := re.fullmatch(re.escape(base_id) + r"-(\d+)", name))
    }
    latest = max(numbers, default=0)
    answers = {"PENDING", "RUNNING"} if anew else {"PENDING", "RUNNING", "SUCCEEDED"}
    if latest and numbers[latest] in answers:
        return f"{base_id}-{latest}", False
    return f"{base_id}-{latest + 1}", True


def follow(
    client: JobSubmissionClient, submission_id: str, write: Callable[[str], object]
) -> Outcome:
    """Pass the job's log to `write` until the job ends.

    A connection that breaks is made anew and goes on where the log was. Raises ResourceError when
    the cluster stays away, or no longer knows the job.
    """
    log = _LogCopy(write)
    last_seen_s = time.monotonic()
    while True:
        try:
            asyncio.run(log.follow(client.tail_job_logs(submission_id)))
            details = client.get_job_info(submission_id)
        except Exception as error:
            if "does not exist" in str(error):
                raise ResourceError(
                    f"The cluster no longer knows {submission_id}: its head was replaced.",
                    "The same command submits it again; it resumes from storage.",
                ) from error
            if time.monotonic() - last_seen_s > _PATIENCE_S:
                raise ResourceError(
                    f"The cluster has not answered for {_PATIENCE_S:.0f} s "
                    f"({first_line(error)}); {submission_id} may still run.",
                    "The same command follows it again.",
                ) from error
            time.sleep(_RETRY_S)
            continue
        last_seen_s = time.monotonic()
        if details.status.is_terminal():
            # The stream may have missed its end. A head that is gone by now takes only that along.
            with suppress(Exception):
                log.show(client.get_job_logs(submission_id))
            return _outcome(submission_id, details)
        time.sleep(_RETRY_S)


class _LogCopy:
    """Writes a log that is read from its beginning again and again, each character once."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._num_written = 0

    async def follow(self, stream: AsyncIterator[str]) -> None:
        num_seen = 0
        async for text in stream:
            self._add(text, num_seen)
            num_seen += len(text)

    def show(self, whole: str) -> None:
        self._add(whole, 0)

    def _add(self, text: str, start: int) -> None:
        """`text` begins at character `start` of the log."""
        if fresh := text[max(self._num_written - start, 0) :]:
            self._write(fresh)
            self._num_written = start + len(text)


def _start(client: JobSubmissionClient, submission: Submission, submission_id: str) -> bool:
    runtime_env: dict[str, Any] = {
        # Progress lines come when they are printed, not when a buffer is full.
        "env_vars": {"PYTHONUNBUFFERED": "1", **submission.env_vars},
    }
    if submission.working_dir is not None:
        runtime_env["working_dir"] = str(submission.working_dir)
    command = redacted(submission.line or submission.entrypoint)
    give_up_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            client.submit_job(
                entrypoint=submission.entrypoint,
                submission_id=submission_id,
                runtime_env=runtime_env,
                metadata={
                    "job": submission.job,
                    "command": command[:_MAX_COMMAND_CHARS],
                    "work": submission.work,
                },
            )
            return True
        except (OSError, RuntimeError, ValueError) as error:
            if "already exists" in str(error):  # somebody else was quicker, or a reply was lost
                return False
            # The head answers before its job agent has registered. Under the same id nothing is
            # started twice, so a connection that broke is tried again too.
            passing = isinstance(error, OSError) or "No available agent" in str(error)
            if "413" in str(error) and submission.working_dir is not None:
                raise ResourceError(
                    f"The upload of {submission.working_dir} is larger than the cluster takes "
                    "(Ray's limit is 100 MiB).",
                    "Name in .rayignore what jobs do not need, data above all, or use --no-upload.",
                ) from error
            if not passing or time.monotonic() > give_up_s:
                raise ResourceError(
                    f"The cluster refused the job: {_last_line(error)}.",
                    "The head's log (dashboard.log, below /tmp/ray/session_latest/logs) says more.",
                ) from error
            time.sleep(_RETRY_S)


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _outcome(submission_id: str, details: Any) -> Outcome:
    status = str(details.status)
    code = {"SUCCEEDED": 0, "STOPPED": _EXIT_STOPPED}.get(status)
    if code is None:
        code = details.driver_exit_code or _EXIT_FAILED
        if code < 0:  # ended by a signal; as a shell counts
            code = 128 - code
    return Outcome(submission_id, status, code, details.message or "")


def passed_on(names: Sequence[str]) -> dict[str, str]:
    """These variables of this process. Raises ResourceError for one that is not set."""
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise ResourceError(
            f"--env {missing[0]} names a variable that is not set here.", "Export it first."
        )
    return {name: os.environ[name] for name in names}


def print_log(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1].strip()
