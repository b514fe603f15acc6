"""What a bug report about a run needs, in one file without secrets, rows and weights.

    codepmp-bundle/contents.txt       what is inside, what was cut and left out
    codepmp-bundle/versions.json, check.txt, nodes.json, status.txt
    codepmp-bundle/logs/              attempts: what they printed and how they ended
    codepmp-bundle/<stage folder>/    manifest with the whole recipe, completion, markers, metrics

Only files of these names are read. Everything passes `redacted`, and keys of this environment go.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray

from codepmp_ray.attempts import FOLDER as LOGS
from codepmp_ray.cluster.check import node_name
from codepmp_ray.cluster.node_probe import own_versions
from codepmp_ray.config.recipe import Recipe, parse_recipe
from codepmp_ray.errors import CodePMPError, InputError, StorageError
from codepmp_ray.hub_models import PINS_FOLDER
from codepmp_ray.json_records import record_bytes
from codepmp_ray.redaction import HIDDEN, redacted
from codepmp_ray.runs import Stage, stage_folders
from codepmp_ray.storage import Store, open_store
from codepmp_ray.training.metrics import METRICS_FILE
from codepmp_ray.versions import code_digest, git_commit

ROOT = "codepmp-bundle"
MAX_FILE_BYTES, MAX_BYTES = 2_000_000, 20_000_000
_RECORDS = ("manifest.json", "complete.json")
_SECRET_NAME = re.compile(r"(TOKEN|KEY|SECRET|PASSWORD)$")
_SHORTEST_SECRET = 8  # shorter values are words that stand in any text


class Bundle:
    """Texts by name, in the order of `add`; what is beyond a limit is cut or left out, and said."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self.files: dict[str, bytes] = {}
        self.notes: list[str] = []
        self._room = MAX_BYTES
        values = {value for name, value in environment.items() if _SECRET_NAME.search(name)}
        self._secrets = sorted((v for v in values if len(v) >= _SHORTEST_SECRET), key=len)[::-1]

    def add(self, name: str, text: str) -> None:
        """Without secrets. Of a long text the end counts, and is kept."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        data = redacted(text).encode("utf-8", "backslashreplace")
        if len(data) > MAX_FILE_BYTES:
            note = f"{name}: the last {MAX_FILE_BYTES:,} of {len(data):,} bytes"
            self.notes.append(note)
            data = f"({note})\n".encode() + data[-MAX_FILE_BYTES:]
        if len(data) > self._room:
            self.notes.append(f"{name}: left out, beyond {MAX_BYTES:,} bytes in all")
            return
        self._room -= len(data)
        self.files[name] = data

    def add_stored(self, store: Store, name: str, called: str) -> None:
        """A file of the run, if it is there. What cannot be read is noted."""
        try:
            if store.exists(name):
                self.add(called, store.read_bytes(name).decode("utf-8", "replace"))
        except StorageError as error:
            self.notes.append(f"{called}: {error.problem}")

    def contents(self) -> str:
        """One line a file, then what is not, or not whole, inside."""
        lines = [f"{len(data):>10,}  {name}" for name, data in sorted(self.files.items())]
        return "\n".join([*lines, *self.notes]) + "\n"

    def write(self, path: Path) -> None:
        """As a .tar.gz whose bytes follow from what is inside. Raises InputError where `path`
        cannot be written."""
        files = {**self.files, "contents.txt": self.contents().encode()}
        packed = io.BytesIO()
        with (
            gzip.GzipFile(fileobj=packed, mode="wb", filename="", mtime=0) as stream,
            tarfile.open(fileobj=stream, mode="w") as archive,
        ):
            for name, data in sorted(files.items()):
                entry = tarfile.TarInfo(f"{ROOT}/{name}")
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
        try:
            path.write_bytes(packed.getvalue())
        except OSError as error:
            raise InputError(
                f"{path} cannot be written: {error.strerror}.", "Name another file by --output."
            ) from error


def add_run(bundle: Bundle, run_dir: str) -> Recipe | None:
    """What the run directory tells of its stages and attempts; the recipe of the newest stage,
    where this release can read it."""
    store = open_store(run_dir)
    versions = own_versions() | {"code": code_digest(), "commit": str(git_commit())}
    bundle.add("versions.json", _json(versions))
    stages = stage_folders(parse_recipe({"run_dir": run_dir}, run_dir))
    manifests: list[dict[str, Any]] = []
    for stage in stages:
        for name in _RECORDS:
            bundle.add_stored(stage.store, name, f"{stage.folder}/{name}")
        _add_markers(bundle, stage)
        try:
            manifests.append(stage.manifest())
        except StorageError as error:
            bundle.notes.append(f"{stage.folder}: {error.problem}")
    for name in store.list(PINS_FOLDER):
        bundle.add_stored(store, f"{PINS_FOLDER}/{name}", f"{PINS_FOLDER}/{name}")
    # The newest attempts first: what is beyond the limit is old.
    for name in reversed(store.list(LOGS)):
        bundle.add_stored(store, f"{LOGS}/{name}", f"{LOGS}/{name}")
    for stage in stages:
        bundle.add_stored(stage.store, METRICS_FILE, f"{stage.folder}/{METRICS_FILE}")
    manifests.sort(key=lambda manifest: str(manifest.get("written")))
    if not manifests or not manifests[-1]:
        bundle.notes.append("status.txt, check.txt: no stage has a manifest")
        return None
    try:
        return parse_recipe({**manifests[-1]["recipe"], "run_dir": run_dir}, "the newest manifest")
    except (CodePMPError, KeyError, TypeError) as error:
        bundle.notes.append(f"status.txt, check.txt: its recipe cannot be read: {error}")
        return None


def add_nodes(bundle: Bundle) -> None:
    """The table of the connected cluster's nodes."""
    kept = ("Alive", "Resources", "Labels")
    nodes = {node_name(node): {key: node.get(key) for key in kept} for node in ray.nodes()}
    bundle.add("nodes.json", _json(nodes))


def _add_markers(bundle: Bundle, stage: Stage) -> None:
    """Their sums, and the newest of them: a stage may have a million."""
    try:
        totals, recent = stage.ledger.totals_and_recent()
    except StorageError as error:
        bundle.notes.append(f"{stage.folder}/markers.json: {error.problem}")
        return
    if totals.num_shards:
        lines = [totals.text, *(commit.text for commit in recent)]
        bundle.add(f"{stage.folder}/markers.jsonl", "\n".join(lines) + "\n")


def _json(value: Any) -> str:
    return record_bytes(value, indent=1, sort_keys=True).decode() + "\n"
