"""What `jobs.check` makes of the nodes' answers; the nodes themselves are in tests/cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from codepmp_ray.cluster.check import (
    Finding,
    feasible,
    model_findings,
    sandbox_findings,
    stop_finding,
    storage_findings,
    version_findings,
)
from codepmp_ray.cluster.node_probe import FIRST, SHARED, NodeReport, ProbePlan, probe
from codepmp_ray.cluster.preflight import check_selector
from codepmp_ray.errors import ConfigError, ResourceError
from codepmp_ray.storage import LocalStore

OWN = {"python": "3.11.9", "ray": "2.60.0", "torch": "2.13.0"}
TOKEN = "t" * 32


def report(node: str, **changes: Any) -> NodeReport:
    fields: dict[str, Any] = {"versions": dict(OWN), "sees_shared": True, "free_gb": 50.0}
    return NodeReport(node, **{**fields, **changes})


def states(findings: list[Finding]) -> list[str]:
    return [finding.state for finding in findings]


def test_alike_nodes_are_one_line() -> None:
    (finding,) = version_findings([report("a"), report("b")], OWN)
    assert finding.state == "ok" and "2 nodes alike: python 3.11.9" in finding.detail


def test_every_difference_is_named_with_node_package_and_both_versions() -> None:
    other = report("b", versions={**OWN, "torch": "2.12.0"})
    missing = report("c", versions={"python": "3.11.9", "ray": "2.60.0"})
    findings = version_findings([report("a"), other, missing], OWN)
    assert [finding.detail for finding in findings] == [
        "b has torch 2.12.0, the job 2.13.0",
        "c has torch missing, the job 2.13.0",
    ]
    assert states(findings) == ["FAIL", "FAIL"] and "one image" in findings[0].remedy


def test_shared_storage_is_one_line_with_the_least_space() -> None:
    reports = [report("a", was_first=True), report("b", free_gb=7.0)]
    (finding,) = storage_findings("/runs", reports)
    assert finding.state == "ok" and "2 nodes" in finding.detail and "7 GB" in finding.detail


def test_a_folder_that_is_another_one_elsewhere_fails() -> None:
    reports = [report("a", was_first=True), report("b", was_first=True, sees_shared=False)]
    (finding,) = storage_findings("/runs", reports)
    assert finding.state == "FAIL" and "not the same folder on b" in finding.detail


def test_exclusive_creation_has_to_be_exclusive() -> None:
    reports = [report("a", was_first=True), report("b", was_first=True)]
    (finding,) = storage_findings("/runs", reports)
    assert finding.state == "FAIL" and "succeeded on 2 nodes instead of one" in finding.detail


def test_what_a_node_cannot_write_and_a_full_disk_are_said() -> None:
    reports = [
        report("a", was_first=True, free_gb=0.2),
        report("b", storage_error="Cannot write /runs/x: Read-only file system."),
    ]
    broken, low = storage_findings("/runs", reports)
    assert broken.state == "FAIL" and broken.detail.startswith("b: Cannot write")
    assert low.state == "warn" and "0.20 GB" in low.detail


def test_equal_problems_of_a_model_are_said_once_with_all_nodes() -> None:
    reports = [report(node, models={"x/y": "gated"}) for node in "ab"] + [report("c")]
    gated, fine = model_findings(["x/y", "builtin:z"], reports)
    assert gated.state == "FAIL" and gated.detail == "a, b: gated"
    assert fine.state == "ok" and "builtin:z" in fine.detail


def test_without_a_sandbox_grading_would_fail() -> None:
    assert states(sandbox_findings([report("a")])) == ["ok"]
    assert states(sandbox_findings([report("a", sandbox="nothing works")])) == ["FAIL"]


def test_an_impossible_stage_is_a_finding_with_its_remedy() -> None:
    def impossible() -> str:
        raise ResourceError("needs 64 CPU", "Lower it.")

    assert feasible("synthesis", impossible) == Finding(
        "synthesis", "FAIL", "needs 64 CPU", "Lower it."
    )
    assert feasible("synthesis", lambda: "fine") == Finding("synthesis", "ok", "fine")


def test_the_time_that_ray_gives_a_stopped_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    assert stop_finding(60) == []  # nobody submitted this
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.delenv("RAY_JOB_STOP_WAIT_TIME_S", raising=False)
    (short,) = stop_finding(60)
    assert short.state == "warn" and "waits 3 s" in short.detail and "=70" in short.remedy
    monkeypatch.setenv("RAY_JOB_STOP_WAIT_TIME_S", "70")
    assert states(stop_finding(60)) == ["ok"]


def test_a_probe_writes_reads_and_wins_or_loses(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "scratch")
    store.put(SHARED, TOKEN.encode())
    plan = ProbePlan(store.uri, TOKEN, (), None)
    first, second = probe("a", plan), probe("b", plan)
    assert (first.was_first, second.was_first) == (True, False)
    assert first.sees_shared and second.sees_shared and not first.storage_error
    assert first.versions["python"] and first.free_gb
    assert store.list("") == sorted([FIRST, "node-a", "node-b", SHARED])


def test_a_probe_without_the_driver_s_file_or_the_right_to_write_says_so(tmp_path: Path) -> None:
    assert not probe("a", ProbePlan(str(tmp_path / "own"), TOKEN, (), None)).sees_shared
    (tmp_path / "file").write_text("")
    blocked = probe("a", ProbePlan(str(tmp_path / "file" / "x"), TOKEN, (), None))
    assert "Cannot write" in blocked.storage_error


def test_a_probe_names_models_that_are_not_there(tmp_path: Path) -> None:
    absent, builtin = str(tmp_path / "absent"), "builtin:smollm2-135m-instruct"
    found = probe("a", ProbePlan(str(tmp_path), TOKEN, (absent, builtin, "builtin:x"), None))
    assert set(found.models) == {absent, "builtin:x"}
    assert "does not exist" in found.models[absent] and "Unknown" in found.models["builtin:x"]


@pytest.mark.parametrize("value", ["in()", "in(a", "a b", "!"])
def test_a_label_selector_that_ray_does_not_understand_is_named(value: str) -> None:
    check_selector("engines.weak", {"pool": "!in(a, b)"})
    with pytest.raises(ConfigError, match=r"engines\.weak: label_selector=\{'pool': .*\} is none"):
        check_selector("engines.weak", {"pool": value})
