"""What KubeRay's operator asks of its resources, and how it submits a RayJob.

Written anew after `controllers/ray/utils/validation.go` and `controllers/ray/common/job.go` of its
releases 1.6.2 and 1.7.0, as far as our manifests have the keys. No operator runs here; a key that
is not known below has to be looked up there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

CLUSTER_NAME_CHARS = 53
NAME_CHARS = CLUSTER_NAME_CHARS - 6  # of RayJobs and RayServices, whose clusters get a suffix
_DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_QUALIFIED = re.compile(r"([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_OWN_RESOURCES = {"num-cpus", "num-gpus", "memory", "resources"}
_OLD_GCS_VARIABLES = {"RAY_REDIS_ADDRESS", "REDIS_PASSWORD", "REDIS_USERNAME"}
_GCS_VARIABLES = {"RAY_gcs_storage", "RAY_gcs_storage_path"}
_TLS_VARIABLES = {"RAY_USE_TLS", "RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT"}


def problems(document: dict[str, Any], gates: frozenset[str] = frozenset()) -> list[str]:
    """Why the operator refuses it; `gates` are its feature gates that are on."""
    kind, spec = document["kind"], document["spec"]
    name = document["metadata"]["name"]
    most = CLUSTER_NAME_CHARS if kind == "RayCluster" else NAME_CHARS
    found = [] if len(name) <= most else [f"the name {name} has more than {most} characters"]
    if not _DNS_1035.fullmatch(name):
        found.append(f"{name} is no DNS-1035 label")
    if kind == "RayCluster":
        return [*found, *_cluster(spec, gates)]
    if kind == "RayService":
        return [*found, *_cluster(spec["rayClusterConfig"], gates)]
    return [*found, *_job(spec, gates)]


def _job(spec: dict[str, Any], gates: frozenset[str]) -> Iterator[str]:
    shuts_down = spec.get("shutdownAfterJobFinishes", False)
    ttl = spec.get("ttlSecondsAfterFinished", 0)
    if ttl < 0 or (ttl and not shuts_down):
        yield "ttlSecondsAfterFinished needs shutdownAfterJobFinishes"
    selector = spec.get("clusterSelector")
    if spec.get("suspend") and (selector or not shuts_down):
        yield "only a RayJob with a cluster of its own that it shuts down can be suspended"
    if bool(selector) == bool(spec.get("rayClusterSpec")) and not selector:
        yield "one of rayClusterSpec and clusterSelector must be set"
    mode = spec.get("submissionMode", "K8sJobMode")
    if selector is not None:
        if not selector.get("ray.io/cluster"):
            yield "clusterSelector names no cluster"
        if mode == "SidecarMode" or spec.get("backoffLimit"):
            yield "clusterSelector goes with neither SidecarMode nor backoffLimit"
    if mode == "SidecarMode" and ("submitterPodTemplate" in spec or "submitterConfig" in spec):
        yield "SidecarMode takes no submitter settings"
    if spec.get("rayClusterSpec"):
        yield from _cluster(spec["rayClusterSpec"], gates)
    if not isinstance(yaml.safe_load(spec.get("runtimeEnvYAML", "{}")), dict):
        yield "runtimeEnvYAML is no mapping"
    for key in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if spec.get(key, 1) <= 0:
            yield f"{key} is not positive"
    if "deletionStrategy" in spec:
        yield "deletionStrategy is not modelled here"


def _cluster(spec: dict[str, Any], gates: frozenset[str]) -> Iterator[str]:
    head = spec["headGroupSpec"]
    groups = {"head": head, **{g["groupName"]: g for g in spec["workerGroupSpecs"]}}
    if len(groups) != len(spec["workerGroupSpecs"]) + 1:
        yield "two groups have one name"
    v2 = spec.get("enableInTreeAutoscaling") and spec["autoscalerOptions"].get("version") == "v2"
    for name, group in groups.items():
        pod = group["template"]["spec"]
        if not pod.get("containers"):
            yield f"{name} has no container"
        parameters = group.get("rayStartParams", {})
        if group.get("resources") and _OWN_RESOURCES & parameters.keys():
            yield f"{name} says its resources twice"
        if "labels" in parameters:
            yield f"{name} has labels in rayStartParams"
        for key, value in group.get("labels", {}).items():
            if (
                not _QUALIFIED.fullmatch(key)
                or len(value) > 63
                or not _LABEL_VALUE.fullmatch(value)
            ):
                yield f"{name}: {key}={value} is no label of Kubernetes"
        if v2 and pod.get("restartPolicy", "Never") != "Never":
            yield f"{name} restarts its pod, which the second autoscaler does not allow"
        if not 0 <= group.get("minReplicas", 0) <= group.get("maxReplicas", 1 << 30):
            yield f"{name} has minReplicas above maxReplicas"
        if group.get("idleTimeoutSeconds", 0) < 0 or ("idleTimeoutSeconds" in group and not v2):
            yield f"{name}: idleTimeoutSeconds needs the second autoscaler"
        if group.get("priority") and not v2:
            yield f"{name}: priority needs the second autoscaler"
    yield from _gcs(spec, gates)
    if spec.get("authOptions", {}).get("mode") == "token" and not _at_least(spec, (2, 52)):
        yield "token authentication needs Ray 2.52"
    for key, gate in {
        "networkPolicy": "RayClusterNetworkPolicy",
        "tlsOptions": "RayClusterMTLS",
    }.items():
        if key in spec and gate not in gates:
            yield f"{key} needs the feature gate {gate}"
    if "tlsOptions" in spec and _TLS_VARIABLES & _variables(head):
        yield "tlsOptions goes with no TLS variable of one's own"


def _gcs(spec: dict[str, Any], gates: frozenset[str]) -> Iterator[str]:
    options, head = spec.get("gcsFaultToleranceOptions"), spec["headGroupSpec"]
    if _OLD_GCS_VARIABLES & _variables(head):
        yield "addresses of Redis belong into gcsFaultToleranceOptions"
    if options is None:
        return
    if options.get("backend", "redis") == "redis":
        if "storage" in options:
            yield "storage is for the backend rocksdb"
        return
    if "GCSFaultToleranceEmbeddedStorage" not in gates:
        yield "the backend rocksdb needs the feature gate GCSFaultToleranceEmbeddedStorage"
    if options.keys() & {
        "redisAddress",
        "redisUsername",
        "redisPassword",
        "externalStorageNamespace",
    }:
        yield "the backend rocksdb takes no setting of Redis"
    storage = options.get("storage", {})
    if "claimName" in storage and storage.keys() & {"size", "storageClassName", "accessModes"}:
        yield "storage.claimName goes with no other"
    mounts = head["template"]["spec"]["containers"][0].get("volumeMounts", [])
    if _GCS_VARIABLES & _variables(head) or any(m["mountPath"] == "/data/gcs" for m in mounts):
        yield "variables and mount of the backend rocksdb are the operator's"


def _variables(group: dict[str, Any]) -> set[str]:
    return {item["name"] for item in group["template"]["spec"]["containers"][0].get("env", [])}


def _at_least(spec: dict[str, Any], version: tuple[int, int]) -> bool:
    return tuple(map(int, spec.get("rayVersion", "0.0").split(".")[:2])) >= version


def submitter_command(job: dict[str, Any], address: str, submission_id: str) -> list[str]:
    """The command of the submitter's container, as BuildJobSubmitCommand makes it (K8sJobMode)."""
    spec = job["spec"]
    probe = (
        f"python -c \"import urllib.request; r=urllib.request.urlopen('{address}/api/gcs_healthz', "
        "timeout=10); exit(0 if b'success' in r.read() else 1)\""
    )
    words = ["until", probe, ">/dev/null", "2>&1", ";", "do", "echo", go_quoted("Waiting ..."), ";"]
    words += ["sleep", "2", ";", "done", ";", "if", "!", "ray", "job", "status"]
    words += ["--address", address, submission_id, ">/dev/null", "2>&1", ";", "then"]
    words += ["ray", "job", "submit", "--address", address, "--no-wait"]
    if spec.get("runtimeEnvYAML"):
        words += ["--runtime-env-json", go_quoted(_yaml_to_json(spec["runtimeEnvYAML"]))]
    words += ["--submission-id", submission_id, "--", spec["entrypoint"].strip(), ";", "fi", ";"]
    words += ["ray", "job", "logs", "--address", address, "--follow", submission_id]
    return ["/bin/bash", "-ce", "--", " ".join(words)]


def _yaml_to_json(text: str) -> str:
    """As Go writes JSON: no blanks, sorted, with what HTML reads escaped."""
    made = json.dumps(
        yaml.safe_load(text), separators=(",", ":"), sort_keys=True, ensure_ascii=False
    )
    for character in "<>&":
        made = made.replace(character, f"\\u{ord(character):04x}")
    return made


def go_quoted(text: str) -> str:
    """strconv.Quote."""
    short = dict(
        zip('\\"\a\b\f\n\r\t\v', ["\\\\", '\\"', *map("\\{}".format, "abfnrtv")], strict=True)
    )
    return '"' + "".join(short.get(c) or (c if c.isprintable() else _escape(c)) for c in text) + '"'


def _escape(character: str) -> str:
    code = ord(character)
    return (
        f"\\x{code:02x}"
        if code < 0x80
        else f"\\u{code:04x}"
        if code < 0x10000
        else f"\\U{code:08x}"
    )
