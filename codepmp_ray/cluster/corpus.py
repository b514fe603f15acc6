"""The corpus stage on Ray: extract units of files in parallel, select, write shards.

Two rounds of tasks, each committing its own output, so that a killed job takes up where it was:
1. one task per work unit parses its files and commits their rows to `extracted/`;
2. duplicates are found from keys and sketches alone (`corpus.deduplication`): here, or for many
   snippets in rounds of tasks over the cluster;
3. one task per shard writes the corpus. `extracted/` and `duplicates/` go when the stage is
   complete.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from codepmp_ray.cluster.completeness import require_all_shards
from codepmp_ray.cluster.connect import connect
from codepmp_ray.cluster.cpu_tasks import CpuTasks, cpu_tasks, run_tasks
from codepmp_ray.cluster.placement import matching
from codepmp_ray.cluster.preflight import cluster_offers, waiting_for
from codepmp_ray.config.corpus import CorpusConfig, DeduplicationConfig
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.corpus import keep_index
from codepmp_ray.corpus.assembly import ShardPlan, build_shard, plan_shards
from codepmp_ray.corpus.counts import corpus_counts
from codepmp_ray.corpus.deduplication import deduplicate
from codepmp_ray.corpus.extraction import extract_unit
from codepmp_ray.corpus.filters.opt_out import purged_names
from codepmp_ray.corpus.keep_index import check_earlier, open_keep_index, sketch_names
from codepmp_ray.corpus.planning import (
    DUPLICATES,
    EXTRACTED,
    CorpusPlan,
    Part,
    Pieces,
    WorkUnit,
    in_runs,
    load_plan,
    plan_corpus,
    recorded_digest,
    recorded_root,
    save_plan,
)
from codepmp_ray.corpus.sources import (
    check_corpus_config,
    input_root,
    list_source,
    listing_digest,
)
from codepmp_ray.errors import InputError, StorageError
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.progress import Progress
from codepmp_ray.runs import Stage, open_stage
from codepmp_ray.shard_stats import shard_stats
from codepmp_ray.storage import open_store
from codepmp_ray.storage.inputs import Listed

_TABLES = ("snippets", "rejected")
# A task takes several work units when there are more units than this.
_MAX_TASKS = 4_096
_FEW_PARTS = 16  # of data files: looked into here
# Of a round of the search for duplicates: what it reads, and a sorted copy of it.
_BYTES_PER_CHUNK_ROW, _BYTES_PER_PARTITION_ROW = 900, 600


def build_corpus(recipe: Recipe) -> dict[str, Any]:
    """Make the corpus of `recipe`, or find it made; returns the stage's summary.

    Raises ConfigError or InputError for a source that is missing, empty, unreadable as a whole,
    or not the one that this corpus was begun with.
    """
    started_s = time.monotonic()
    corpus = recipe.corpus_in_use
    stage = open_stage(recipe, "corpus")
    check_corpus_config(corpus)
    check_earlier(corpus.near_duplicates)  # refused now rather than after the first round
    recorded = recorded_root(stage.store)
    root, files = list_source(corpus.source, recipe.run_dir, recorded)
    _require_unchanged(stage, files)
    if stage.is_complete:
        _clear_extracted(stage)
        return stage.summary()
    stage.start()
    with connect():
        if recorded_digest(stage.store) is None:
            look = partial(_run_parts, corpus)
            save_plan(stage.store, plan_corpus(corpus, root, files, look))
        plan = load_plan(stage.store)
        extracted = _extract(corpus, stage, plan)
        _write_shards(corpus, stage, extracted)
    if recorded_digest(stage.store) != plan.digest:
        raise StorageError(
            f"The plan of {stage.uri} is gone: files were removed while the job ran.",
            f"Delete {stage.uri} and run the same command again.",
        )
    # What was listed at the start must be what was read.
    _require_unchanged(stage, list_source(corpus.source, recipe.run_dir, plan.root)[1])
    stage.ledger.sweep(_TABLES)
    summary = _summarise(corpus, stage, plan, len(files))
    if not summary["num_snippets"]:
        raise InputError(
            f"The source gave no snippet; rejected: {summary['rejected']}.",
            f"Reasons per file lie in {stage.uri}/rejected. Check corpus.source and the limits.",
        )
    stage.complete({**summary, "duration_s": round(time.monotonic() - started_s, 1)})
    _clear_extracted(stage)
    return stage.summary()


def _extract(corpus: CorpusConfig, stage: Stage, plan: CorpusPlan) -> ShardLedger:
    extracted = ShardLedger(stage.store.sub(EXTRACTED))
    missing = extracted.missing_ids(len(plan.units))
    purged = purged_names(open_store(stage.recipe.run_dir))
    with _progress("extract", len(plan.units), "units of files", len(missing)) as progress:
        task = partial(
            _extract_task, extracted.store.uri, corpus, plan.threshold, plan.root, purged
        )
        num_parallel = _tasks(corpus).num_parallel
        runs = in_runs(corpus, [plan.units[i] for i in missing], num_parallel)
        _run_tasks(corpus, task, runs, progress, [len(run) for run in runs])
    require_all_shards(extracted, len(plan.units))
    return extracted


def _write_shards(corpus: CorpusConfig, stage: Stage, extracted: ShardLedger) -> None:
    near, uri = corpus.near_duplicates, stage.store.uri
    duplicates = stage.store.sub(DUPLICATES)
    run = partial(_run_round, corpus)
    decided = deduplicate(corpus, duplicates.uri, extracted.store.uri, run)
    shards = plan_shards(decided, corpus.max_snippets, corpus.rows_per_shard)
    if near.enabled:
        open_keep_index(uri, near)
    missing = stage.ledger.missing_ids(len(shards))
    with _progress("write", len(shards), "shards", len(missing)) as progress:
        task = partial(_shard_task, uri, decided.fates.store.uri, sketch_names(near))
        _run_tasks(corpus, task, [shards[i] for i in missing], progress)
    require_all_shards(stage.ledger, len(shards))


def _run_round(
    corpus: CorpusConfig, label: str, task: Callable[[Any], None], items: Sequence[Any]
) -> None:
    """What `deduplicate` runs its tasks with."""
    if items:
        with _progress(label, len(items), "tasks", len(items)) as progress:
            _run_tasks(corpus, task, items, progress, memory=_round_memory(corpus))


def _run_parts(
    corpus: CorpusConfig, look: Callable[[Part], Pieces], parts: Sequence[Part]
) -> list[Pieces]:
    """What `plan_corpus` looks into data files with."""
    if len(parts) <= _FEW_PARTS:
        return [look(part) for part in parts]
    found: dict[int, Pieces] = {}
    with _progress("plan", len(parts), "parts of files", len(parts)) as progress:
        # Several to a task: a footer is read in milliseconds.
        size = max(1, len(parts) // _MAX_TASKS)
        runs = [range(i, min(i + size, len(parts))) for i in range(0, len(parts), size)]
        items = [(run.start, [parts[i] for i in run]) for run in runs]
        task = partial(_look_task, look)
        for start, pieces in _run_tasks(corpus, task, items, progress, [len(run) for run in runs]):
            found |= enumerate(pieces, start)
    return [found[i] for i in range(len(parts))]


def _look_task(
    look: Callable[[Part], Pieces], item: tuple[int, list[Part]]
) -> tuple[int, list[Pieces]]:
    start, parts = item
    return start, [look(part) for part in parts]


def _progress(label: str, total: int, unit: str, num_missing: int) -> Progress:
    done = total - num_missing
    return Progress(f"corpus: {label}", total, unit, done=done, waiting_for=waiting_for)


def _tasks(corpus: CorpusConfig) -> CpuTasks:
    return cpu_tasks("The corpus stage", corpus.label_selector)


def _round_memory(corpus: CorpusConfig) -> int:
    """Bytes that a task of a round may need, so that a node is not given too many of them; never
    more than half of the smallest node, where one alone is then all that runs."""
    settings: DeduplicationConfig = corpus.deduplication
    wanted = max(
        settings.rows_per_chunk * _BYTES_PER_CHUNK_ROW,
        settings.rows_per_partition * _BYTES_PER_PARTITION_ROW,
    )
    offers = matching(cluster_offers(), corpus.label_selector)
    nodes = [offer.resources.get("memory", 0.0) for offer in offers]
    return min(wanted, int(min(filter(None, nodes), default=0)) // 2)


def _extract_task(
    store_root: str,
    corpus: CorpusConfig,
    threshold: str | None,
    root: str,
    purged: frozenset[str],
    units: list[WorkUnit],
) -> None:
    # Asked for here: the standard library may lie elsewhere on another node.
    folder, ledger = input_root(corpus.source, root), ShardLedger(open_store(store_root))
    for unit in units:
        found = extract_unit(corpus, folder, unit, threshold, purged)
        tables = {"snippets": found.snippets, "rejected": found.rejected}
        ledger.commit(unit.unit_id, found.num_rows, tables)


def _shard_task(stage_uri: str, fates_uri: str, names: list[str], plan: ShardPlan) -> None:
    store = open_store(stage_uri)
    shard = build_shard(store.sub(EXTRACTED).uri, fates_uri, plan, names)
    if names:  # first, so that no shard is there whose sketches are not
        index = ShardLedger(store.sub(keep_index.FOLDER))
        index.commit(plan.shard_id, shard.sketches.num_rows, {keep_index.TABLE: shard.sketches})
    stats = shard_stats(shard.tables)
    ShardLedger(store).commit(plan.shard_id, shard.num_input_rows, shard.tables, stats)


def _run_tasks(
    corpus: CorpusConfig,
    task: Callable[[Any], Any],
    items: Sequence[Any],
    progress: Progress,
    sizes: Sequence[int] = (),
    memory: int | None = None,
) -> list[Any]:
    """What `task` says of each item, in any order; run in parallel.

    Args:
        sizes: units of progress that an item counts for; one if not given.
        memory: bytes that Ray sets aside for each task.
    """
    if not items:
        return []
    sizes = sizes or [1] * len(items)
    found, start_s, num_done = [], time.monotonic(), 0
    done_before = progress.total - sum(sizes)
    work = list(zip(items, sizes, strict=True))
    for result, size in run_tasks(partial(_sized, task), work, _tasks(corpus), memory):
        found.append(result)
        num_done += size
        rate = num_done / max(time.monotonic() - start_s, 1e-9)
        progress.update(done_before + num_done, f"{rate:,.1f} {progress.unit}/s")
    return found


def _sized(task: Callable[[Any], Any], work: tuple[Any, int]) -> tuple[Any, int]:
    item, size = work
    return task(item), size


def _require_unchanged(stage: Stage, files: list[Listed]) -> None:
    recorded = recorded_digest(stage.store)
    if recorded is not None and recorded != listing_digest(files):
        raise InputError(
            f"The source of the corpus in {stage.uri} changed since that corpus was begun: "
            "files were added, removed or modified.",
            "Restore the source, choose another run_dir, or delete that folder to begin anew.",
        )


def _clear_extracted(stage: Stage) -> None:
    """Delete the rows between the rounds: the corpus holds each of them now."""
    stage.store.delete_tree(DUPLICATES)
    stage.store.delete_tree(EXTRACTED)


def _summarise(
    corpus: CorpusConfig, stage: Stage, plan: CorpusPlan, num_source_files: int
) -> dict[str, Any]:
    sets = [item.name for item in corpus.decontamination.sets if corpus.decontamination.enabled]
    return {
        "num_source_files": num_source_files,
        "num_files": plan.num_taken,
        "num_files_not_sampled": plan.num_found - plan.num_taken,
        **corpus_counts(stage.ledger, sets),
    }
