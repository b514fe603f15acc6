"""A client of a running cluster's jobs API: where it is, and with which token it is asked."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from codepmp_ray.errors import ResourceError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

DEFAULT_ADDRESS = "http://127.0.0.1:8265"  # where `ray dashboard` forwards the jobs API to


def connect_client(address: str | None = None) -> JobSubmissionClient:
    """The jobs API at `address`, or $RAY_API_SERVER_ADDRESS, or where `ray dashboard` puts it.

    A token at hand (RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token) is used. Raises
    ResourceError when nothing answers there, or not to this token.
    """
    chosen = address or os.environ.get("RAY_API_SERVER_ADDRESS") or DEFAULT_ADDRESS
    if "RAY_AUTH_MODE" not in os.environ and _has_token():
        # Ray decides about tokens when it is imported, and leaves them out for a given address.
        os.environ["RAY_AUTH_MODE"] = "token"
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    # They narrate each file that is left out and each connection that closes.
    modules = "ray.dashboard.modules"
    for name in ("ray", f"{modules}.dashboard_sdk", f"{modules}.job.sdk"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        return JobSubmissionClient(chosen)
    except AuthenticationError as error:
        raise ResourceError(
            f"The cluster at {chosen} does not accept this client's token "
            f"({str(error).splitlines()[0]}).",
            "Put the cluster's token into RAY_AUTH_TOKEN or ~/.ray/auth_token, and set "
            "RAY_AUTH_MODE=token. An authentication failure never starts a job.",
        ) from error
    except (OSError, RuntimeError) as error:  # whatever requests raises is an OSError
        raise ResourceError(
            f"No Ray cluster answers at {chosen} ({first_line(error)}).",
            "Forward it with `ray dashboard cluster.yaml` (or kubectl port-forward), or name it "
            "with --address or RAY_API_SERVER_ADDRESS.",
        ) from error


def first_line(error: BaseException) -> str:
    """What an error says, without what follows."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _has_token() -> bool:
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return True
    return (Path.home() / ".ray" / "auth_token").is_file()
