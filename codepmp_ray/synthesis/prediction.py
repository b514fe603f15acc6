"""What a plan said a synthesis stage would take, held against what it took."""

from __future__ import annotations

from typing import Any

from codepmp_ray.json_records import record_bytes, stored_record
from codepmp_ray.runs import Stage
from codepmp_ray.storage import open_store


def save_prediction(stage: Stage, start_s: float, rows_per_s: float) -> None:
    """Keep what was predicted for `stage` beside it."""
    record = {"start_s": round(start_s, 1), "rows_per_s": round(rows_per_s, 4)}
    open_store(stage.recipe.run_dir).put(_name(stage), record_bytes(record))


def prediction_error(stage: Stage, num_rows: int, duration_s: float) -> str:
    """One line on prediction and truth; "" where nothing was predicted."""
    run = open_store(stage.recipe.run_dir)
    if not run.exists(_name(stage)):
        return ""
    found: dict[str, Any] = stored_record(run, _name(stage))
    said_s = found["start_s"] + num_rows / found["rows_per_s"]
    error = (said_s - duration_s) / duration_s
    return (
        f"The plan said {said_s:,.0f} s for {num_rows:,} snippets, the stage took "
        f"{duration_s:,.0f} s: an error of {error:+.0%}."
    )


def _name(stage: Stage) -> str:
    return f"plan-{stage.fingerprint}.json"
