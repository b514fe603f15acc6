"""Changed definitions -> pairs: the version after the change is chosen, the one before rejected."""

from __future__ import annotations

import json
from itertools import takewhile

import pyarrow as pa

from codepmp_ray.config.recipe import Recipe
from codepmp_ray.config.synthesis import SynthesisConfig
from codepmp_ray.corpus.filters.opt_out import purged_names
from codepmp_ray.corpus.sources import check_corpus_config, source_root
from codepmp_ray.records import PAIR_OF_TWO_FILES, stable_id
from codepmp_ray.storage import Store, open_store
from codepmp_ray.synthesis.answers import as_code_block
from codepmp_ray.synthesis.gates import judge_sides
from codepmp_ray.synthesis.history.changes import History
from codepmp_ray.synthesis.history.repository import open_repository
from codepmp_ray.synthesis.prompts import change_prompt, template_version
from codepmp_ray.synthesis.rows import Row, tables_of

_PLAN = "commits.json"


def plan_history(recipe: Recipe, store: Store) -> History:
    """Which commits each shard reads, planned now if they were not before.

    Raises InputError for what is no repository or has no such revision, and ConfigError for
    settings of the corpus under which nothing could be kept.
    """
    corpus, settings = recipe.corpus_in_use, recipe.synthesis.commits
    check_corpus_config(corpus)
    folder = source_root(corpus.source)
    if not store.exists(_PLAN):
        with open_repository(folder) as repository:
            first = repository.resolve(settings.revision)
            commits = repository.commits(first, settings.max_commits)
        plan = {"revision": first, "commits": commits}
        store.put_exclusive(_PLAN, json.dumps(plan).encode())
    commits = json.loads(store.read_bytes(_PLAN))["commits"]
    size = settings.commits_per_shard
    shards = tuple(tuple(commits[i : i + size]) for i in range(0, len(commits), size))
    purged = purged_names(open_store(recipe.run_dir))
    return History(str(folder), corpus, settings, purged, shards)


def split_changes(rows: list[Row], config: SynthesisConfig) -> dict[str, pa.Table]:
    """Tables "pairs" (PAIR_OF_TWO_FILES) and "rejected" that together hold every CHANGE once."""
    pairs, rejected = [], []
    for row in rows:
        made = _make(row, config)
        (rejected if "reason" in made else pairs).append(made)
    return tables_of(pairs, rejected, PAIR_OF_TWO_FILES)


def beginning(after: str, before: str) -> str:
    """The lines that both versions begin with, or the first one after the change."""
    lines = after.split("\n"), before.split("\n")
    shared = [one for one, _ in takewhile(lambda two: two[0] == two[1], zip(*lines, strict=False))]
    return "\n".join(shared).rstrip() or lines[0][0]


def _make(row: Row, config: SynthesisConfig) -> Row:
    if row["reason"]:
        return _rejected_row(row, row["reason"], row["detail"])
    language = row["language"]
    sides = {
        "chosen": as_code_block(row["code"], language),
        "rejected": as_code_block(row["rejected_code"], language),
    }
    if refused := judge_sides(sides, language, config.gates):
        return _rejected_row(row, str(refused.reason), refused.detail)
    begins = beginning(row["code"], row["rejected_code"])
    place = ("source_id", "blob_id", "repo", "path")
    return {
        "pair_id": stable_id(row["row_id"], "commits"),
        "prompt": change_prompt(row["name"], row["message"], begins, language, config.prompts),
        **sides,
        **{name: row[name] for name in (*place, "language")},
        "snippet_id": row["row_id"],
        "license": row["license"],
        "construction": "commits",
        "description": row["message"],
        "prompt_template": template_version(config.prompts),
        # What one commit puts into a file the next one takes out: all of a file's are one problem.
        "problem_id": stable_id("commits", row["repo"].rpartition("@")[0], row["path"]),
        **{f"rejected_{name}": row[f"rejected_{name}"] for name in place[:-1]},
        "rejected_path": row["path"],
    }


def _rejected_row(row: Row, reason: str, detail: str) -> Row:
    place = {name: row[name] for name in ("row_id", "source_id", "blob_id", "repo", "path")}
    return {**place, "stage": "synthesis", "reason": reason, "detail": detail}
