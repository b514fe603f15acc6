"""What an operator, an admission controller and Prometheus ask of the manifests."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kuberay_rules import problems

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy/kuberay"
CONTAINERFILE = (ROOT / "deploy/Containerfile").read_text(encoding="utf-8")
EMBEDDED = frozenset({"GCSFaultToleranceEmbeddedStorage"})


def documents(file: Path) -> list[dict[str, Any]]:
    return [item for item in yaml.safe_load_all(file.read_text(encoding="utf-8")) if item]


RESOURCES = [
    item
    for file in sorted(FOLDER.rglob("*.yaml"))
    if file.name != "kustomization.yaml"
    for item in documents(file)
]
RAY = [item for item in RESOURCES if item["apiVersion"] == "ray.io/v1"]
IMAGES = documents(FOLDER / "images/kustomization.yaml")[0]["images"]


def pods(node: Any, path: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Every pod's spec below `node`, with the way to it; groups by their names."""
    if isinstance(node, list):
        items = [item for item in node if isinstance(item, dict)]
        return [pod for item in items for pod in pods(item, f"{path}/{item.get('groupName', '')}")]
    if not isinstance(node, dict):
        return []
    own = [(path, node)] if "containers" in node else []
    return own + [pod for key, item in node.items() for pod in pods(item, f"{path}/{key}")]


PODS = {f"{item['kind']}{path}": pod for item in RAY for path, pod in pods(item["spec"])}


def test_there_are_the_resources_that_the_docs_name() -> None:
    kinds = {item["kind"] for item in RESOURCES}
    assert {"RayCluster", "RayJob", "RayService"} == {item["kind"] for item in RAY}
    assert {"NetworkPolicy", "PodDisruptionBudget", "PodMonitor", "PrometheusRule"} <= kinds
    assert len(PODS) == 12


@pytest.mark.parametrize("document", RAY, ids=lambda document: document["kind"])
def test_the_operator_takes_it(document: dict[str, Any]) -> None:
    assert problems(document) == []


@pytest.mark.parametrize("name", PODS)
def test_the_restricted_standard_admits_the_pod(name: str) -> None:
    """Of Kubernetes' Pod Security Standards, the strictest; but for pods that execute answers."""
    pod = PODS[name]
    context = pod["securityContext"]
    profile = "Unconfined" if "/grader/" in name else "RuntimeDefault"
    assert context["runAsNonRoot"] is True and context["runAsUser"] >= 1000
    assert context["seccompProfile"]["type"] == profile
    assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}
    allowed = {"configMap", "emptyDir", "persistentVolumeClaim", "secret", "projected"}
    assert all(volume.keys() - {"name"} <= allowed for volume in pod.get("volumes", []))
    for container in pod["containers"]:
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False and own["capabilities"] == {"drop": ["ALL"]}
        assert not own.keys() & {"privileged", "procMount"}


