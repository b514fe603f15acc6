"""What Ray Serve's proxy gets of ours: connections with limits, and nothing between requests."""

from __future__ import annotations

from typing import Any

import pytest
import uvicorn
from ray.serve._private.http_util import validate_http_proxy_callback_return

from codepmp_ray.serve.connection import GuardedProtocol
from codepmp_ray.serve.front import middlewares


def test_serve_gets_guarded_connections_and_no_middleware(monkeypatch: Any) -> None:
    """Other applications of the same Serve have their own answers, headers and websockets."""
    monkeypatch.setattr("uvicorn.config.HTTP_PROTOCOLS", dict(uvicorn.config.HTTP_PROTOCOLS))
    assert validate_http_proxy_callback_return(middlewares()) == []
    config = uvicorn.Config(lambda: None, factory=True)
    config.load()
    assert config.http_protocol_class is GuardedProtocol


@pytest.mark.parametrize(
    ("name", "value", "is_kept"),
    [
        (b"x-other", b"\xff", True),
        (b"\xff", b"a", False),
        (b"X-Session-Id", b"\xff", False),
        (b"serve_multiplexed_model_id", b"\xff", False),
        (b"serve_multiplexed_model_id", b"theirs", True),
        (b"x-request-timeout-seconds", b"5", True),
    ],
)
def test_headers_that_serve_cannot_decode_are_dropped(
    name: bytes, value: bytes, is_kept: bool
) -> None:
    protocol = GuardedProtocol.__new__(GuardedProtocol)
    protocol.headers = []
    protocol.on_header(name, value)
    assert (protocol.headers == [(name.lower(), value)]) is is_kept
