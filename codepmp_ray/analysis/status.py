"""How far a run is, from storage alone: also while its jobs are down, and from any machine."""

from __future__ import annotations

import calendar
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.console import Console
from rich.text import Text

from codepmp_ray.analysis.text import duration, terminal_table, visible
from codepmp_ray.analysis.trainlog import load_training, number
from codepmp_ray.attempts import last_attempt
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.corpus.keep_index import band_names
from codepmp_ray.corpus.planning import DUPLICATES, EXTRACTED, num_units
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.other_settings import OtherStage, other_stages
from codepmp_ray.runs import Stage, require_run, stages_of_run
from codepmp_ray.shard_markers import ShardCommit, Totals
from codepmp_ray.shard_stats import contamination_hits, rejects_by_reason, token_sums

# The rate is that of the last commits, as far back as this, and of the last attempt.
RATE_WINDOW_S = 900.0
_RATE_STEPS = 50
# Of how many shards the files are listed each time; codepmp verify looks at any number.
_MAX_LISTED_SHARDS = 100_000


@dataclass(frozen=True)
class StageStatus:
    """One stage as its folder shows it. Rates and ETA are None where nothing can be said.

    Attributes:
        state: "missing", "begun", "complete", or "damaged": complete, but with less in its files
            than their markers say.
        doing: what a stage of several rounds is at.
        part: what `num_parts` counts: shards, units of files, rounds, steps.
        per_s: of `rate_of` (rows or steps) in a second: those that ended in the window before the
            last commit, over the time since it began or, if that was later, the last attempt.
        contaminated: evaluation set -> side -> rows that left because of it.
        idle_s: time since the last commit.
    """

    name: str
    state: str
    doing: str = ""
    part: str = "shards"
    num_parts: int | None = None
    num_parts_done: int = 0
    num_input_rows: int = 0
    rejected: dict[str, int] | None = None
    contaminated: dict[str, dict[str, int]] | None = None
    num_tokens: dict[str, int] | None = None
    rate_of: str = "rows"
    per_s: float | None = None
    eta_s: float | None = None
    idle_s: float | None = None


def run_status(recipe: Recipe) -> list[StageStatus]:
    """The status of every stage, in order. Reads markers and roll-ups, never rows."""
    return [stage_status(stage) for stage in stages_of_run(recipe)]


def stage_status(stage: Stage) -> StageStatus:
    """The status of one stage; cheap at any size (see ShardLedger.totals)."""
    if not stage.has_begun:
        return StageStatus(stage.name, "missing")
    state = "complete" if stage.is_complete else "begun"
    status = StageStatus(stage.name, state, num_parts=stage.num_shards())
    if stage.name == "corpus" and state == "begun":
        return _corpus_status(status, stage)
    status = _of_ledger(status, stage.ledger, _began_s(stage))
    return _of_steps(status, stage) if stage.name in ("pretraining", "finetuning") else status


def recent_rate(commits: list[ShardCommit], began_s: float, is_all: bool = True) -> float | None:
    """Rows per second over the commits (in order of time) of the last RATE_WINDOW_S.

    Args:
        began_s: when the attempt began; a pause before it does not count, its start does.
        is_all: false where older commits are not among `commits`.
    """
    if not commits:
        return None
    end_s = commits[-1].committed_s
    since_s = max(began_s, end_s - RATE_WINDOW_S)
    if not is_all:
        since_s = max(since_s, commits[0].committed_s)
    num_rows = sum(commit.num_input_rows for commit in commits if commit.committed_s > since_s)
    return num_rows / (end_s - since_s) if end_s > since_s else None


def print_status(recipe: Recipe, console: Console | None = None) -> dict[str, Any]:
    """One line per stage, the reasons of rejected rows, and stages of other settings; what it shows
    as JSON values. Raises InputError when the run directory does not exist.
    """
    screen = console or Console()
    require_run(recipe)
    statuses = run_status(recipe)
    headings = ("stage", "state", "done", "rows", "rate", "ETA", "last commit")
    title = f"{recipe.name} in {recipe.run_dir}"
    screen.print(terminal_table(title, headings, map(_cells, statuses), left=(0, 1)))
    for status in statuses:
        if status.state == "damaged":
            line = f"{status.name} lacks files or parts of files: codepmp verify says which."
            screen.print(Text(line))
        if status.rejected:
            reasons = ", ".join(f"{count:,} {name}" for name, count in status.rejected.items())
            screen.print(Text(f"{status.name} rejected: {reasons}"))
        for evaluation_set, hits in (status.contaminated or {}).items():
            sides = ", ".join(f"{count:,} {side}" for side, count in hits.items())
            screen.print(Text(f"{status.name} contaminated by {evaluation_set}: {sides}"))
        if status.num_tokens:
            tokens = ", ".join(
                f"{count:,} {name.removesuffix('_num_tokens')}"
                for name, count in status.num_tokens.items()
            )
            screen.print(Text(f"{status.name} tokens: {tokens}"))
    attempt = last_attempt(recipe.run_dir)
    if attempt is not None:
        screen.print(Text(_attempt_line(attempt)), soft_wrap=True)
    return {
        "run_dir": recipe.run_dir,
        "last_attempt": attempt,
        "stages": [asdict(status) for status in statuses],
        "other_settings": [asdict(other) for other in print_others(recipe, screen)],
    }