@pytest.mark.parametrize("name", PODS)
def test_a_pod_holds_what_it_needs_and_no_more(name: str) -> None:
    pod = PODS[name]
    is_head = "headGroupSpec" in name
    # The autoscaler in the head's pod asks Kubernetes for pods; nobody else talks to it.
    assert pod.get("automountServiceAccountToken", True) is is_head
    secrets = {
        source["secretRef"]["name"]
        for container in pod["containers"]
        for source in container.get("envFrom", [])
    }
    assert ("codepmp-api-key" in secrets) == (is_head and name.startswith("RayCluster"))
    assert not secrets or "/grader/" not in name
    limits = pod["containers"][0]["resources"]["limits"]
    caches = [
        int(volume["emptyDir"]["sizeLimit"].removesuffix("Gi"))
        for volume in pod.get("volumes", [])
        if "emptyDir" in volume and volume["emptyDir"].get("medium") != "Memory"
    ]
    # What lies in an emptyDir counts: a pod that is over its limit is evicted.
    assert int(limits["ephemeral-storage"].removesuffix("Gi")) > sum(caches)
    if any("persistentVolumeClaim" in volume for volume in pod.get("volumes", [])):
        assert pod["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"


def test_every_image_is_set_by_digest_in_one_place() -> None:
    used = {container["image"] for pod in PODS.values() for container in pod["containers"]}
    assert used == {image["name"] for image in IMAGES}
    assert not any(set(name) & set(":@/") for name in used)
    for image in IMAGES:
        assert image.keys() == {"name", "newName", "digest"}  # newTag would be a name that moves
        assert image["digest"].startswith("sha256:") and ":" not in image["newName"]
    for file in FOLDER.rglob("kustomization.yaml"):
        (kustomization,) = documents(file)
        assert file.parent.name == "images" or "images" not in kustomization
        names_pods = any("kind: Ray" in (file.parent / item).read_text(encoding="utf-8")
                         for item in kustomization.get("resources", [])
                         if item.endswith(".yaml"))  # fmt: skip
        assert not names_pods or "components" in kustomization


def test_no_file_of_the_deployment_names_a_tag_that_moves() -> None:
    for file in (ROOT / "deploy").rglob("*"):
        if file.is_file():
            text = file.read_text(encoding="utf-8")
            assert not re.search(r":latest\b|newTag|imagePullPolicy: Always", text), file


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl renders kustomizations")
@pytest.mark.parametrize("name", [".", "service", "gcs-fault-tolerance"])
def test_what_kubectl_makes_of_it_has_digests_and_passes(name: str) -> None:
    made = subprocess.run(
        ["kubectl", "kustomize", str(FOLDER / name)], capture_output=True, text=True, check=True
    ).stdout
    found = [item for item in yaml.safe_load_all(made) if item["apiVersion"] == "ray.io/v1"]
    assert len(found) == 1 and problems(found[0], EMBEDDED) == []
    is_tolerant = "gcsFaultToleranceOptions" in made
    assert is_tolerant == (name == "gcs-fault-tolerance")
    assert bool(problems(found[0])) == is_tolerant  # the gate is off by default
    images = [c["image"] for _, pod in pods(found[0]["spec"]) for c in pod["containers"]]
    assert images and all("@sha256:" in image for image in images)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (lambda spec: spec["workerGroupSpecs"][0].update(minReplicas=99), "minReplicas above"),
        (lambda spec: spec["workerGroupSpecs"][0].update(labels={"a b": "c"}), "no label"),
        (lambda spec: spec["workerGroupSpecs"][0]["template"]["spec"].update(
            restartPolicy="Always"), "restarts its pod"),
        (lambda spec: spec["headGroupSpec"]["rayStartParams"].update(labels="a=b"), "labels in"),
        (lambda spec: spec.update(rayVersion="2.9.0"), "needs Ray 2.52"),
        (lambda spec: spec.update(networkPolicy={}), "feature gate"),
        (lambda spec: spec.update(gcsFaultToleranceOptions={"storage": {}}), "rocksdb"),
    ],
)  # fmt: skip
def test_the_rules_can_refuse_a_cluster(changed: Any, said: str) -> None:
    (document,) = documents(FOLDER / "cluster.yaml")
    changed(document["spec"])
    assert said in "; ".join(problems(document))


def test_policies_and_budgets_select_pods_that_there_are() -> None:
    groups = [
        group
        for item in RAY
        if item["kind"] != "RayJob"
        for spec in [item["spec"].get("rayClusterConfig", item["spec"])]
        for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    ]
    parts = {group["template"]["metadata"]["labels"]["codepmp/part"] for group in groups}
    for item in RESOURCES:
        if item["kind"] in ("NetworkPolicy", "PodDisruptionBudget"):
            spec = item["spec"]
            chosen = spec.get("selector") or spec["podSelector"]
            part = chosen.get("matchLabels", {}).get("codepmp/part")
            assert part is None or part in parts


def test_alerts_ask_for_figures_that_there_are() -> None:
    """Those of the dashboard, and two that Prometheus and Ray have."""
    dashboard = (ROOT / "deploy/grafana/codepmp.json").read_text(encoding="utf-8")
    (rules,) = [item for item in RESOURCES if item["kind"] == "PrometheusRule"]
    alerts = [rule for group in rules["spec"]["groups"] for rule in group["rules"]]
    assert len(alerts) >= 8
    for alert in alerts:
        assert alert["annotations"]["summary"] and alert["labels"]["severity"] in ("page", "ticket")
        names = set(re.findall(r"\b(?:ray_)?(?:codepmp|node)_\w+\b", alert["expr"]))
        known = {name for name in names if name in dashboard}
        assert names - known <= {"ray_node_disk_utilization_percentage"}
        assert names or "up{" in alert["expr"]


def test_the_image_sets_what_serve_s_proxies_need() -> None:
    variables = dict(re.findall(r"\b([A-Za-z_]+)=([^\s\\]+)", CONTAINERFILE.partition("\nENV ")[2]))
    module, _, function = variables["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    assert variables["RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S"] == "1"
    extras = re.search(r"^ARG EXTRAS=(\S*)", CONTAINERFILE, re.MULTILINE)
    assert extras and "dev" not in extras[1].split(",")


def test_resources_that_the_docs_show_pass_too() -> None:
    text = (ROOT / "docs/kueue.md").read_text(encoding="utf-8")
    shown = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    assert [document["kind"] for document in shown] == ["RayJob"]
    assert not problems(shown[0]) and shown[0]["spec"]["suspend"]
    shown[0]["spec"]["clusterSelector"] = {"ray.io/cluster": "codepmp"}
    assert "suspended" in "; ".join(problems(shown[0]))  # why it is not a job on our cluster
