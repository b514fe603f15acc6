"""Manifests for KubeRay: keys that its resources have, and agreement with what our code asks for.

KubeRay's own schemas are on no registry. The keys below are those that the manifests may use, read
from its v1 resources of release 1.7; whoever adds one looks there.
"""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from codepmp_ray.cluster.placement import Need, matching, offers_of_node_types, require_fit
from codepmp_ray.config.evaluation import ServingConfig
from codepmp_ray.config.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy/kuberay"
RAY_VERSION = re.search(r"ray\[[\w,]+\]==([\d.]+)", (ROOT / "pyproject.toml").read_text("utf-8"))
JOBS = sorted(file.stem for file in (ROOT / "jobs").glob("[a-z]*.py") if file.stem != "submit")


def documents(name: str) -> dict[str, dict[str, Any]]:
    """Kind -> document of one file."""
    text = (FOLDER / name).read_text(encoding="utf-8")
    return {item["kind"]: item for item in yaml.safe_load_all(text)}


CLUSTER = documents("cluster.yaml")["RayCluster"]
SERVICE = documents("service/service.yaml")["RayService"]
JOB = documents("job.yaml")["RayJob"]
SHARED = documents("common/storage.yaml")


def closed(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {**required, **optional},
        "required": list(required),
        "additionalProperties": False,
    }


TEXT, NUMBER, FLAG = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
PROFILE = closed({"type": {"enum": ["RuntimeDefault", "Unconfined"]}})
IMAGES = ["codepmp-ray-cpu", "codepmp-ray-gpu"]
POD = closed(
    {
        "spec": closed(
            {
                "restartPolicy": {"const": "Never"},  # the second autoscaler wants it
                "securityContext": closed(
                    {"runAsNonRoot": FLAG, "runAsUser": NUMBER, "runAsGroup": NUMBER}
                    | {"seccompProfile": PROFILE},
                    appArmorProfile=PROFILE,
                    fsGroup=NUMBER,
                    fsGroupChangePolicy={"const": "OnRootMismatch"},
                ),
                "containers": {
                    "type": "array",
                    "minItems": 1,
                    "items": closed(
                        {
                            "name": TEXT,
                            "image": {"enum": IMAGES},
                            "resources": closed({"limits": TEXTS, "requests": TEXTS}),
                            "securityContext": {"type": "object"},
                        },
                        volumeMounts={"type": "array"},
                        ports={"type": "array"},
                        env={"type": "array"},
                        envFrom={"type": "array"},
                    ),
                },
            },
            volumes={"type": "array"},
            automountServiceAccountToken=FLAG,
            nodeSelector=TEXTS,
            tolerations={"type": "array"},
            terminationGracePeriodSeconds=NUMBER,
            topologySpreadConstraints={"type": "array"},
        )
    },
    metadata=closed({"labels": TEXTS}),
)
CLUSTER_SPEC = closed(
    {
        "rayVersion": {"const": RAY_VERSION and RAY_VERSION[1]},
        "authOptions": closed({"mode": {"const": "token"}, "secretName": TEXT}),
        "enableInTreeAutoscaling": {"const": True},
        "autoscalerOptions": closed(
            {"version": {"const": "v2"}, "idleTimeoutSeconds": NUMBER},
            resources={"type": "object"},
            securityContext={"type": "object"},
        ),
        "headGroupSpec": closed({"rayStartParams": TEXTS, "template": POD}),
        "workerGroupSpecs": {
            "type": "array",
            "minItems": 1,
            "items": closed(
                {
                    "groupName": TEXT,
                    "labels": TEXTS,
                    "replicas": NUMBER,
                    "minReplicas": NUMBER,
                    "maxReplicas": NUMBER,
                    "rayStartParams": {"const": {}},
                    "template": POD,
                }
            ),
        },
    }
)
SPECS = {
    "RayCluster": CLUSTER_SPEC,
    "RayService": closed(
        {"serveConfigV2": TEXT, "rayClusterConfig": CLUSTER_SPEC},
        excludeHeadPodFromServeSvc=FLAG,
        rayClusterDeletionDelaySeconds=NUMBER,
    ),
    "RayJob": closed(
        {
            "clusterSelector": closed({"ray.io/cluster": TEXT}),
            "submissionMode": {"const": "K8sJobMode"},
            "entrypoint": TEXT,
        },
        runtimeEnvYAML=TEXT,
        submitterConfig=closed({"backoffLimit": NUMBER}),
        submitterPodTemplate=POD,
    ),
}
ALL = [CLUSTER, SERVICE, JOB]
CLUSTER_SPECS = {"cluster": CLUSTER["spec"], "service": SERVICE["spec"]["rayClusterConfig"]}


