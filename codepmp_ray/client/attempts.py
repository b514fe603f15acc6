"""One call as a series of requests, tried until they are answered or the call's time is up.

No input or output: the clients send and sleep, what is here decides.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from codepmp_ray.client.answers import (
    CandidateScore,
    Hints,
    message_of,
    read_body,
    read_scores,
)
from codepmp_ray.errors import DeadlineError, EngineError, InputError

MAX_CANDIDATES = 256  # of one request; more are sent as several
# Of one request's JSON, the prompt left out: the service takes 8 MB unless it is told otherwise.
MAX_BYTES = 4_000_000
# Of one request without a deadline: half a minute, as Ray Serve needs to start a dead proxy again.
MAX_ATTEMPTS = 8
_MAX_USUAL_WAIT_S = 8.0
_MAX_WAIT_S = 60.0
_BUSY = frozenset({408, 425, 429, 502, 503, 504})
# A proxy of Ray Serve that was started again knows no routes for a moment.
_SERVES_OWN_404, _ATTEMPTS_AT_404 = "Path '", 3
# A pool of 256 candidates on a slow machine takes minutes; connecting does not.
_READ_TIMEOUT_S, _CONNECT_TIMEOUT_S = 600.0, 10.0
_GRACE_S = 1.0  # for an answer that was sent at the deadline

Prompt = str | list[dict[str, Any]]


@dataclass(frozen=True)
class Stages:
    """What /v1/bon asks of candidates before the reward chooses.

    Attributes:
        stages: of "extract", "parse", "run", in this order, and "reward".
        tests: for "run": `entry_point`, and `test`, source that defines `check(candidate)`; also
            `setup`, source that comes before.
    """

    stages: Sequence[str]
    tests: Mapping[str, str] | None = None

    def fields(self) -> dict[str, Any]:
        tests = {} if self.tests is None else {"tests": dict(self.tests)}
        return {"stages": list(self.stages), **tests}


class Call:
    """The candidates of one call, a part of them in each request.

    `parts` are the requests, in order; each ends with `add` or, when it raised DeadlineError, with
    `miss`. `scores` is the answer.
    """

    def __init__(
        self,
        url: str,
        hints: Hints,
        prompt: Prompt,
        candidates: list[str],
        deadline_ms: int | None,
        more: Mapping[str, Any],
    ) -> None:
        """`more` are further fields of each request.

        Raises InputError for one text in the place of a list, and for half a character.
        """
        if isinstance(candidates, str):
            raise InputError("candidates is one text, not a list.", "Send [text].")
        self._sizes = [_size(text, f"candidates[{i}]") for i, text in enumerate(candidates)]
        if isinstance(prompt, str):
            _size(prompt, "prompt")
        self._url, self._hints = url, hints
        self._prompt, self._candidates, self._more = prompt, candidates, more
        self._end_s = None if deadline_ms is None else time.monotonic() + deadline_ms / 1000
        self._found: list[CandidateScore] = []
        self._late: DeadlineError | None = None

    def parts(self) -> Iterator[Attempts]:
        """At most MAX_CANDIDATES and MAX_BYTES each; a larger candidate is one by itself."""
        start = num_bytes = 0
        for index, size in enumerate([*self._sizes, math.inf]):
            is_full = index - start == MAX_CANDIDATES or num_bytes + size > MAX_BYTES
            if index > start and is_full:
                part = self._candidates[start:index]
                yield Attempts(self._url, self._hints, self._prompt, part, self._end_s, self._more)
                start, num_bytes = index, 0
            num_bytes += size

    def add(self, scores: list[CandidateScore]) -> None:
        self._found += scores

    def miss(self, part: Attempts, error: DeadlineError) -> None:
        """Raises `error` where the call has no deadline."""
        if self._end_s is None:
            raise error
        self._late = self._late or error
        self._found += [CandidateScore(None, 0, False, "deadline")] * part.num_candidates

    def scores(self) -> list[CandidateScore]:
        """Of all candidates. Raises DeadlineError if none has one."""
        if self._late is not None and all(item.score is None for item in self._found):
            raise self._late
        return self._found


class Attempts:
    """One request: what to send, and what each attempt's end means.

    `answered` returns the scores of a final answer; after everything else `next_wait_s` says how
    long to wait. Without a deadline it raises EngineError after MAX_ATTEMPTS, with one
    DeadlineError when the time is up.
    """

    def __init__(
        self,
        url: str,
        hints: Hints,
        prompt: Prompt,
        candidates: list[str],
        end_s: float | None,
        more: Mapping[str, Any],
    ) -> None:
        self._url, self.address, self._hints = url, f"{url}/v1/bon", hints
        self._prompt, self._candidates, self._end_s = prompt, candidates, end_s
        self._more = more
        self._num, self._reason, self._wait_s = 0, "has not answered", 0.0

    @property
    def num_candidates(self) -> int:
        return len(self._candidates)

    def request(self) -> dict[str, Any]:
        """Options of the next attempt for httpx. Raises DeadlineError when the time is up."""
        field = "prompt" if isinstance(self._prompt, str) else "messages"
        body: dict[str, Any] = {field: self._prompt, "candidates": self._candidates, **self._more}
        left_s = self._left_s()
        if left_s is None:
            timeout_s = _READ_TIMEOUT_S
        else:
            if left_s <= 0:
                raise self._too_late()
            body["deadline_ms"] = math.ceil(left_s * 1000)
            timeout_s = left_s + _GRACE_S
        connect_s = min(timeout_s, _CONNECT_TIMEOUT_S)
        return {"json": body, "timeout": httpx.Timeout(timeout_s, connect=connect_s)}

    def failed(self, error: httpx.TransportError | httpx.InvalidURL) -> None:
        """Raises InputError for an address that no attempt can reach."""
        if isinstance(error, httpx.UnsupportedProtocol | httpx.InvalidURL):
            raise InputError(f"{self._url!r} is not a usable address: {error}.") from error
        self._reason = f"cannot be reached ({error or type(error).__name__})"
        self._wait_s = usual_wait_s(self._num)

    def answered(self, answer: httpx.Response) -> list[CandidateScore] | None:
        """None for an answer that says to come back.

        Raises what `read_body` and `read_scores` raise, DeadlineError for the service's own 504.
        """
        code = _code_of(answer)
        if answer.status_code == 504 and code == "deadline_exceeded":
            raise DeadlineError(f"{self.address} answered too late: {message_of(answer)}.")
        # A 500 without our form is that of a gateway whose service died with the request.
        is_away = answer.status_code in _BUSY or (answer.status_code == 500 and code is None)
        if answer.status_code == 404 and self._num + 1 < _ATTEMPTS_AT_404:
            is_away = answer.text.startswith(_SERVES_OWN_404)
        if not is_away:
            body = read_body(answer, self.address, self._hints)
            may_lack = self._end_s is not None
            return read_scores(body, self.num_candidates, may_lack, self.address)
        self._reason = f"stays busy (status {answer.status_code}: {message_of(answer)})"
        usual_s = usual_wait_s(self._num)
        self._wait_s = retry_after_s(answer.headers.get("Retry-After"), usual_s)
        return None

    def next_wait_s(self) -> float:
        self._num += 1
        left_s = self._left_s()
        if left_s is None and self._num == MAX_ATTEMPTS:
            raise EngineError(
                f"The service at {self._url} {self._reason}, {MAX_ATTEMPTS} attempts.",
                f"Check {self._hints.address}, and that the service runs (GET /health).",
            )
        if left_s is not None and self._wait_s >= left_s:
            raise self._too_late()
        return self._wait_s

    def _left_s(self) -> float | None:
        return None if self._end_s is None else self._end_s - time.monotonic()

    def _too_late(self) -> DeadlineError:
        return DeadlineError(
            f"The service at {self._url} {self._reason}, and the call's time is up.",
            "Give it a longer deadline_ms.",
        )


def _size(text: str, name: str) -> int:
    """Bytes of `text` in JSON, at most. Raises InputError for what is no Unicode text."""
    if not isinstance(text, str):
        raise InputError(f"{name} is {type(text).__name__}, not text.")
    try:
        num_bytes = len(text.encode())
    except UnicodeEncodeError as error:
        raise InputError(f"{name} has half of a surrogate pair at {error.start}.") from None
    # What JSON writes longer: quotes, backslashes, line breaks, control characters.
    return num_bytes + text.count("\n") + text.count('"') + text.count("\\") + 4


def usual_wait_s(attempt: int) -> float:
    """Before the next attempt, when the service does not say."""
    return min(0.5 * 2**attempt, _MAX_USUAL_WAIT_S)


def retry_after_s(header: str | None, default_s: float) -> float:
    """Seconds to wait by a Retry-After header (seconds or HTTP date), bounded; else the default."""
    if header is None:
        return default_s
    try:
        wait_s = float(header)
    except ValueError:
        try:
            wait_s = parsedate_to_datetime(header).timestamp() - time.time()
        except (TypeError, ValueError):
            return default_s
    return min(max(wait_s, 0.0), _MAX_WAIT_S) if math.isfinite(wait_s) else default_s


def _code_of(answer: httpx.Response) -> str | None:
    """Which of the service's own errors it is ("" where it does not say), None for others'."""
    if answer.status_code < 400:
        return None
    try:
        return str(answer.json()["error"].get("code", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
