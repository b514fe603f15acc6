"""A node provider for Ray's autoscaler whose machines are processes here, each on 127.0.0.N.

What a cloud would do: start a node of a type with its resources and labels, and end it.
One object lives in the head's autoscaler process. Types give CPU, memory and object_store_memory.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from ray.autoscaler.node_provider import NodeProvider
from ray.autoscaler.tags import (
    NODE_KIND_HEAD,
    NODE_KIND_WORKER,
    STATUS_UP_TO_DATE,
    TAG_RAY_NODE_KIND,
    TAG_RAY_NODE_NAME,
    TAG_RAY_NODE_STATUS,
    TAG_RAY_USER_NODE_TYPE,
)

from benchmarks._ray_nodes import MIB, RayNode, start_node

HEAD_ID = "process-head"
_STOP_TIMEOUT_S = 10


class ProcessNodeProvider(NodeProvider):
    """`provider_config`: gcs_address, folder (for logs and session folders), head_node_type."""

    def __init__(self, provider_config: dict[str, Any], cluster_name: str) -> None:
        super().__init__(provider_config, cluster_name)
        self._lock = threading.RLock()
        self._nodes: dict[str, RayNode] = {}
        self._ips = {HEAD_ID: provider_config["gcs_address"].rpartition(":")[0]}
        head_tags = {
            TAG_RAY_NODE_KIND: NODE_KIND_HEAD,
            TAG_RAY_USER_NODE_TYPE: provider_config["head_node_type"],
        }
        self._tags = {HEAD_ID: self._tagged(HEAD_ID, head_tags)}
        self._num_made = 0

    @staticmethod
    def bootstrap_config(cluster_config: dict[str, Any]) -> dict[str, Any]:
        return cluster_config

    def non_terminated_nodes(self, tag_filters: dict[str, str]) -> list[str]:
        with self._lock:
            for name, node in list(self._nodes.items()):
                if not node.is_alive:  # a machine that is gone
                    self._forget(name)
            wanted = tag_filters.items()
            return [name for name, tags in self._tags.items() if wanted <= tags.items()]

    def is_running(self, node_id: str) -> bool:
        return node_id in self.non_terminated_nodes({})

    def is_terminated(self, node_id: str) -> bool:
        return not self.is_running(node_id)

    def node_tags(self, node_id: str) -> dict[str, str]:
        with self._lock:
            return dict(self._tags[node_id])

    def set_node_tags(self, node_id: str, tags: dict[str, str]) -> None:
        with self._lock:
            self._tags[node_id].update(tags)

    def internal_ip(self, node_id: str) -> str:
        return self._ips[node_id]

    def external_ip(self, node_id: str) -> str:
        return self._ips[node_id]

    def create_node(
        self, node_config: dict[str, Any], tags: dict[str, str], count: int
    ) -> dict[str, Any]:
        return self.create_node_with_resources_and_labels(node_config, tags, count, {}, {})

    def create_node_with_resources_and_labels(
        self,
        node_config: dict[str, Any],
        tags: dict[str, str],
        count: int,
        resources: dict[str, float],
        labels: dict[str, str],
    ) -> dict[str, Any]:
        return dict(self._start(tags, dict(resources), labels) for _ in range(count))

    def terminate_node(self, node_id: str) -> None:
        with self._lock:
            node = self._nodes.get(node_id)
            self._forget(node_id)
        if node is not None:
            node.ask_to_stop()
            node.wait(_STOP_TIMEOUT_S)

    def _start(
        self, tags: dict[str, str], resources: dict[str, float], labels: dict[str, str]
    ) -> tuple[str, dict[str, str]]:
        with self._lock:
            self._num_made += 1
            number = self._num_made + 1
            name, address = f"process-{number}", f"127.0.0.{number}"
        node = start_node(
            name,
            Path(self.provider_config["folder"]),
            f"--address={self.provider_config['gcs_address']}",
            f"--memory={int(resources.pop('memory'))}",
            address=address,
            num_cpus=int(resources.pop("CPU", 0)),
            object_store_mib=int(resources.pop("object_store_memory")) // MIB,
            resources=resources,
            labels=labels,
            environment={
                **os.environ,
                "RAY_CLOUD_INSTANCE_ID": name,
                "RAY_NODE_TYPE_NAME": tags[TAG_RAY_USER_NODE_TYPE],
            },
        )
        with self._lock:
            self._nodes[name], self._ips[name] = node, address
            self._tags[name] = self._tagged(name, {**tags, TAG_RAY_NODE_KIND: NODE_KIND_WORKER})
            return name, dict(self._tags[name])

    def _tagged(self, name: str, tags: dict[str, str]) -> dict[str, str]:
        return {**tags, TAG_RAY_NODE_NAME: name, TAG_RAY_NODE_STATUS: STATUS_UP_TO_DATE}

    def _forget(self, name: str) -> None:
        for known in (self._nodes, self._tags, self._ips):
            known.pop(name, None)