def _attempt_line(attempt: Mapping[str, Any]) -> str:
    """How the newest attempt went, and where its log is."""
    line = f"last attempt: {attempt['command']} on {attempt['host']}, began {attempt['began']}"
    if attempt["ended"] is None:
        line += ", no end recorded: it runs, or was killed"
    else:
        line += f", ended {attempt['ended']} with code {attempt['exit_code']}"
    if attempt["error"]:
        line += f": {visible(attempt['error'])}"
    return f"{line}; log: {attempt['log']}" if attempt["log"] else line


def print_others(recipe: Recipe, console: Console | None = None) -> list[OtherStage]:
    """Stages that the run directory holds with other settings, and how these differ."""
    screen = console or Console()
    found = other_stages(recipe)
    if found:
        screen.print(Text("With other settings (there -> this recipe):"))
    for other in found:
        state = "complete" if other.is_complete else "begun"
        line = f"  {other.folder}  {state}  {visible(other.why)}"
        screen.print(Text(line), soft_wrap=True)
    return found


def _began_s(stage: Stage) -> float:
    """When the last attempt at the stage began, by its manifest."""
    written = stage.manifest().get("written", "")
    try:
        return calendar.timegm(time.strptime(written, "%Y-%m-%dT%H:%M:%SZ"))
    except ValueError:
        return 0.0


def _of_ledger(status: StageStatus, ledger: ShardLedger, began_s: float) -> StageStatus:
    """`status` with the counts and the rate of a ledger whose shards are its parts."""
    totals, recent = ledger.totals_and_recent()
    if status.state == "complete" and totals.num_shards <= _MAX_LISTED_SHARDS:
        lacks_shards = (status.num_parts or 0) > totals.num_shards
        if lacks_shards or ledger.num_bytes_missing(totals):
            status = replace(status, state="damaged")
    rate = recent_rate(recent, began_s, len(recent) == totals.num_shards)
    if rate is None and totals.last_s > totals.first_s and not recent:
        rate = totals.num_input_rows / (totals.last_s - totals.first_s)
    return replace(
        status,
        num_parts_done=totals.num_shards,
        num_input_rows=totals.num_input_rows,
        rejected=rejects_by_reason(totals),
        contaminated=contamination_hits(totals),
        num_tokens=token_sums(totals),
        per_s=rate,
        eta_s=_eta_s(status, totals, rate),
        idle_s=max(0.0, time.time() - totals.last_s) if totals.last_s else None,
    )


def _eta_s(status: StageStatus, totals: Totals, rate: float | None) -> float | None:
    if not (status.num_parts and totals.num_shards and rate) or status.state in (
        "complete",
        "damaged",
    ):
        return None
    rows_per_part = totals.num_input_rows / totals.num_shards
    return (status.num_parts - totals.num_shards) * rows_per_part / rate


def _corpus_status(status: StageStatus, stage: Stage) -> StageStatus:
    """A corpus that is being made: files are read, duplicates found, then shards written."""
    wanted, began_s = num_units(stage.store), _began_s(stage)
    if wanted is None:
        return replace(status, doing="listing files")
    extracted = ShardLedger(stage.store.sub(EXTRACTED))
    reading = replace(status, doing="reading files", part="units of files", num_parts=wanted)
    reading = _of_ledger(reading, extracted, began_s)
    if reading.num_parts_done < wanted:
        return reading
    writing = _of_ledger(replace(status, doing="writing shards"), stage.ledger, began_s)
    if writing.num_parts_done:
        return writing
    bands = band_names(stage.recipe.corpus.near_duplicates)
    rounds = ["exact", "copies", *bands, "clusters", "fates"]
    begun = [name for name in stage.store.sub(DUPLICATES).list("") if name in rounds]
    # A small corpus is searched by the job itself, which leaves `fates` alone.
    num_rounds = len(rounds) if begun and begun != ["fates"] else None
    return replace(
        status,
        doing="finding duplicates",
        part="rounds",
        num_parts=num_rounds,
        num_parts_done=len(begun),
        num_input_rows=reading.num_input_rows,
    )


def _of_steps(status: StageStatus, stage: Stage) -> StageStatus:
    """A training: its parts are steps, its input rows are pairs."""
    steps = load_training(stage).steps
    if not steps:
        return status
    done, wanted = int(steps[-1]["step"]), int(number(steps[-1], "total_steps", 0)) or None
    took_s = [number(row, "step_s") for row in steps[-_RATE_STEPS:]]
    per_s = len(took_s) / sum(took_s) if sum(took_s) > 0 else None
    left = wanted - done if wanted and status.state == "begun" else None
    return replace(
        status,
        part="steps",
        num_parts=wanted,
        num_parts_done=done,
        rate_of="steps",
        per_s=per_s,
        eta_s=left / per_s if left is not None and per_s else None,
    )


def _cells(status: StageStatus) -> list[str]:
    if status.state == "missing":
        return [status.name, "not begun", "", "", "", "", ""]
    of = f"/{status.num_parts:,}" if status.num_parts else ""
    return [
        status.name,
        f"{status.state}, {status.doing}" if status.doing else status.state,
        f"{status.num_parts_done:,}{of} {status.part}",
        f"{status.num_input_rows:,}",
        "" if status.per_s is None else plain_rate(status.per_s, status.rate_of),
        "" if status.eta_s is None else duration(status.eta_s),
        "" if status.idle_s is None else f"{duration(status.idle_s)} ago",
    ]


def plain_rate(per_s: float, unit: str) -> str:
    """`1234.5` -> `1,234 rows/s`, `0.004` -> `14.4 rows/h`: digits without an exponent."""
    if per_s >= 100:
        return f"{per_s:,.0f} {unit}/s"
    if per_s >= 0.01:
        return f"{per_s:.2f} {unit}/s"
    return f"{3600 * per_s:.1f} {unit}/h"
