"""Where checkpoints lie, which of them are whole, and how they go.

checkpoints/step-00000012.<attempt>/   torch.distributed.checkpoint shards
checkpoints/step-00000012.json         marker: the folder above is whole
"""

from __future__ import annotations

import json

from codepmp_ray.storage import Store

FOLDER = "checkpoints"


def whole_steps(store: Store) -> list[int]:
    """Steps of the checkpoints in `store` that are whole, ascending."""
    names = [name for name in store.list(FOLDER) if name.endswith(".json")]
    return sorted(int(name.removeprefix("step-").removesuffix(".json")) for name in names)


def delete_unmarked(store: Store) -> None:
    """Delete folders without a marker: of checkpoints given up, or that never became whole."""
    kept = {folder_of(store, step) for step in whole_steps(store)}
    for name in store.list(FOLDER):
        if not name.endswith(".json") and f"{FOLDER}/{name}" not in kept:
            store.delete_tree(f"{FOLDER}/{name}")


def remove_step(store: Store, step: int) -> None:
    """Delete the checkpoint of `step`, if it is there."""
    store.delete(marker_name(step))
    delete_unmarked(store)


def marker_name(step: int) -> str:
    return f"{FOLDER}/step-{step:08d}.json"


def folder_of(store: Store, step: int) -> str:
    """Name in `store` of the folder that the marker of `step` speaks of."""
    marker = json.loads(store.read_bytes(marker_name(step)))
    return f"{FOLDER}/{marker['folder']}"
