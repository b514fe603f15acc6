"""Which nodes can hold which actors: needs against offers, by resources and labels. No Ray here.

An autoscaling cluster offers nodes that do not exist yet, so a kind of node is an offer with the
number of nodes that there may be.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from codepmp_ray.errors import ConfigError, ResourceError

# Ray gives every node this label, from the node type (KubeRay: the worker group) that it came from.
NODE_TYPE_LABEL = "ray.io/node-group"
NODE_ID_LABEL = "ray.io/node-id"  # and this one
_SLACK = 1e-9


@dataclass(frozen=True)
class Offer:
    """Nodes of one kind: `resources` of each, and how many there may be (infinity: no limit)."""

    name: str
    resources: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)
    num_nodes: float = 1


@dataclass(frozen=True)
class Need:
    """`count` actors, each of `resources` on one node that `label_selector` allows.

    `remedy` says what to change when they do not fit.
    """

    what: str
    resources: Mapping[str, float]
    count: int = 1
    label_selector: Mapping[str, str] = field(default_factory=dict)
    remedy: str = ""

    def describe(self) -> str:
        """For people: "2 x (1 CPU, 1 GPU) labelled a=b"."""
        amounts = ", ".join(f"{n:g} {name}" for name, n in self.resources.items() if n)
        return f"{self.count} x ({amounts}){_where(self.label_selector)}"


def matches(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Whether a node with `labels` satisfies `selector`, in Ray's language.

    Values are `x`, `!x`, `in(x, y)` or `!in(x, y)`; a label that is missing is not any of them.
    """
    return all(_condition(labels.get(name), text) for name, text in selector.items())


def matching(offers: Sequence[Offer], selector: Mapping[str, str]) -> list[Offer]:
    return [offer for offer in offers if matches(offer.labels, selector)]


def total(offers: Sequence[Offer]) -> dict[str, float]:
    """All resources of all nodes that may exist."""
    found: dict[str, float] = {}
    for offer in offers:
        if offer.num_nodes:  # infinity times zero is no number
            for name, amount in offer.resources.items():
                found[name] = found.get(name, 0.0) + (amount and amount * offer.num_nodes)
    return found


def require_fit(needs: Sequence[Need], offers: Sequence[Offer]) -> None:
    """Raise ResourceError for needs that the offers can never meet: Ray would wait forever.

    Checked are labels, the largest single actor, and sums for each label selector and over all.
    Fragmentation is not: what passes here may still have to wait for its neighbours.
    """
    for need in needs:
        _require_node(need, offers)
    groups: dict[tuple[tuple[str, str], ...], list[Need]] = {}
    for need in needs:
        groups.setdefault(tuple(sorted(need.label_selector.items())), []).append(need)
    for key, group in groups.items():
        _require_total(group, matching(offers, dict(key)), _where(dict(key)))
    if len(groups) > 1:
        _require_total(needs, offers, "")


def offers_of_node_types(document: Any, origin: str) -> list[Offer]:
    """Offers of a launcher file: its `available_node_types`, or a mapping of such types.

    Raises ConfigError for anything else.
    """
    types = document.get("available_node_types", document) if isinstance(document, dict) else None
    if not isinstance(types, dict) or not all(
        isinstance(node, dict) and isinstance(node.get("resources", {}), dict)
        for node in types.values()
    ):
        raise ConfigError(
            f"{origin} describes no node types.",
            "Write NAME: {resources: {CPU: 8}, max_workers: 4, labels: {...}}, as in cluster.yaml.",
        )
    limit = document.get("max_workers", math.inf) if types is not document else math.inf
    head = document.get("head_node_type") if types is not document else None
    return [
        Offer(
            name,
            {key: float(amount) for key, amount in node.get("resources", {}).items()},
            {NODE_TYPE_LABEL: name, **node.get("labels", {})},
            min(node.get("max_workers", 0 if name == head else limit), limit),
        )
        for name, node in types.items()
    ]


def combine(running: Sequence[Offer], types: Sequence[Offer]) -> list[Offer]:
    """Nodes that run and nodes that may come, each counted once.

    Running nodes of a known type stand for themselves; the type then offers the rest of its limit.
    """
    num_running: dict[str, int] = {}
    for node in running:
        name = node.labels.get(NODE_TYPE_LABEL, "")
        num_running[name] = num_running.get(name, 0) + 1
    to_come = [
        Offer(
            kind.name, kind.resources, kind.labels, kind.num_nodes - num_running.get(kind.name, 0)
        )
        for kind in types
    ]
    return [*running, *(offer for offer in to_come if offer.num_nodes > 0)]


def _condition(value: str | None, text: str) -> bool:
    negated = text.startswith("!")
    text = text.removeprefix("!")
    allowed = {text}
    if text.startswith("in(") and text.endswith(")"):
        allowed = {item.strip() for item in text[len("in(") : -1].split(",")}
    return (value in allowed) is not negated


def _require_node(need: Need, offers: Sequence[Offer]) -> None:
    allowed = matching(offers, need.label_selector)
    if not allowed:
        raise ResourceError(
            f"{need.what}: no node or node type is labelled {_text(need.label_selector)}; there "
            f"are {_labels_of(offers, need.label_selector)}.",
            "Label the nodes (ray start --labels, or labels of the node type), or change "
            "label_selector; {} takes any node.",
        )
    if any(_holds(offer, need.resources) for offer in allowed):
        return
    for name, amount in need.resources.items():
        largest = max(offer.resources.get(name, 0.0) for offer in allowed)
        if amount > largest + _SLACK:
            one = "one actor" if need.count > 1 else "it"
            raise ResourceError(
                f"{need.what}: {one} needs {amount:g} {name} on one node, but the largest node"
                f"{_where(need.label_selector)} has {largest:g}.",
                need.remedy,
            )
    raise ResourceError(
        f"{need.what}: no single node{_where(need.label_selector)} has {_text(need.resources)}.",
        need.remedy,
    )


def _require_total(needs: Sequence[Need], offers: Sequence[Offer], where: str) -> None:
    have = total(offers)
    for name in sorted({name for need in needs for name in need.resources}):
        amount = sum(need.resources.get(name, 0.0) * need.count for need in needs)
        if amount > have.get(name, 0.0) + _SLACK:
            together = " together" if len(needs) > 1 else ""
            verb = "need" if len(needs) > 1 else "needs"
            raise ResourceError(
                f"{' and '.join(need.what for need in needs)}{together} {verb} {amount:g} {name}, "
                f"but the cluster has {have.get(name, 0.0):g}{where}.",
                " ".join(dict.fromkeys(need.remedy for need in needs if need.remedy)),
            )


def _holds(offer: Offer, resources: Mapping[str, float]) -> bool:
    return all(
        amount <= offer.resources.get(name, 0.0) + _SLACK for name, amount in resources.items()
    )


def _where(selector: Mapping[str, str]) -> str:
    return f" labelled {_text(selector)}" if selector else ""


def _text(pairs: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in pairs.items())


def _labels_of(offers: Sequence[Offer], selector: Mapping[str, str]) -> str:
    """The values that the selector's labels do have."""
    seen = sorted(
        {
            f"{name}={offer.labels[name]}"
            for name in selector
            for offer in offers
            if name in offer.labels
        }
    )
    return ", ".join(seen) or f"no nodes with the label {', '.join(selector)}"
