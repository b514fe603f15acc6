"""What is written is JSON, whatever was measured, and reads back as it was."""

import json
import math
from typing import Any

import numpy as np
import pytest

from codepmp_ray.config.recipe import Recipe
from codepmp_ray.json_records import read_record, record_bytes
from codepmp_ray.runs import open_stage
from codepmp_ray.storage import LocalStore
from codepmp_ray.training.metrics import MetricsLog, read_metrics

NAN, INFINITY = float("nan"), float("inf")


def strictly(text: bytes) -> Any:
    """Parsed as a reader does that knows JSON alone."""

    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_numbers_that_json_lacks_are_null_and_named() -> None:
    record = {
        "step": 3,
        "loss": NAN,
        "logits/chosen": -INFINITY,
        "sets": [{"bon": np.float64(INFINITY)}, {"bon": 0.5}],
        "~": NAN,
    }
    text = record_bytes(record, indent=2)
    assert strictly(text) == {
        "step": 3,
        "loss": None,
        "logits/chosen": None,
        "sets": [{"bon": None}, {"bon": 0.5}],
        "~": None,
        "not_finite": {
            "/loss": "NaN",
            "/logits~1chosen": "-Infinity",
            "/sets/0/bon": "Infinity",
            "/~0": "NaN",
        },
    }
    back = read_record(text)
    assert back.keys() == record.keys()
    assert math.isnan(back["loss"]) and math.isnan(back["~"])
    assert back["logits/chosen"] == -INFINITY and back["sets"] == [{"bon": INFINITY}, {"bon": 0.5}]


@pytest.mark.parametrize("value", [{"a": 1.5, "b": [None, "NaN"]}, {}, [{"a": 1}]])
def test_all_else_is_as_json_has_it(value: Any) -> None:
    assert strictly(record_bytes(value, indent=1)) == value == read_record(record_bytes(value))
    assert record_bytes(value, indent=1) == json.dumps(value, indent=1).encode()


def test_lists_of_records_name_theirs_each() -> None:
    text = record_bytes([{"reward": NAN}, {"reward": 1.0}])
    assert strictly(text) == [{"reward": None, "not_finite": {"/reward": "NaN"}}, {"reward": 1.0}]
    assert math.isnan(read_record(text)[0]["reward"])


def test_metrics_and_the_marker_of_a_stage_are_json(tmp_path) -> None:
    store = LocalStore(tmp_path / "stage")
    log = MetricsLog(store, 0)
    log.append({"step": 1, "loss": NAN, "grad_norm": INFINITY, "skipped": True})
    log.flush()
    written = [strictly(line) for line in store.read_bytes("metrics.jsonl").splitlines()]
    assert [row["loss"] for row in written] == [None]
    (row,) = read_metrics(store)
    assert math.isnan(row["loss"]) and row["grad_norm"] == INFINITY
    MetricsLog(store, 1).flush()  # a resumed run writes its rows again
    assert [strictly(line) for line in store.read_bytes("metrics.jsonl").splitlines()] == written

    stage = open_stage(Recipe(name="a", run_dir=str(tmp_path)), "pretraining")
    stage.complete({"final_loss": NAN, "num_steps": 1})
    marker = strictly(stage.store.read_bytes("complete.json"))
    assert marker["final_loss"] is None and marker["not_finite"] == {"/final_loss": "NaN"}
    assert math.isnan(stage.summary()["final_loss"])