@pytest.mark.parametrize("document", ALL, ids=lambda document: document["kind"])
def test_a_resource_has_known_keys_only(document: dict[str, Any]) -> None:
    assert document["apiVersion"] == "ray.io/v1"
    assert re.fullmatch(r"[a-z][a-z0-9-]*[a-z0-9]", document["metadata"]["name"])
    jsonschema.validate(document["spec"], SPECS[document["kind"]])


def pods(spec: dict[str, Any]) -> list[dict[str, Any]]:
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


@pytest.mark.parametrize("name", CLUSTER_SPECS)
def test_what_pods_mount_is_there(name: str) -> None:
    claims = {SHARED["PersistentVolumeClaim"]["metadata"]["name"]}
    maps = {SHARED["ConfigMap"]["metadata"]["name"]}
    for pod in pods(CLUSTER_SPECS[name]):
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
        for volume in volumes.values():
            assert volume.get("persistentVolumeClaim", {}).get("claimName", *claims) in claims
            assert volume.get("configMap", {}).get("name", *maps) in maps


@pytest.mark.parametrize("name", CLUSTER_SPECS)
def test_pods_with_gpus_have_the_image_and_the_tolerance_for_them(name: str) -> None:
    for pod in pods(CLUSTER_SPECS[name]):
        (container,) = pod["containers"]
        limits = container["resources"]["limits"]
        assert limits == container["resources"]["requests"]  # Ray believes the limits
        has_gpu = int(limits.get("nvidia.com/gpu", 0)) > 0
        assert container["image"] == f"codepmp-ray-{'gpu' if has_gpu else 'cpu'}"
        assert has_gpu == bool(pod.get("tolerations"))


