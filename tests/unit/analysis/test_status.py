"""Progress from storage alone."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from rich.console import Console

from codepmp_ray.analysis.status import print_status, recent_rate, stage_status
from codepmp_ray.config.recipe import Recipe, parse_recipe
from codepmp_ray.ledger import ShardCommit
from codepmp_ray.records import REJECTED, table_from_rows
from codepmp_ray.runs import open_stage
from codepmp_ray.shard_stats import shard_stats


def commit_shard(recipe: Recipe, shard: int, at_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = {
        "pairs": pa.table({"chosen_num_tokens": [5, None, 7]}),
        "rejected": table_from_rows(
            [
                {"row_id": "x", "reason": "sides_equal"},
                {"row_id": "y", "reason": "contaminated", "detail": "mbpp: chosen: 10-gram 'a'"},
            ],
            REJECTED,
        ),
    }
    monkeypatch.setattr("codepmp_ray.ledger.time.time", lambda: at_s)
    open_stage(recipe, "synthesis").ledger.commit(shard, 5, tables, shard_stats(tables))


def test_a_stage_that_is_down_tells_how_far_it_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = parse_recipe({"run_dir": str(tmp_path)}, "test")
    stage = open_stage(recipe, "synthesis")
    assert stage_status(stage).state == "missing"
    stage.start(num_shards=10)
    for shard in range(4):
        commit_shard(recipe, shard, 1000.0 + 2 * shard, monkeypatch)
    monkeypatch.setattr("codepmp_ray.analysis.status.time.time", lambda: 1066.0)
    status = stage_status(stage)
    assert status.state == "begun" and status.num_shards_done == 4 and status.num_input_rows == 20
    assert status.rejected == {"sides_equal": 4, "contaminated": 4}
    assert status.contaminated == {"mbpp": {"chosen": 4}}
    assert status.num_tokens == {"chosen_num_tokens": 48}
    assert status.rows_per_s == 2.5  # three shards of 5 rows in the 6 s after the first one
    assert status.eta_s == 12.0 and status.idle_s == 60.0
    console = Console(record=True, width=120)
    print_status(recipe, console)
    text = console.export_text()
    assert "4/10" in text and "4 sides_equal" in text and "not begun" in text
    assert "contaminated by mbpp: 4 chosen" in text
    stage.complete({})
    assert stage_status(stage).state == "complete" and stage_status(stage).eta_s is None


def test_a_pause_does_not_count_in_the_rate() -> None:
    def commit(at_s: float) -> ShardCommit:
        return ShardCommit(0, "a", 10, {}, {}, {}, at_s)

    assert recent_rate([commit(0.0), commit(10_000.0), commit(10_005.0)]) == 2.0
    assert recent_rate([commit(3.0)]) is None and recent_rate([]) is None
