"""`jobs.pool_statistics`: every figure of a pool that is there, for the rewards that are there."""

from __future__ import annotations

from typing import Any

from codepmp_ray.config.base import fingerprint
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.content_digests import content_digests
from codepmp_ray.evaluation.pool_files import load_labelled_pool
from codepmp_ray.evaluation.pool_report import Settings, measure_pools
from codepmp_ray.json_records import record_bytes
from codepmp_ray.runs import run_manifest
from codepmp_ray.storage import open_store

RESULTS_FILE = "pool_statistics.json"
# Goes up when the code computes something else from equal settings.
_VERSION = 2


def folder_of(recipe: Recipe) -> str:
    """Name of the folder in the run directory, by settings and the files' contents."""
    config, settings = recipe.pool_statistics, recipe.evaluation
    paths = [config.path, config.grades_path, *(item.path for item in config.rewards)]
    figures = [settings.confidence, settings.num_bootstrap, settings.seed]
    identity = fingerprint("pool-statistics", _VERSION, config, figures, content_digests(paths))
    return f"pool-statistics-{identity}"


def measure_pool_file(recipe: Recipe) -> dict[str, Any]:
    """Measure `recipe.pool_statistics` and write pool_statistics.json; returns its content.

    Raises what `load_labelled_pool` raises, and InputError for a k beyond the pools' size.
    """
    config, settings = recipe.pool_statistics, recipe.evaluation
    store = open_store(recipe.run_dir).sub(folder_of(recipe))
    store.require_ready()
    pool = load_labelled_pool(config)
    names = [item.name for item in config.rewards]
    found = measure_pools(
        pool.arrays(names),
        sorted(set(config.ks)) or None,
        Settings(
            settings.confidence,
            settings.num_bootstrap,
            settings.seed,
            config.num_vote_draws,
            config.nan_scores,
        ),
    )
    results = {
        "pool": config.path,
        "models": names,
        **found,
        "length_unit": pool.length_unit,
        "num_unused": pool.num_unused,
        "rejected": pool.reject_counts,
        "folder": store.uri,
        "manifest": run_manifest(recipe),
    }
    store.put(RESULTS_FILE, record_bytes(results, indent=2))
    return results
