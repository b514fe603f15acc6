"""A service that a job started ends with that job, also when the job is killed.

Serve's actors are detached: they outlive whoever started them. The job holds an actor of its own,
which Ray ends with the job; the ingress notices and shuts Serve down.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import ray
from ray import serve
from ray.actor import ActorHandle
from ray.exceptions import ActorUnavailableError, RayActorError

from codepmp_ray.cluster.connect import beside_driver

_RETRY_S = 1.0


class _Owner:
    async def stay(self) -> None:
        """Never returns."""
        await asyncio.Event().wait()


def make_owner() -> Any:
    """An actor that lives as long as this process's job, or its handle here."""
    return ray.remote(num_cpus=0, scheduling_strategy=beside_driver())(_Owner).remote()


def end_with(owner: ActorHandle) -> None:
    """Shut Serve down when `owner` is gone. Called in a replica; a thread waits."""

    def wait() -> None:
        while True:
            try:
                ray.get(owner.stay.remote())
            except ActorUnavailableError:  # its node cannot be reached at the moment
                time.sleep(_RETRY_S)
            except RayActorError:
                serve.shutdown()
                return

    threading.Thread(target=wait, daemon=True, name="owner").start()
