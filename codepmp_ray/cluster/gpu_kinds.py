"""Which GPUs nodes have, or will have: for plans of memory before anything is started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from codepmp_ray.cluster.node_probe import NodeReport
from codepmp_ray.cluster.placement import NODE_ID_LABEL, Offer, matching

# Ray's own names, of the label or of the resource that it gives a node. Usable memory in bytes as
# the makers' data sheets name it; of a name that stands for several, the smallest.
_BYTES = {
    "T4": 16e9,
    "V100": 16e9,
    "L4": 24e9,
    "A10G": 24e9,
    "A100": 40e9,
    "A100-40G": 40e9,
    "L40S": 48e9,
    "A100-80G": 80e9,
    "H100": 80e9,
    "RTX-PRO-6000": 96e9,
    "H200": 141e9,
    "B200": 192e9,
}
_LABEL, _RESOURCE = "ray.io/accelerator-type", "accelerator_type:"


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU with the bytes of its memory."""

    kind: str
    num_bytes: float

    def describe(self) -> str:
        return f"{self.kind} with {self.num_bytes / 1e9:,.0f} GB"


def least_gpu(
    offers: Sequence[Offer], selector: Mapping[str, str], reports: Sequence[NodeReport] = ()
) -> Gpu | None:
    """The smallest GPU of all nodes and node types that `selector` allows.

    None where there is none, or one whose kind nobody says: then no plan would hold.
    """
    found = [_gpu_of(offer, reports) for offer in matching(offers, selector) if _has_gpu(offer)]
    known = [gpu for gpu in found if gpu is not None]
    if not known or len(known) < len(found):
        return None
    return min(known, key=lambda gpu: gpu.num_bytes)


def _has_gpu(offer: Offer) -> bool:
    return offer.resources.get("GPU", 0) > 0 and offer.num_nodes > 0


def _gpu_of(offer: Offer, reports: Sequence[NodeReport]) -> Gpu | None:
    """As a running node has measured it, else by the name that Ray has for it."""
    node_id = offer.labels.get(NODE_ID_LABEL, "")
    for report in reports:
        if node_id and report.gpu and report.gpu[1] and report.node.endswith(node_id[:6]):
            return Gpu(*report.gpu)
    named = [name.removeprefix(_RESOURCE) for name in offer.resources if _RESOURCE in name]
    kind = offer.labels.get(_LABEL) or (named[0] if named else "")
    return Gpu(kind, _BYTES[kind]) if kind in _BYTES else None
