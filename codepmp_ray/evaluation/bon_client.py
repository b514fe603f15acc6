"""Client of `POST /v1/bon`: one pool of candidates in, one score per candidate out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any

import httpx

from codepmp_ray.errors import EngineError, InputError

_MAX_ATTEMPTS = 6
_MAX_WAIT_S = 60.0
_BUSY = frozenset({408, 425, 429, 502, 503, 504})
# A pool of 256 candidates on a slow machine takes minutes; connecting does not.
_TIMEOUT = httpx.Timeout(600.0, connect=10.0)


@dataclass(frozen=True)
class CandidateScore:
    score: float
    num_tokens: int
    truncated: bool


class BonClient:
    """Context manager; safe for use from several threads.

    Args:
        url: the service's address without a path, for example "http://127.0.0.1:9000".
        api_key: bearer token, or "" to send none.
        key_hint: where a user sets the key, for the message when it is refused.
    """

    def __init__(
        self,
        url: str,
        api_key: str,
        key_hint: str = "CODEPMP_API_KEY",
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = url.rstrip("/")
        self._key_hint = key_hint
        self._sleep = sleep
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        # Proxies of the environment are for the outside world, not for a service beside us.
        self._http = httpx.Client(headers=headers, timeout=_TIMEOUT, trust_env=False)

    def __enter__(self) -> BonClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def score(self, prompt: str, candidates: list[str]) -> list[CandidateScore]:
        """Scores in the order of `candidates`.

        Raises InputError for a wrong address, key or request, EngineError when the service stays
        busy or down through all attempts or answers with something else than scores.
        """
        body = self._post({"prompt": prompt, "candidates": candidates})
        try:
            found = {int(item["index"]): _as_score(item) for item in body["data"]}
        except (KeyError, TypeError, ValueError) as error:
            raise EngineError(
                f"{self.url}/v1/bon answered without valid scores: {error}."
            ) from error
        if sorted(found) != list(range(len(candidates))):
            raise EngineError(
                f"{self.url}/v1/bon scored {len(found)} of {len(candidates)} candidates."
            )
        return [found[index] for index in range(len(candidates))]

    def _post(self, payload: dict[str, Any]) -> dict[str, Any]:
        reason = ""
        for attempt in range(_MAX_ATTEMPTS):
            wait_s = min(0.5 * 2**attempt, _MAX_WAIT_S)
            try:
                answer = self._http.post(f"{self.url}/v1/bon", json=payload)
            except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
                raise InputError(f"{self.url!r} is not a usable address: {error}.") from error
            except httpx.TransportError as error:
                reason = f"cannot be reached ({error or type(error).__name__})"
            else:
                if answer.status_code not in _BUSY:
                    return self._body(answer)
                reason = f"stays busy (status {answer.status_code}: {_message(answer)})"
                wait_s = retry_after_s(answer.headers.get("Retry-After"), wait_s)
            if attempt + 1 < _MAX_ATTEMPTS:
                self._sleep(wait_s)
        raise EngineError(
            f"The service at {self.url} {reason}, {_MAX_ATTEMPTS} attempts.",
            "Check evaluation.endpoint, and that the service runs (GET /health).",
        )

    def _body(self, answer: httpx.Response) -> dict[str, Any]:
        status, address = answer.status_code, f"{self.url}/v1/bon"
        if status in (401, 403):
            raise InputError(
                f"{address} refused the API key (status {status}).",
                f"Set the environment variable {self._key_hint} to the key of that service.",
            )
        if status == 404:
            raise InputError(
                f"There is no best-of-N service at {address} (status 404: {_message(answer)}).",
                "Set evaluation.endpoint to the address of the service, without a path.",
            )
        if status >= 500:
            raise EngineError(f"{address} failed (status {status}: {_message(answer)}).")
        if status != 200:
            raise InputError(
                f"{address} refused the request (status {status}: {_message(answer)})."
            )
        try:
            body = answer.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise InputError(f"{address} does not answer with a JSON object; is it our service?")
        return body


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


def _as_score(item: dict[str, Any]) -> CandidateScore:
    score = float(item["score"])
    if not math.isfinite(score):
        raise ValueError(f"the score of candidate {item['index']} is {score}")
    return CandidateScore(score, int(item["num_tokens"]), bool(item["truncated"]))


def _message(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])[:300]
    except (ValueError, KeyError, TypeError):
        return answer.text[:100] or "no message"
