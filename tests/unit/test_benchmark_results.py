"""Result files say what was run, where and when, and keep what the benchmark says itself."""

import json
from pathlib import Path

import pytest

from benchmarks import _results


def test_results_carry_their_circumstances(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(_results, "RESULTS", tmp_path / "results")
    row = {"value": 1, "unit": "s", "goal": None, "spread": None, "runs": 1}
    rows = [{**row, "metric": "a"}, {**row, "metric": "b", "command": "make b"}]
    path = _results.write_results("speed", rows)
    assert path == tmp_path / "results/speed.json"
    first, second = json.loads(path.read_text())
    assert first["command"].startswith("python -m benchmarks.speed")
    assert (first["metric"], second["command"]) == ("a", "make b")
    for name in ("commit", "hardware", "date"):
        assert first[name]
    with pytest.raises(ValueError, match="c: no goal"):
        _results.write_results(
            "speed", [{**{k: row[k] for k in row if k != "goal"}, "metric": "c"}]
        )
