"""The Grafana dashboard asks for what the service, the stages and Ray really export."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from ray.dashboard.modules.metrics import dashboards

from codepmp_ray.cluster import metrics
from codepmp_ray.serve.observation import Metrics

ROOT = Path(__file__).resolve().parents[3]
DASHBOARD = json.loads((ROOT / "deploy/grafana/codepmp.json").read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]
QUERIES = [item["definition"] for item in DASHBOARD["templating"]["list"] if "definition" in item]
FUNCTIONS = {
    *("sum", "rate", "max", "avg", "count", "increase", "histogram_quantile", "by"),
    "label_values",
}
# Of every series: what Prometheus and Ray add, and the buckets of histograms.
COMMON_LABELS = {"instance", "deployment", "le"}


class Recorder:
    """In the place of Ray's metric classes: notes names and labels, and the last values."""

    made: dict[str, set[str]] = {}
    values: dict[str, float] = {}

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        assert description
        self.name = f"ray_{name}{self.suffix}"
        self.made[self.name] = set(tag_keys)

    suffix = ""

    def set_default_tags(self, tags: dict[str, str]) -> None:
        assert set(tags) == self.made[self.name]

    def set(self, value: float) -> None:
        self.values[self.name] = value


class CounterRecorder(Recorder):
    suffix = "_total"  # as tests/cluster/test_synthesis_job.py reads it from a node


@pytest.fixture(scope="module")
def stage_metrics() -> Iterator[dict[str, set[str]]]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(metrics, "Gauge", Recorder)
        patched.setattr(metrics, "Counter", CounterRecorder)
        Recorder.made.clear()
        metrics.EngineMetrics("s", "m")
        metrics._commit_counters.__wrapped__()
        shown = metrics.TrainingMetrics("pretraining")
        shown.show({"loss": 0.5, "mfu": None, "step": 3, "grad_norm": 1, "other": 9})
        yield dict(Recorder.made)


@pytest.fixture(scope="module")
def exported(stage_metrics: dict[str, set[str]]) -> dict[str, set[str] | None]:
    """Name -> labels; None where Ray's own dashboards name it and say no more."""
    service = Metrics()
    service.requests.labels("/v1/bon", "200")
    service.seconds.labels("total")
    service.tokens.labels("prompt")
    found: dict[str, set[str] | None] = {**stage_metrics}
    for family in text_string_to_metric_families(service.text().decode()):
        for sample in family.samples:
            found[sample.name] = set(sample.labels)
    for panels in Path(*dashboards.__path__).glob("*_panels.py"):
        for name in re.findall(r"\bray_[a-z_]+\b", panels.read_text(encoding="utf-8")):
            found.setdefault(name, None)
    return found


def test_it_has_what_provisioning_needs() -> None:
    assert DASHBOARD["id"] is None  # Grafana gives it one
    assert DASHBOARD["uid"] and DASHBOARD["title"] and DASHBOARD["schemaVersion"] >= 36
    assert DASHBOARD["time"] and DASHBOARD["refresh"]
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    titles = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert [title.split()[0].strip(",") for title in titles] == [
        *("Serving", "Synthesis", "Training", "Machines")
    ]
    # No address of a Grafana of ours: the data source is chosen where it is loaded.
    assert DASHBOARD["templating"]["list"][0]["type"] == "datasource"
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    for panel in PANELS:
        assert panel["datasource"] == chosen and panel["targets"], panel["title"]
        assert all(target["datasource"] == chosen for target in panel["targets"])
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs)


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken and place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells


@pytest.mark.parametrize("expression", [*EXPRESSIONS, *QUERIES])
def test_every_figure_exists_and_has_the_labels_that_are_asked_for(
    expression: str, exported: dict[str, Any]
) -> None:
    assert expression.count("(") == expression.count(")")
    if expression in QUERIES:
        expression = re.sub(r"label_values\((\w+), (\w+)\)", r"sum by (\2) (\1)", expression)
    asked = set(re.findall(r"\b(\w+)(?:=~|!=|=)\"", expression))
    for group in re.findall(r"\bby \(([^)]*)\)", expression):
        asked |= {label.strip() for label in group.split(",")}
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\bby \([^)]*\)", " ", expression)
    names = set(re.findall(r"\b[a-z]\w*", bare)) - FUNCTIONS
    assert names and names <= set(exported), sorted(names - set(exported))
    for name in names:
        if (labels := exported[name]) is not None:
            assert asked <= labels | COMMON_LABELS, (name, asked - labels)


def test_the_last_row_of_training_is_shown_as_it_is(stage_metrics: dict[str, set[str]]) -> None:
    assert {
        name.removeprefix("ray_codepmp_training_"): value for name, value in Recorder.values.items()
    } == {"loss": 0.5, "step": 3, "grad_norm": 1}
    described = (ROOT / "docs/data-format.md").read_text(encoding="utf-8")
    for name in metrics.TRAINING_COLUMNS:
        assert f"`{name}`" in described
