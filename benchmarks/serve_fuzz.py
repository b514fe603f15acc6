"""The HTTP interface under requests made from its own OpenAPI schema, valid and invalid ones.

Half of the valid ones are made likely to be scored: the schema cannot say that a request names the
served model, or only one of two fields. Each answer is checked against the schema; none may be a
server error. Beside them go the same requests without a key, which must all be 401.

    python -m benchmarks.serve_fuzz [--requests 10000] [--url URL --key KEY]

Without --url the application runs over a fake scorer in a process of its own, whose memory is
reported: after the first fifth of the requests, and at the end.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi import checks

from benchmarks._fake_service import KEY, fake_service
from benchmarks._results import one_result, options, write_results
from codepmp_ray.serve.dialect_fields import UNSUPPORTED

PUBLIC = ("/health", "/ready")
# Routes that share a handler with one that the schema shows.
ALIASES = {
    "/classify": ["/v1/classify"],
    "/score": ["/v1/score"],
    "/rerank": ["/v1/rerank", "/v2/rerank"],
}
_CHOICES = [("prompt", "messages"), ("input", "messages"), ("text", "input_ids", "input")]
_CHOICES += [("requests", "candidates")]
# Half of the valid bodies leave out what the service has to refuse, unless it is said otherwise.
_REFUSED = sorted(UNSUPPORTED)


@dataclass
class Findings:
    """What came back."""

    num_by_status: Counter[int] = field(default_factory=Counter)
    num_by_route: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    longest_s: float = 0.0

    @property
    def num_requests(self) -> int:
        return self.num_by_status.total()

    @property
    def num_server_errors(self) -> int:
        return sum(count for status, count in self.num_by_status.items() if status >= 500)


class Fuzzer:
    """Sends what the schema of the service at `url` describes.

    Args:
        random_seed: of the requests; equal seeds give equal requests.
    """

    def __init__(self, url: str, key: str, random_seed: int = 0, timeout_s: float = 30.0) -> None:
        self._url, self._headers, self._timeout_s = url, {"x-api-key": key}, timeout_s
        self._session = requests.Session()
        self._session.trust_env = False
        self._random = random.Random(random_seed)
        found = self._session.get(f"{url}/openapi.json", headers=self._headers, timeout=timeout_s)
        found.raise_for_status()
        document = found.json()
        self.model = self._session.get(
            f"{url}/v1/models", headers=self._headers, timeout=timeout_s
        ).json()["data"][0]["id"]
        for path, others in ALIASES.items():
            document["paths"].update(dict.fromkeys(others, document["paths"][path]))
        schema = schemathesis.openapi.from_dict(document)
        self.operations = [result.ok() for result in schema.get_all_operations()]
        self.findings = Findings()

    def run(self, num_each: int, after: Callable[[], None] = lambda: None) -> None:
        """`num_each` requests of every operation that has a body, half of them valid.

        Operations without one are called a few times. `after` is called after each request.
        """
        for operation in self.operations:
            if not operation.body:
                for name in (self.model, "another/model", "\u00fc"):
                    # The one thing that a path of ours may name is a model.
                    self._send(operation.Case(path_parameters={"name": name}), after)
                continue
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                self._run_mode(operation, mode, max(num_each // 2, 1), after)

    def _run_mode(
        self, operation: Any, mode: GenerationMode, num: int, after: Callable[[], None]
    ) -> None:
        @seed(self._random.getrandbits(32))
        @settings(
            max_examples=num,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def send(case: Case) -> None:
            if mode is GenerationMode.POSITIVE and self._random.random() < 0.5:
                make_plausible(case.body, self.model, self._random)
            self._send(case, after)

        send()

    def _send(self, case: Case, after: Callable[[], None]) -> None:
        has_key = self._random.random() < 0.9
        route = f"{case.method} {case.path}"
        start_s = time.monotonic()
        try:
            response = case.call(
                base_url=self._url,
                headers=self._headers if has_key else {},
                session=self._session,
                timeout=self._timeout_s,
            )
        except requests.RequestException as error:
            self.findings.failures.append(f"{route}: {type(error).__name__}")
            return
        finally:
            seconds = time.monotonic() - start_s
            self.findings.longest_s = max(self.findings.longest_s, seconds)
        status = response.status_code
        self.findings.num_by_status[status] += 1
        self.findings.num_by_route[route] += 1
        if not has_key and case.path not in PUBLIC and status != 401:
            self.findings.failures.append(f"{route}: {status} without a key")
        try:
            case.validate_response(
                response,
                checks=[
                    schemathesis.checks.not_a_server_error,
                    checks.status_code_conformance,
                    checks.content_type_conformance,
                    checks.response_schema_conformance,
                ],
            )
        except AssertionError as error:
            self.findings.failures.append(f"{route}: {' '.join(str(error).split())[:400]}")
        after()


def make_plausible(body: Any, model: str, choice: random.Random) -> None:
    """Take out of a valid body what the schema allows and the service must refuse."""
    if not isinstance(body, dict):
        return
    for names in _CHOICES:
        given_names = [name for name in names if body.get(name) is not None]
        for name in given_names[1:] if choice.random() < 0.5 else given_names[:-1]:
            del body[name]
    for name in _REFUSED:
        body.pop(name, None)
    if "model" in body:
        body["model"] = choice.choice([None, model])


@contextmanager
def target(url: str | None, key: str) -> Iterator[tuple[str, Callable[[], float] | None]]:
    """Address of the service, and its memory in MiB where it is ours."""
    if url is not None:
        yield url, None
        return
    with fake_service() as service:
        yield service.url, service.memory_mb


def measure(url: str | None, key: str, num_requests: int, seed_of_run: int) -> list[dict[str, Any]]:
    with target(url, key) as (address, memory_mb):
        fuzzer = Fuzzer(address, key, seed_of_run)
        memory: list[float] = []

        def after() -> None:
            number = fuzzer.findings.num_requests
            if memory_mb is not None and (number == num_requests // 5):
                memory.append(memory_mb())
            if number % 1000 == 0:
                print(f"{number} requests: {dict(fuzzer.findings.num_by_status)}", flush=True)

        num_bodies = sum(bool(operation.body) for operation in fuzzer.operations)
        while fuzzer.findings.num_requests < num_requests:
            # In rounds, so that a slow growth is not hidden by the order of the routes.
            fuzzer.run(max(num_requests // num_bodies // 10, 2), after)
        if memory_mb is not None:
            memory.append(memory_mb())
    found = fuzzer.findings
    for failure in found.failures[:20]:
        print(failure)
    common = {"seed": seed_of_run}
    results: list[dict[str, Any]] = [
        one_result(
            "fuzz_failures",
            len(found.failures),
            f"of {found.num_requests} requests",
            0,
            **common,
            by_status={str(s): n for s, n in sorted(found.num_by_status.items())},
            by_route=dict(sorted(found.num_by_route.items())),
        ),
        one_result("fuzz_longest_request", round(found.longest_s, 3), "s", **common),
    ]
    if memory:
        results.append(
            one_result(
                "fuzz_memory_growth",
                round(memory[-1] - memory[0], 1),
                f"MiB, from {memory[0]:.0f} MiB after a fifth of the requests",
                **common,
            )
        )
    return results


def main() -> None:
    parser = options(__doc__, requests=10_000, seed=0)
    parser.add_argument("--url", help="of a running service, instead of one with a fake scorer")
    parser.add_argument("--key", default=KEY)
    arguments = parser.parse_args()
    results = measure(arguments.url, arguments.key, arguments.requests, arguments.seed)
    if arguments.url is None:
        write_results("serve_fuzz", results)
    else:
        print(results)


if __name__ == "__main__":
    main()
