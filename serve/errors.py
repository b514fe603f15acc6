"""Errors on the wire, in the form of the OpenAI API: {"error": {message, type, param, code}}."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from codepmp_ray.errors import DeadlineError, InputError
from codepmp_ray.preference.messages import BadMessage

_MAX_SHOWN_PROBLEMS = 3
_MAX_TEXT = 500
# status -> (type, code)
_KINDS = {
    401: ("authentication_error", "invalid_api_key"),
    404: ("invalid_request_error", "not_found"),
    405: ("invalid_request_error", "method_not_allowed"),
    408: ("invalid_request_error", "request_timeout"),
    413: ("invalid_request_error", "body_too_large"),
    415: ("invalid_request_error", "unsupported_media_type"),
    422: ("invalid_request_error", "invalid_request"),
    429: ("rate_limit_error", "too_many_requests"),
    500: ("server_error", "internal_error"),
    501: ("server_error", "not_implemented"),
    503: ("server_error", "service_unavailable"),
    504: ("server_error", "deadline_exceeded"),
}


class ApiError(Exception):
    """An answer other than 200, raised anywhere under a route."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.retry_after_s = retry_after_s

    def detail(self) -> dict[str, Any]:
        kind, code = _KINDS.get(self.status, ("invalid_request_error", "error"))
        return {
            "message": _plain(self.message),
            "type": kind,
            "param": None if self.param is None else _plain(self.param),
            "code": self.code or code,
        }

    def response(self) -> JSONResponse:
        headers = {}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(self.retry_after_s)
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse({"error": self.detail()}, status_code=self.status, headers=headers)


def not_executed(why: str) -> ApiError:
    """For the stage that runs programs."""
    return ApiError(501, f"stages: run is not served here: {why}.", param="stages")


class Unavailable(Exception):
    """The scorer is not there now (starting, restarting); the same call may work soon.

    Its arguments are the names of models.
    """


def install_handlers(app: FastAPI) -> None:
    """Give failures under `app` the common form; what nobody expected is the Observer's."""

    async def api_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ApiError)
        return error.response()

    async def http_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        if error.status_code == 400:  # FastAPI's, for a body that cannot be parsed
            return _unreadable(request).response()
        shown = ApiError(error.status_code, str(error.detail)).response()
        for name, value in (error.headers or {}).items():
            shown.headers[name] = value
        return shown

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        if isinstance(error.body, bytes):  # FastAPI does not parse what is not called JSON
            found = request.headers.get("content-type", "none")
            return ApiError(
                415, f"The Content-Type is {found}; send Content-Type: application/json."
            ).response()
        message, param = describe_problems(error.errors(), error.body)
        return ApiError(422, message, param=param).response()

    async def bad_input(request: Request, error: Exception) -> JSONResponse:
        param = None
        if isinstance(error, BadMessage):  # "messages[0].content is ..."
            param = re.sub(r"\[(\d+)\]", r".\1", str(error).split(" ")[0])
        return ApiError(422, str(error), param=param).response()

    async def too_late(request: Request, error: Exception) -> JSONResponse:
        return ApiError(504, str(error)).response()

    async def unavailable(request: Request, error: Exception) -> JSONResponse:
        of = f" of {', '.join(map(repr, error.args))}" if error.args else ""
        message = f"The scoring engine{of} is not available at the moment."
        return ApiError(503, message, retry_after_s=5).response()

    app.add_exception_handler(ApiError, api_error)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(InputError, bad_input)
    app.add_exception_handler(DeadlineError, too_late)
    app.add_exception_handler(Unavailable, unavailable)


def _unreadable(request: Request) -> ApiError:
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        return ApiError(415, f"Content-Encoding {encoding} is not supported: send plain JSON.")
    return ApiError(422, "The body is not JSON in UTF-8, or nested too deeply.")


def describe_problems(problems: Sequence[Any], body: object = None) -> tuple[str, str | None]:
    """(message, name of the first bad field) of pydantic's problems; inputs are not repeated.

    Names are those of the caller's `body`: pydantic puts those of its own types between them.
    """
    shown: dict[str, str] = {}
    for problem in problems:
        name, message = _name_of(problem, body), _words_of(problem)
        before = shown.get(name)
        # One value that fits none of several types is one problem.
        shown[name] = message if before in (None, message) else f"{before}, or: {message}"
    parts = [f"{name}: {message}" if name else message for name, message in shown.items()]
    if len(parts) > _MAX_SHOWN_PROBLEMS:
        num_more = len(parts) - _MAX_SHOWN_PROBLEMS
        parts = [*parts[:_MAX_SHOWN_PROBLEMS], f"and {num_more} more"]
    return "; ".join(parts), next((name for name in shown if name), None)


def _words_of(problem: Any) -> str:
    kind = problem["type"]
    if kind == "json_invalid":
        return f"The body is not JSON: {problem['ctx']['error']} at character {problem['loc'][-1]}"
    if kind == "missing" and len(problem["loc"]) == 1:
        return "The body is empty; send JSON"
    if kind in ("model_type", "model_attributes_type"):
        return "Input should be a JSON object"
    return str(problem["msg"]).removeprefix("Value error, ")


def _name_of(problem: Any, body: object) -> str:
    """Dotted, of those parts of the problem's place that lead through `body`."""
    found: list[str] = []
    place = body
    location = [] if problem["type"] == "json_invalid" else list(problem["loc"][1:])
    for number, part in enumerate(location):
        is_missing = problem["type"] == "missing" and number == len(location) - 1
        if isinstance(place, dict) and (part in place or is_missing):
            place = place.get(part)
        elif isinstance(place, list) and isinstance(part, int) and part < len(place):
            place = place[part]
        else:
            continue
        found.append(str(part))
    return ".".join(found)


def _plain(text: str) -> str:
    """Text that is safe to encode (field names come from the request) and not an echo of it."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}..."
