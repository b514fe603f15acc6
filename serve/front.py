"""What this project changes in Ray Serve's proxy process, which listens for all applications.

Serve calls `middlewares` there when FRONT_VARIABLE names it in the environment of the cluster's
nodes, as the jobs of this project do for a Ray that they start. Connections get limits; requests
and answers, ours and others', pass as they are.
"""

from __future__ import annotations

import os

from starlette.middleware import Middleware

from .connection import guard_connections

FRONT_VARIABLE = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
FRONT = f"{__package__}.front:middlewares"
# Serve starts a dead proxy again after three failed checks, by default every 10 s.
PROXY_CHECK_VARIABLE = "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S"


def use_front() -> None:
    """For a Ray that this process starts from now on; one that runs has its own environment."""
    os.environ.setdefault(FRONT_VARIABLE, FRONT)
    os.environ.setdefault(PROXY_CHECK_VARIABLE, "1")


def middlewares() -> list[Middleware]:
    """Called by Serve in each proxy process, before it listens. There is none."""
    guard_connections()
    return []
