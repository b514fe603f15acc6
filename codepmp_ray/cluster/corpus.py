"""The corpus stage on Ray Data: extract units of files in parallel, select, write shards.

Two rounds of tasks, each committing its own output, so that a killed job takes up where it was:
1. one task per work unit parses its files and commits their rows to `extracted/`;
2. duplicates are found from keys and sketches alone (`corpus.deduplication`): here, or for many
   snippets in rounds of tasks over the cluster;
3. one task per shard writes the corpus. `extracted/` and `duplicates/` go when the stage is
   complete.
"""

from __future__ import annotations

import pickle
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import ray
import ray.data

from codepmp_ray.cluster.completeness import require_all_shards
from codepmp_ray.cluster.connect import cluster_resources, connect
from codepmp_ray.config.corpus import CorpusConfig, DeduplicationConfig
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.corpus import keep_index
from codepmp_ray.corpus.assembly import ShardPlan, build_shard, plan_shards
from codepmp_ray.corpus.deduplication import deduplicate
from codepmp_ray.corpus.extraction import extract_unit
from codepmp_ray.corpus.keep_index import check_earlier, open_keep_index, sketch_names
from codepmp_ray.corpus.planning import (
    DUPLICATES,
    EXTRACTED,
    CorpusPlan,
    WorkUnit,
    load_plan,
    plan_corpus,
    recorded_digest,
    recorded_root,
    save_plan,
)
from codepmp_ray.corpus.sources import (
    SourceFile,
    check_corpus_config,
    input_root,
    list_source,
    listing_digest,
)
from codepmp_ray.errors import InputError, StorageError
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.progress import Progress
from codepmp_ray.runs import Stage, open_stage
from codepmp_ray.shard_stats import contamination_hits, rejects_by_reason, shard_stats
from codepmp_ray.storage import open_store

_TABLES = ("snippets", "rejected")
# A share of a CPU too small to wait for: engines or trainers may hold the rest of a small machine.
# What bounds the parallelism is the size of the task pool, the number of CPUs.
_TASK_CPUS = 0.05
# A task takes several work units when there are more units than this.
_MAX_TASKS = 4_096
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
    if recorded_digest(stage.store) is None:
        save_plan(stage.store, plan_corpus(corpus, root, files))
    plan = load_plan(stage.store)
    with connect():
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
    with Progress(
        "corpus: extract",
        len(plan.units),
        "units of files",
        done=len(plan.units) - len(missing),
    ) as progress:
        task = partial(_extract_task, extracted.store.uri, corpus, plan.threshold, plan.root)
        _run_tasks(task, [plan.units[i] for i in missing], progress, len(plan.units))
    require_all_shards(extracted, len(plan.units))
    return extracted


def _write_shards(corpus: CorpusConfig, stage: Stage, extracted: ShardLedger) -> None:
    near, uri = corpus.near_duplicates, stage.store.uri
    duplicates = stage.store.sub(DUPLICATES)
    run = partial(_run_round, _round_memory(corpus.deduplication))
    decided = deduplicate(corpus, duplicates.uri, extracted.store.uri, run)
    shards = plan_shards(decided, corpus.max_snippets, corpus.rows_per_shard)
    if near.enabled:
        open_keep_index(uri, near)
    missing = stage.ledger.missing_ids(len(shards))
    with Progress(
        "corpus: write", len(shards), "shards", done=len(shards) - len(missing)
    ) as progress:
        task = partial(_shard_task, uri, decided.fates.store.uri, sketch_names(near))
        _run_tasks(task, [shards[i] for i in missing], progress, len(shards))
    require_all_shards(stage.ledger, len(shards))


def _run_round(memory: int, label: str, task: Callable[[Any], None], items: Sequence[Any]) -> None:
    """What `deduplicate` runs its tasks with."""
    if items:
        with Progress(f"corpus: {label}", len(items), "tasks") as progress:
            _run_tasks(partial(_round_task, task), items, progress, len(items), memory)


