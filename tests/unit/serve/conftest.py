"""The service over a fake scorer, one for all tests of a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from codepmp_ray.serve.app import create_app
from tests.unit.serve.http_fakes import (
    HEADERS,
    SETTINGS,
    FakeBackend,
)


@pytest.fixture(scope="module")
def backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture(scope="module")
def client(backend: FakeBackend) -> Iterator[TestClient]:
    app = create_app(SETTINGS, backend)
    with TestClient(app, raise_server_exceptions=False, headers=HEADERS) as open_client:
        yield open_client
