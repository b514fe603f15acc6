"""An S3 server in a process of its own: moto behind werkzeug, with faults on demand.

moto looks before it writes, in many threads. Here one request is answered at a time, so that a
conditional write is one step, as S3 promises. `python -m tests.s3_server` serves until its standard
input ends and prints its port first.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx

from tests.processes import PATIENCE_S

ROOT = Path(__file__).resolve().parents[1]
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class S3Server:
    """The server as a test sees it."""

    def __init__(self, port: int = 0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.s3_server", str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        return {**CREDENTIALS, "AWS_ENDPOINT_URL": self.url}

    def fail(self, fault: str | None, method: str = "PUT", times: int = 1, part: str = "") -> None:
        """The next `times` requests of `method` whose path holds `part` go wrong:

        "lost": carried out, but the reply is an error 500; "denied": 403; "full": 507;
        "conflict": 409; "unconditional": carried out without its If-None-Match. None ends it.
        """
        body = {"fault": fault, "method": method, "times": times, "part": part}
        httpx.post(f"{self.url}/__fault", json=body).raise_for_status()

    def traffic(self) -> dict[str, int]:
        """Requests by method, and `bytes` of their answers, since the last call."""
        return httpx.get(f"{self.url}/__traffic").json()

    def stop(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(PATIENCE_S)


_ERRORS = {
    "lost": ("500 Internal Server Error", "InternalError"),
    "denied": ("403 Forbidden", "AccessDenied"),
    "full": ("507 Insufficient Storage", "XMinioStorageFull"),
    "conflict": ("409 Conflict", "ConditionalRequestConflict"),
}


class _Faults:
    """Around moto's application."""

    def __init__(self, app: Any) -> None:
        self._app, self._lock = app, threading.Lock()
        self._fault: dict[str, Any] = {"fault": None}
        self._num: dict[str, int] = {}

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        with self._lock:
            if path == "/__fault":
                size = int(environ["CONTENT_LENGTH"])
                self._fault = json.loads(environ["wsgi.input"].read(size))
                return _reply(start_response, "200 OK", b"")
            if path == "/__traffic":
                num, self._num = self._num, {}
                return _reply(start_response, "200 OK", json.dumps(num).encode())
            self._num[method] = self._num.get(method, 0) + 1
            fault = self._take(method, path)
            if fault == "unconditional":
                environ.pop("HTTP_IF_NONE_MATCH", None)
            if fault in (None, "unconditional"):
                answer = list(self._app(environ, start_response))
                self._num["bytes"] = self._num.get("bytes", 0) + sum(map(len, answer))
                return answer
            if fault == "lost":
                list(self._app(environ, lambda *_: None))
            status, code = _ERRORS[fault]
            text = f"<Error><Code>{code}</Code><Message>{code}, on demand</Message></Error>"
            body = b"" if method == "HEAD" else text.encode()
            return _reply(start_response, status, body, "application/xml")

    def _take(self, method: str, path: str) -> str | None:
        fault = self._fault
        if not fault["fault"] or fault["method"] not in (method, "*") or fault["part"] not in path:
            return None
        fault["times"] -= 1
        if fault["times"] < 0:
            return None
        return fault["fault"]


def _reply(
    start_response: Any, status: str, body: bytes, kind: str = "application/json"
) -> list[bytes]:
    start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]


def main(port: int) -> None:
    from moto.moto_server.werkzeug_app import (
        DomainDispatcherApplication,
        MotoRequestHandler,
        create_backend_app,
    )
    from werkzeug.serving import make_server

    class Handler(MotoRequestHandler):
        def log(self, type: str, message: str, *args: Any) -> None:
            """One line per request would fill the pipe."""

    app = _Faults(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", port, app, threaded=True, request_handler=Handler)
    print(server.server_address[1], flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
