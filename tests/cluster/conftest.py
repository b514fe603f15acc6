"""One Ray for the files that need nothing special of it; the others have one of their own."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager

import pytest
import ray

from codepmp_ray.cluster.connect import connect
from tests.s3_server import S3Server

_shared = ExitStack()


@pytest.fixture
def ray_cluster(s3_server: S3Server) -> None:
    """A Ray that later tests use as well. Its workers inherit the address of the S3 server."""
    if not ray.is_initialized():
        environment = _shared.enter_context(pytest.MonkeyPatch.context())
        # Each process reports its metrics so often that none ends before it has.
        environment.setenv("RAY_metrics_report_interval_ms", "200")
        _shared.enter_context(connect())


@contextmanager
def _own_ray() -> Iterator[None]:
    _shared.close()
    with connect():
        yield


@pytest.fixture(scope="module")
def own_ray() -> Iterator[None]:
    """A Ray of this file alone, with the environment of its tests."""
    with _own_ray():
        yield


@pytest.fixture
def fresh_ray() -> Iterator[None]:
    """A Ray of this test alone, so that what a failed one leaves running ends with it."""
    with _own_ray():
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a failed test has left running ends, and does not hold up the next one."""
    report = yield
    if report.failed:
        _shared.close()
    return report


def pytest_sessionfinish() -> None:
    _shared.close()