def _round_memory(settings: DeduplicationConfig) -> int:
    """Bytes that a task of a round may need, so that a node is not given too many of them; never
    more than half of the smallest node, where one alone is then all that runs."""
    wanted = max(
        settings.rows_per_chunk * _BYTES_PER_CHUNK_ROW,
        settings.rows_per_partition * _BYTES_PER_PARTITION_ROW,
    )
    nodes = [node["Resources"].get("memory", 0) for node in ray.nodes() if node["Alive"]]
    return min(wanted, int(min(filter(None, nodes), default=0)) // 2)


def _round_task(task: Callable[[Any], None], row: dict[str, Any]) -> dict[str, Any]:
    task(pickle.loads(row["item"]))
    return {"num_rows": 0}


def _extract_task(
    store_root: str, corpus: CorpusConfig, threshold: str | None, root: str, row: dict[str, Any]
) -> dict[str, Any]:
    unit: WorkUnit = pickle.loads(row["item"])
    # Asked for here: the standard library may lie elsewhere on another node.
    tables = extract_unit(corpus, input_root(corpus.source, root), unit, threshold)
    ShardLedger(open_store(store_root)).commit(
        unit.unit_id,
        tables.num_rows,
        {"snippets": tables.snippets, "rejected": tables.rejected},
    )
    return {"num_rows": tables.num_rows}


def _shard_task(
    stage_uri: str, fates_uri: str, names: list[str], row: dict[str, Any]
) -> dict[str, Any]:
    plan: ShardPlan = pickle.loads(row["item"])
    store = open_store(stage_uri)
    shard = build_shard(store.sub(EXTRACTED).uri, fates_uri, plan, names)
    if names:  # first, so that no shard is there whose sketches are not
        index = ShardLedger(store.sub(keep_index.FOLDER))
        index.commit(plan.shard_id, shard.sketches.num_rows, {keep_index.TABLE: shard.sketches})
    stats = shard_stats(shard.tables)
    ShardLedger(store).commit(plan.shard_id, shard.num_input_rows, shard.tables, stats)
    return {"num_rows": shard.num_input_rows}


def _run_tasks(
    task: Callable[[dict[str, Any]], dict[str, Any]],
    items: Sequence[Any],
    progress: Progress,
    total: int,
    memory: int | None = None,
) -> None:
    """Run `task` on each item in parallel; items done before count towards `total`.

    `memory` are the bytes that Ray sets aside for each task.
    """
    if not items:
        return
    rows = [{"item": pickle.dumps(item)} for item in items]
    num_tasks = min(len(rows), _MAX_TASKS)
    num_parallel = min(num_tasks, max(1, int(cluster_resources().get("CPU", 1))))
    results = ray.data.from_items(rows, override_num_blocks=num_tasks).map(
        task,
        num_cpus=_TASK_CPUS,
        memory=memory,
        compute=ray.data.TaskPoolStrategy(num_parallel),
    )
    done_before = total - len(items)
    for num_done, _ in enumerate(results.iter_rows(), start=1):
        progress.update(done_before + num_done)


def _require_unchanged(stage: Stage, files: list[SourceFile]) -> None:
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
    counted: dict[str, Counter[str]] = {name: Counter() for name in ("language", "license", "kind")}
    for commit in stage.ledger.commits():  # a shard at a time
        snippets = stage.store.read_table(commit.files["snippets"], list(counted))
        for name, counts in counted.items():
            counts.update(snippets[name].to_pylist())
    totals = stage.ledger.totals()
    sets = [item.name for item in corpus.decontamination.sets if corpus.decontamination.enabled]
    hits = contamination_hits(totals, sets)
    return {
        "num_source_files": num_source_files,
        "num_files": plan.num_taken,
        "num_files_not_sampled": plan.num_found - plan.num_taken,
        "num_snippets": totals.num_rows["snippets"],
        "num_rejected": totals.num_rows["rejected"],
        "num_shards": totals.num_shards,
        "rejected": rejects_by_reason(totals),
        "contaminated": {name: sum(sides.values()) for name, sides in hits.items()},
        "languages": dict(counted["language"].most_common()),
        "licenses": dict(counted["license"].most_common()),
        "kinds": dict(counted["kind"].most_common()),
    }
