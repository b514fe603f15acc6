"""Models of the Hugging Face hub, pinned: a run reads one commit of each, on every node and resume.

A hub model is `org/name` with a revision beside it, or `hf://org/name@revision` as the hub's own
file system writes it. A run directory keeps the commit that a revision meant when a job first
asked for it:

    <run_dir>/hub_models/org--name@main.json   {"model", "revision", "commit", "written"}

So a branch that moves changes no run that has begun. HF_TOKEN, HF_ENDPOINT, HF_HOME and
HF_HUB_OFFLINE are honoured by the hub's client; where the hub does not answer, the commit is the
one that its cache has under the revision.
"""

from __future__ import annotations

import json
import re
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from codepmp_ray.errors import ModelError
from codepmp_ray.json_records import record_bytes, stored_record
from codepmp_ray.storage import is_uri, open_store
from codepmp_ray.storage.uris import strip_file_scheme, written_name

if TYPE_CHECKING:
    from codepmp_ray.config.engines import EngineConfig

PINS_FOLDER = "hub_models"
INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
# LLaMA-Factory and TRL write the head apart, where no index lists it.
HEAD_FILES = tuple(
    f"{name}.safetensors" for name in ("value_head", "v_head", "reward_head", "rm_head")
)
_MAIN = "main"
_LOOK_TIMEOUT_S = 5.0
_URI = re.compile(r"hf://([^/@]+/[^/@]+)(?:@(.+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
# Everything of a model but its weights: configuration, tokenizers of all kinds, templates.
_SMALL_FILES = ["*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken", "*.bpe", "*.vocab"]


@dataclass(frozen=True)
class HubModel:
    """`repo` is `org/name`; `revision` a branch, a tag or a commit."""

    repo: str
    revision: str = _MAIN

    @property
    def uri(self) -> str:
        return written_name(self.repo, self.revision)

    @property
    def is_pinned(self) -> bool:
        return _COMMIT.fullmatch(self.revision) is not None

    def at_commit(self) -> HubModel:
        """The model at the commit that its revision means now.

        Raises ModelError when the hub does not have it, or does not answer and nothing is cached.
        """
        if self.is_pinned:
            return self
        from huggingface_hub import resolve_revision

        try:
            found = resolve_revision(self.repo, revision=self.revision)
        except Exception as error:  # the hub's client raises many kinds, not all of them its own
            raise _not_there(self, error) from error
        return HubModel(self.repo, found.resolved)


def hub_model(name: str, revision: str | None = None) -> HubModel | None:
    """The hub's model called `name`, or None for a folder, a store's URI or a builtin model.

    A name without a scheme is the hub's where no folder is called so. Raises ModelError for a
    `revision` beside anything that has none, and for a second one.
    """
    if match := _URI.fullmatch(name):
        repo, own = match[1], match[2]
        if own and revision and own != revision:
            raise ModelError(
                f"{name} names the revision {own!r}, and revision={revision!r} stands beside it.",
                "Give one of them.",
            )
        return HubModel(repo, own or revision or _MAIN)
    if _is_hub_name(name):
        return HubModel(name, revision or _MAIN)
    if revision is not None:
        raise ModelError(
            f"revision={revision!r} stands beside {name!r}, which is no model of the hub.",
            "Leave revision out: a folder or URI is known by its content.",
        )
    return None


def is_hub_id(name: str) -> bool:
    """Whether the name can only be one of the hub: no folder here, and not written like a path."""
    return hub_model(name) is not None


def at_commit(name: str, revision: str | None = None) -> str:
    """`name`, or the URI of a hub model at the commit of now. Raises ModelError."""
    found = hub_model(name, revision)
    return name if found is None else found.at_commit().uri


def pin(run_dir: str, name: str, revision: str | None = None) -> str:
    """`name`, or the URI of a hub model at the commit that `run_dir` keeps of it.

    The first job to ask decides, also for those that race with it. Where the hub has moved on
    since, that is said in a line. Raises ModelError as `HubModel.at_commit`.
    """
    found = hub_model(name, revision)
    if found is None or found.is_pinned:
        return name if found is None else found.uri
    store = open_store(run_dir)
    file = f"{PINS_FOLDER}/{found.repo.replace('/', '--')}@{quote(found.revision, safe='')}.json"
    if not store.exists(file):
        commit = found.at_commit().revision
        facts = {"model": found.repo, "revision": found.revision, "commit": commit}
        written = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if store.put_exclusive(file, record_bytes(facts | {"written": written}, indent=2)):
            return HubModel(found.repo, commit).uri
    record = stored_record(store, file)
    kept = HubModel(found.repo, record["commit"])
    _say_if_moved(found, kept, str(record["written"]), store.locate(file))
    return kept.uri


def pin_engine(run_dir: str, engine: EngineConfig) -> EngineConfig:
    """The engine with the commit that the run keeps as its revision; others as they are."""
    if engine.kind != "vllm":
        return engine
    found = hub_model(pin(run_dir, engine.model_name_or_path, engine.revision))
    if found is None:
        return engine
    return engine.model_copy(update={"model_name_or_path": found.repo, "revision": found.revision})


@cache
def _say_if_moved(asked: HubModel, kept: HubModel, written: str, file: str) -> None:
    """One line where the revision is another commit by now; nothing where nobody knows."""
    from huggingface_hub import HfApi

    # Unlike resolve_revision this leaves the cache as it is.
    with suppress(Exception):  # whatever the client raises, the run has its commit
        info = HfApi().model_info(asked.repo, revision=asked.revision, timeout=_LOOK_TIMEOUT_S)
        if info.sha and info.sha != kept.revision:
            print(
                f"{asked.repo}: this run keeps commit {kept.revision} of {asked.revision}, from "
                f"{written}; the hub has {info.sha} now. Set revision={info.sha} to go over to "
                f"it, or delete {file}.",
                file=sys.stderr,
            )


def snapshot(model: HubModel, *, weights: bool = True) -> Path:
    """The model's folder on this machine: small files, and its safetensors with `weights`.

    Downloaded once per machine and commit. Raises ModelError when it cannot be had.
    """
    from huggingface_hub import snapshot_download

    model = model.at_commit()
    commit = model.revision
    try:
        folder = Path(snapshot_download(model.repo, revision=commit, allow_patterns=_SMALL_FILES))
        if not weights:
            return folder
        # Only what will be read: Mistral's consolidated.safetensors are the same weights again.
        wanted = [SINGLE_FILE]
        if (folder / INDEX_FILE).is_file():
            places = json.loads((folder / INDEX_FILE).read_text())["weight_map"]
            wanted = sorted(set(places.values()))
        snapshot_download(model.repo, revision=commit, allow_patterns=[*wanted, *HEAD_FILES])
        if not {path.name for path in folder.glob("*.safetensors")} - {*HEAD_FILES}:
            snapshot_download(model.repo, revision=commit, allow_patterns="*.safetensors")
    except Exception as error:  # as above
        raise _not_there(model, error) from error
    return folder


def _is_hub_name(name: str) -> bool:
    if is_uri(name) or Path(strip_file_scheme(name)).expanduser().is_dir():
        return False
    return not name.startswith(("/", ".", "~", "builtin:", "file:")) and name.count("/") == 1


def _not_there(model: HubModel, error: Exception) -> ModelError:
    text = (str(error).strip() or repr(error)).splitlines()[0]
    return ModelError(
        f"Cannot load the model {model.repo!r} at revision {model.revision}: "
        f"{type(error).__name__}: {text[:300].rstrip('.')}.",
        "Check name, revision, network and, for a gated model, HF_TOKEN; or give the folder of a "
        "copy. Without a network revision has to be in the cache (HF_HOME).",
    )
