"""Ray Serve's side of routing.py: a request router that knows prompts and weighs requests."""

from __future__ import annotations

from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from codepmp_ray.scoring.best_of_n import ScoringRequest, num_chars

from .routing import key_of, ranked

_num_replicas: dict[str, int] = {}  # of each deployment that this process routes to


def num_replicas(deployment: str) -> int:
    """Replicas that could be asked now, at least one: requests wait for the first to come."""
    return max(_num_replicas.get(deployment, 1), 1)


class PrefixRouter(RequestRouter):
    """Same prompt, same replica, as long as that one is not busier than the others."""

    def initialize_state(self, **kwargs: Any) -> None:
        # internal request id -> (replica, characters): what this handle has under way.
        self._in_flight: dict[str, tuple[ReplicaID, int]] = {}

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        super().update_replicas(replicas)
        for replica in replicas:
            _num_replicas[replica.replica_id.deployment_id.name] = len(replicas)

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        replicas = {replica.replica_id: replica for replica in candidate_replicas}
        # What a replica had when it went will not be reported as completed.
        self._in_flight = {
            number: entry for number, entry in self._in_flight.items() if entry[0] in replicas
        }
        loads = dict.fromkeys((str(name) for name in replicas), 0)
        for replica_id, cost in self._in_flight.values():
            loads[str(replica_id)] += cost
        key, cost = b"", 0
        if pending_request is not None:
            # Without it Serve would ask again at once, and forever, when all replicas are full.
            pending_request.routing_context.should_backoff = True
            key, cost = _weigh(pending_request)
        by_name = {str(name): replica for name, replica in replicas.items()}
        return [[by_name[name]] for name in ranked(key, loads, cost)]

    def on_request_routed(
        self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any
    ) -> None:
        number = pending_request.metadata.internal_request_id
        self._in_flight[number] = (replica_id, _weigh(pending_request)[1])

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        self._in_flight.pop(internal_request_id, None)


def _weigh(pending: PendingRequest) -> tuple[bytes, int]:
    """Key (of the first prompt) and characters; health checks and the like have neither."""
    requests = pending.args[0] if pending.args else None
    if not isinstance(requests, list) or not isinstance(requests[0], ScoringRequest):
        return b"", 0
    first: ScoringRequest = requests[0]
    # Whole texts have their prompt inside: the beginning of the first one stands for it.
    shared = first.prompt if first.prompt is not None else first.candidates[0][:256]
    return key_of(shared), sum(map(num_chars, requests))
