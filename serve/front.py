"""What this project changes in Ray Serve's proxy process, which listens for all applications.

Serve calls `middlewares` there when RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH names it in the
environment of the cluster's nodes. Connections get limits; requests and answers, ours and others',
pass as they are. A job's own service has no proxy (serve/listening.py).
"""

from __future__ import annotations

from starlette.middleware import Middleware

from .connection import guard_connections


def middlewares() -> list[Middleware]:
    """Called by Serve in each proxy process, before it listens. There is none."""
    guard_connections()
    return []
