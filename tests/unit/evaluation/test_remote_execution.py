"""The service that executes code elsewhere, against a stub of its interface."""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from codepmp_ray.config.evaluation import SandboxConfig
from codepmp_ray.errors import SandboxUnavailable
from codepmp_ray.evaluation.sandbox import TestJob, runner

pytestmark = pytest.mark.slow

CHECK = "def check(candidate):\n    assert candidate(1) == 2\n"


class Stub(BaseHTTPRequestHandler):
    """Executes the programs of these tests, and answers as SandboxFusion does."""

    reply: dict | None = None  # what it says instead
    requests: list[dict] = []

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.requests.append(request)
        reply = self.reply
        if reply is None:
            command = [sys.executable, "-I", "-S", "-c", request["code"]]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            result = {"status": "Finished", "return_code": done.returncode}
            result |= {"stdout": done.stdout, "stderr": done.stderr, "execution_time": 0.1}
            status = "Success" if done.returncode == 0 else "Failed"
            reply = {"status": status, "message": "", "compile_result": None, "run_result": result}
        body = json.dumps(reply).encode()
        self.send_response(200 if self.path == "/run_code" else 404)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def config(monkeypatch):
    monkeypatch.setattr(Stub, "requests", [])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield SandboxConfig(endpoint=f"http://127.0.0.1:{server.server_port}/", time_limit_s=3)
    server.shutdown()
    server.server_close()


def detect(config):
    return runner._detect.__wrapped__(config.model_dump_json())


@pytest.mark.parametrize(
    ("program", "outcome", "detail"),
    [
        ("def f(x): return x + 1", "passed", ""),
        ("from __future__ import annotations\ndef f(x: Later): return x + 1", "passed", ""),
        ("def f(x): return x", "failed", "AssertionError"),
        ("def f(x:", "failed", "SyntaxError"),
        ("import sys\nsys.exit(0)", "failed", ""),
        ("import no_such_package", "missing_package", "no_such_package"),
    ],
)
def test_verdicts_of_the_service(config, program, outcome, detail):
    found = detect(config).run(TestJob(program, "f", "", CHECK))
    assert found.outcome == outcome and detail in found.detail


def test_time_limits_and_other_languages_are_passed_on(config, monkeypatch):
    executor = detect(config)
    late = {"status": "Failed", "run_result": {"status": "TimeLimitExceeded", "stderr": None}}
    monkeypatch.setattr(Stub, "reply", late)
    assert executor.run(TestJob("while True: pass", "f", "", CHECK)).outcome == "timeout"
    assert Stub.requests[-1]["run_timeout"] == 3 and Stub.requests[-1]["memory_limit_MB"] == 512
    monkeypatch.setattr(Stub, "reply", {"status": "Success", "run_result": {"return_code": 0}})
    found = executor.run(TestJob("package main", "f", "", "func main() {}", language="go"))
    assert found.outcome == "passed" and Stub.requests[-1]["language"] == "go"
    assert Stub.requests[-1]["code"] == "package main\nfunc main() {}"
    # A service that says yes to everything is found out.
    assert executor.run(TestJob("def f(x): return x + 1", "f", "", CHECK)).outcome == "failed"


@pytest.mark.parametrize("reply", [{"status": "SandboxError", "message": "full"}, {"odd": 1}, []])
def test_a_service_that_fails_is_no_verdict(config, monkeypatch, reply):
    monkeypatch.setattr(Stub, "reply", reply)
    with pytest.raises(
        SandboxUnavailable, match=r"run_code does not execute code.*Start SandboxFusion"
    ):
        detect(config)


def test_a_service_that_is_not_there_is_named():
    with pytest.raises(SandboxUnavailable, match=r"http://127\.0\.0\.1:9/run_code"):
        detect(SandboxConfig(endpoint="http://127.0.0.1:9"))
    with pytest.raises(ValueError, match="must start with http"):
        SandboxConfig(endpoint="somewhere:8080")
