"""Where checkpoints lie, which of them are whole, and how they go.

checkpoints/step-00000012.<attempt>/   torch.distributed.checkpoint shards
checkpoints/step-00000012.json         marker: the folder above is whole
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from codepmp_ray.storage import LocalStore

FOLDER = "checkpoints"


def whole_steps(store: LocalStore) -> list[int]:
    """Steps of the checkpoints in `store` that are whole, ascending."""
    names = [name for name in store.list(FOLDER) if name.endswith(".json")]
    return sorted(int(name.removeprefix("step-").removesuffix(".json")) for name in names)


def unmarked_folders(store: LocalStore) -> list[Path]:
    """Folders without a marker: of checkpoints that were given up, or never became whole."""
    kept = {folder_of(store, step) for step in whole_steps(store)}
    folders = [store.path(f"{FOLDER}/{name}") for name in store.list(FOLDER)]
    return [folder for folder in folders if folder.is_dir() and str(folder) not in kept]


def delete(folders: list[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def remove_step(store: LocalStore, step: int) -> None:
    """Delete the checkpoint of `step`, if it is there."""
    store.delete(marker_name(step))
    delete(unmarked_folders(store))


def marker_name(step: int) -> str:
    return f"{FOLDER}/step-{step:08d}.json"


def folder_of(store: LocalStore, step: int) -> str:
    marker = json.loads(store.read_bytes(marker_name(step)))
    return str(store.path(f"{FOLDER}/{marker['folder']}"))
