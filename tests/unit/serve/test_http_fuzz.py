"""A few hundred requests made from the OpenAPI schema; `make fuzz` sends ten thousand."""

from __future__ import annotations

import pytest

from benchmarks._fake_service import KEY, fake_service
from benchmarks.serve_fuzz import PUBLIC, Fuzzer

NUM_EACH = 8


@pytest.mark.slow
@pytest.mark.slow
def test_every_route_answers_as_its_schema_says() -> None:
    with fake_service() as service:
        fuzzer = Fuzzer(service.url, KEY, random_seed=1)
        fuzzer.run(NUM_EACH)
        before_mb = service.memory_mb()
        fuzzer.run(NUM_EACH)
        found = fuzzer.findings
        assert found.failures == []
        assert found.num_server_errors == 0 and found.longest_s < 10
        assert service.memory_mb() - before_mb < 10
    # It saw all of them, valid and invalid, with a key and without.
    routes = {f"{operation.method.upper()} {operation.path}" for operation in fuzzer.operations}
    assert set(found.num_by_route) == routes and len(routes) >= 10 + len(PUBLIC)
    assert {200, 401, 422} <= set(found.num_by_status)
    assert found.num_by_status[200] > found.num_requests / 10