@pytest.mark.parametrize("name", CLUSTER_SPECS)
def test_the_head_has_the_ports_that_kuberay_looks_for(name: str) -> None:
    (container,) = CLUSTER_SPECS[name]["headGroupSpec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    wanted = {"gcs-server": 6379, "dashboard": 8265, "client": 10001, "metrics": 8080}
    assert ports == wanted | ({"serve": 8000} if name == "service" else {})
    environment = {item["name"]: item.get("value") for item in container["env"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert environment["CODEPMP_NODE_TYPES"] == f"{mounts['node-types']}/node-types.yaml"


def worker_groups(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Name -> limits, labels and maximum, as a launcher file says it."""
    found = {}
    for group in spec["workerGroupSpecs"]:
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        gpus = int(limits.get("nvidia.com/gpu", 0))
        found[group["groupName"]] = {
            "max_workers": group["maxReplicas"],
            "resources": {
                "CPU": int(limits["cpu"]),
                **({"GPU": gpus} if gpus else {}),
                "memory": int(limits["memory"].removesuffix("Gi")) << 30,
            },
            "labels": group["labels"],
        }
    return found


def node_types() -> dict[str, Any]:
    return yaml.safe_load(SHARED["ConfigMap"]["data"]["node-types.yaml"])


def test_jobs_are_told_of_the_groups_that_there_are() -> None:
    assert node_types() == worker_groups(CLUSTER["spec"])
    (server,) = worker_groups(SERVICE["spec"]["rayClusterConfig"]).items()
    assert server == ("server", node_types()["server"])


def test_the_groups_are_those_of_the_launcher_file() -> None:
    launcher = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))
    groups = worker_groups(CLUSTER["spec"])
    types = {k: v for k, v in launcher["available_node_types"].items() if k != "head"}
    for key in ("labels", "max_workers"):
        assert {k: v[key] for k, v in groups.items()} == {k: v[key] for k, v in types.items()}
    for name, group in groups.items():
        pod, machine = group["resources"], types[name]["resources"]
        assert pod.get("GPU") == machine.get("GPU")
        # Kubernetes keeps a part of each machine: a pod that asks for all of it fits on none.
        for key in ("CPU", "memory"):
            assert 0.7 * machine[key] <= pod[key] < 1.1 * machine[key] - (key == "CPU")


@pytest.mark.parametrize("name", ["placement.args", "placement-72b.args"])
def test_placement_asks_for_labels_that_the_groups_have(name: str) -> None:
    overrides = (ROOT / "deploy" / name).read_text(encoding="utf-8").split()
    recipe = load_recipe(ROOT / "jobs/recipes/laptop.yaml", overrides)
    offers = offers_of_node_types(node_types(), "storage.yaml")
    engines, grader = recipe.engines, recipe.evaluation.grader
    for section in (engines.strong, engines.weak, recipe.pretraining, recipe.serving, grader):
        assert len(matching(offers, section.label_selector)) == 1


def test_what_is_told_to_stop_gets_the_time_that_its_settings_promise() -> None:
    recipe = load_recipe(ROOT / "jobs/recipes/laptop.yaml")
    stop_s, drain_s = recipe.pretraining.stop_timeout_s, recipe.serving.drain_timeout_s
    head = CLUSTER["spec"]["headGroupSpec"]["template"]["spec"]
    environment = {item["name"]: item["value"] for item in head["containers"][0]["env"]}
    wait_s = int(environment["RAY_JOB_STOP_WAIT_TIME_S"])
    assert head["terminationGracePeriodSeconds"] > wait_s > max(stop_s, drain_s)
    for group in CLUSTER["spec"]["workerGroupSpecs"]:
        if "trainer" in group["groupName"]:
            assert group["template"]["spec"]["terminationGracePeriodSeconds"] > stop_s
    config = yaml.safe_load(SERVICE["spec"]["serveConfigV2"])
    drain_s = config["applications"][0]["args"]["drain_timeout_s"]
    assert SERVICE["spec"]["rayClusterDeletionDelaySeconds"] > drain_s
    for pod in pods(SERVICE["spec"]["rayClusterConfig"]):
        assert pod["terminationGracePeriodSeconds"] > drain_s


def test_the_service_is_one_that_our_code_can_build() -> None:
    config = ServeDeploySchema.model_validate(yaml.safe_load(SERVICE["spec"]["serveConfigV2"]))
    (application,) = config.applications
    module, _, function = application.import_path.partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    serving = ServingConfig.model_validate(application.args)
    (pod,) = [pod for pod in pods(SERVICE["spec"]["rayClusterConfig"]) if pod.get("tolerations")]
    mounts = {m["name"]: m["mountPath"] for m in pod["containers"][0]["volumeMounts"]}
    assert str(serving.model_path).startswith(mounts["runs"] + "/")
    assert str(serving.api_keys_file).startswith(mounts["api-keys"] + "/")
    offers = offers_of_node_types(worker_groups(SERVICE["spec"]["rayClusterConfig"]), "service")
    resources = {"CPU": serving.num_cpus, "GPU": float(serving.num_gpus or 0)}
    most = serving.max_replicas or serving.num_replicas
    require_fit([Need("replicas", resources, most, serving.label_selector)], offers)


def test_the_job_file_itself_names_a_job() -> None:
    words = shlex.split(JOB["spec"]["entrypoint"])
    assert words[2].removeprefix("jobs.") in JOBS
    assert JOB["spec"]["clusterSelector"]["ray.io/cluster"] == CLUSTER["metadata"]["name"]


def test_the_image_is_built_from_what_the_tree_has() -> None:
    text = (ROOT / "deploy/Containerfile").read_text(encoding="utf-8")
    for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE):
        sources = [word for word in line.split()[:-1] if not word.startswith("--")]
        assert sources and all((ROOT / source).exists() for source in sources)
    setup = (ROOT / "scripts/setup.sh").read_text(encoding="utf-8")
    build = "CODEPMP_ACCELERATOR=${ACCELERATOR} CODEPMP_EXTRAS=${EXTRAS} scripts/setup.sh"
    assert build in text and "dev" not in text.partition("ARG EXTRAS=")[2].partition("\n")[0]
    assert "CODEPMP_ACCELERATOR" in setup and "CODEPMP_EXTRAS" in setup
    # Whatever setup builds the environment from comes before it, or it would be built again.
    before = text.partition("scripts/setup.sh \\")[0]
    for name in ("pyproject.toml", "constraints.txt", "overrides.txt", "overrides-cpu.txt"):
        assert name in setup and name in before
    assert " wget " in before  # KubeRay's probe of serving pods


def test_uploads_and_images_leave_out_the_same() -> None:
    def entries(name: str) -> set[str]:
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        return {line.strip("/").removeprefix("**/") for line in lines if line[:1] not in ("#", "")}

    assert entries(".dockerignore") == entries(".rayignore")
