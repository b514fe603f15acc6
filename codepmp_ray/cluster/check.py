"""Everything that can be known before a job starts, as findings with remedies.

Every node is asked the same questions by a task that runs there; judging the answers is apart, in
pure functions (`check_findings`), and so is what stages ask of a cluster (`stage_checks`).
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from codepmp_ray.cluster.check_findings import (
    HERE,
    Finding,
    Window,
    clock_findings,
    question_findings,
    silent_findings,
    storage_findings,
    version_findings,
)
from codepmp_ray.cluster.node_probe import (
    SHARED,
    NodeReport,
    ProbePlan,
    Question,
    answers_in_time,
    own_versions,
    probe,
    said,
)
from codepmp_ray.cluster.placement import NODE_TYPE_LABEL, matches
from codepmp_ray.cluster.preflight import cluster_offers
from codepmp_ray.errors import CodePMPError, StorageError
from codepmp_ray.storage import Store, open_store
from codepmp_ray.versions import code_digest

# Beyond the deadline of the questions: a node may have to start a process first.
_START_TIMEOUT_S = 45.0


@dataclass(frozen=True)
class Look:
    """What was found, and what nodes said of themselves."""

    findings: list[Finding]
    reports: list[NodeReport]


def look(run_dir: str, questions: Sequence[Question], own: Sequence[Question] = ()) -> Look:
    """Ask the connected cluster. `own` are questions that only the job itself has to answer."""
    token = uuid.uuid4().hex
    findings = cluster_findings()
    reports, silent, windows = [], {}, {}
    try:
        with scratch_of(run_dir) as folder:
            folder.put(SHARED, token.encode())
            plan = ProbePlan(folder.uri, token, tuple(questions))
            reports, silent, windows = ask_nodes(plan)
    except CodePMPError as error:
        return Look([*findings, Finding("storage", "FAIL", error.problem, error.remedy)], reports)
    findings += version_findings(reports, own_versions(), code_digest())
    findings += clock_findings(reports, windows)
    findings += storage_findings(run_dir, reports, len(silent))
    labels = {node_name(node): node.get("Labels") or {} for node in ray.nodes()}
    for question in questions:
        asked = [r for r in reports if matches(labels.get(r.node, {}), question.label_selector)]
        findings += question_findings(question, asked)
    findings += ask_here(own)
    return Look([*findings, *silent_findings(silent)], reports)


@contextmanager
def scratch_of(run_dir: str) -> Iterator[Store]:
    """A folder of the run that is deleted at the end of the block.

    Raises StorageError where it cannot be named, or is still there then.
    """
    folder = open_store(run_dir).sub(f".check-{uuid.uuid4().hex[:8]}")
    try:
        yield folder
    finally:
        folder.delete_tree("")
    if folder.list(""):
        raise StorageError(
            f"{folder.uri} cannot be deleted.", "Allow jobs to delete below run_dir."
        )


def feasible(subject: str, plan: Callable[[], str]) -> Finding:
    """What `plan` says about one stage, or the error that it raises."""
    try:
        return Finding(subject, "ok", plan())
    except CodePMPError as error:
        return Finding(subject, "FAIL", error.problem, error.remedy)


def ask_here(questions: Sequence[Question]) -> list[Finding]:
    """`questions` for the process of the job, with the deadline of nodes."""
    asked = {question.key: question for question in questions}
    answers = answers_in_time(
        {key: _asking(question) for key, question in asked.items()}, ProbePlan("", "").timeout_s
    )
    report = NodeReport(HERE, answers=answers)
    return [line for question in questions for line in question_findings(question, [report])]


def _asking(question: Question) -> Callable[[], str]:
    return lambda: said(question.ask)


def ask_nodes(
    plan: ProbePlan,
) -> tuple[list[NodeReport], dict[str, str], dict[str, Window]]:
    """Reports of the nodes that answer; why the others did not; between which two moments of this
    machine's clock each report was made."""
    remote = ray.remote(num_cpus=0, max_retries=0)(probe)
    sent_s, give_up_s = time.time(), time.monotonic() + plan.timeout_s + _START_TIMEOUT_S
    asked = {}
    for node in ray.nodes():
        if node["Alive"]:
            wanted = [
                q for q in plan.questions if matches(node.get("Labels") or {}, q.label_selector)
            ]
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            name, own = node_name(node), replace(plan, questions=tuple(wanted))
            asked[remote.options(scheduling_strategy=there).remote(name, own)] = name
    reports, silent, windows = [], {}, {}
    waiting = list(asked)
    while waiting:
        left_s = max(0.0, give_up_s - time.monotonic())
        done, waiting = ray.wait(waiting, num_returns=1, timeout=left_s)
        for reference in done or waiting:
            name = asked[reference]
            try:
                reports.append(ray.get(reference, timeout=0))
                windows[name] = (sent_s, time.time())
            except GetTimeoutError:
                silent[name] = f"nothing within {plan.timeout_s + _START_TIMEOUT_S:.0f} s"
            except RayError as error:
                silent[name] = last_line(error)
        if not done:
            break
    return sorted(reports, key=lambda report: report.node), silent, windows


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


def stop_finding(stop_timeout_s: float) -> Finding:
    """Whether `ray job stop` leaves training, in a submitted job, the time for its last
    checkpoint."""
    wait_s = float(os.environ.get("RAY_JOB_STOP_WAIT_TIME_S", "3"))
    text = f"`ray job stop` waits {wait_s:g} s before SIGKILL, training up to {stop_timeout_s:g} s"
    if wait_s > stop_timeout_s:
        return Finding("stopping", "ok", text)
    remedy = f"Start the head with RAY_JOB_STOP_WAIT_TIME_S={stop_timeout_s + 10:.0f}."
    return Finding("stopping", "warn", f"{text}: the last checkpoint may be lost", remedy)


def last_line(error: BaseException) -> str:
    """Of what Ray raises: the worker's own words, after its traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1]
