"""Result files say what was run, where and when, and keep what the benchmark says itself."""

import json
from pathlib import Path

from benchmarks import _results


def test_results_carry_their_circumstances(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(_results, "RESULTS", tmp_path / "results")
    rows = [{"metric": "a", "value": 1}, {"metric": "b", "value": 2, "command": "make b"}]
    path = _results.write_results("speed", rows)
    assert path == tmp_path / "results/speed.json"
    first, second = json.loads(path.read_text())
    assert first["command"].startswith("python -m benchmarks.speed")
    assert (first["metric"], second["command"]) == ("a", "make b")
    for name in ("commit", "hardware", "date"):
        assert first[name]
