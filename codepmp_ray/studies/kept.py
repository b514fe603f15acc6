"""The folder of an experiment: what was registered, and the scores of each seed as it is done.

    registered.json   written before any seed: question, settings, analysis; never changed after
    common.json       what all seeds share: test pairs, rules without a model, the ceiling run
    seed-N.json       one seed: rewards of every arm, heads on frozen features, checks
    deviations.json   what was not done as registered, a list of sentences; if there is any
    pairs.jsonl.zst   the code pairs, where they are no other set's

Together they are a few hundred kilobytes, and every figure of the page is made of them alone. So an
experiment goes on where it was, on any machine, without the models that are done.
"""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from codepmp_ray.errors import ConfigError, InputError
from codepmp_ray.json_records import read_record, record_bytes
from codepmp_ray.storage import LocalStore
from codepmp_ray.versions import git_commit, installed_versions

FORMAT = 1
REGISTERED, COMMON, DEVIATIONS = "registered.json", "common.json", "deviations.json"
# In the order of the page; all of them are texts but the last three.
TEXTS = ("question", "arms", "sets", "primary", "second_endpoint", "manipulation_checks",
         "stopping_rule", "analysis", "power")  # fmt: skip
_FIELDS = {*TEXTS, "registered", "pilot", "settings", "digests"}
_NAMES = {REGISTERED, COMMON, DEVIATIONS, "README.md", "pairs.jsonl.zst"}


@dataclass(frozen=True)
class Kept:
    """Attributes:
    registered: empty in a pilot, whose folder has no registered.json.
    common: empty before the ceiling run.
    seeds: by seed.
    """

    registered: dict[str, Any] = field(default_factory=dict)
    common: dict[str, Any] = field(default_factory=dict)
    seeds: dict[int, dict[str, Any]] = field(default_factory=dict)
    deviations: list[str] = field(default_factory=list)


def read_kept(folder: str, settings: dict[str, Any]) -> Kept:
    """What lies in `folder`, all of it of these settings.

    Raises ConfigError where it was registered otherwise, InputError for a file that is damaged, of
    other settings, or of no name that is known.
    """
    commit_of_start()
    found: dict[str, Any] = {}
    place = Path(folder)
    for file in sorted(place.iterdir()) if place.is_dir() else ():
        number = file.name.removeprefix("seed-").removesuffix(".json")
        is_seed = number.isdigit() and file.name == _seed_file(int(number))
        if file.suffix != ".json" and file.name in _NAMES:
            continue
        if not is_seed and file.name not in _NAMES:
            raise InputError(f"{file} is no file of an experiment.", f"Known: {', '.join(_NAMES)}.")
        found[file.name] = _read(file)
    registered = found.pop(REGISTERED, {})
    if registered:
        _require_registered(place / REGISTERED, registered, settings)
    deviations = found.pop(DEVIATIONS, [])
    if not isinstance(deviations, list) or not all(isinstance(x, str) for x in deviations):
        raise InputError(f"{place / DEVIATIONS} is no list of sentences.")
    for name, values in found.items():
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise InputError(f"{place / name} is of another format than {FORMAT}.")
        if other := differing(values["settings"], settings):
            raise InputError(
                f"{place / name} was measured with other settings: {', '.join(other)}.",
                "Set them as they were, or name another keep_dir.",
            )
        for known, digest in registered.get("digests", {}).items():
            if known in values["digests"] and values["digests"][known] != digest:
                raise InputError(
                    f"{place / name} was measured on other pairs than those registered: {known}."
                )
    common = found.pop(COMMON, {})
    seeds = {values["seed"]: values for values in found.values()}
    return Kept(registered, common, dict(sorted(seeds.items())), deviations)


def differing(one: Any, other: Any, place: str = "") -> list[str]:
    """Dotted names of what two JSON values do not share."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [
            name
            for key in sorted({*one, *other})
            for name in differing(one.get(key), other.get(key), f"{place}.{key}".strip("."))
        ]
    return [] if one == other else [place]


def keep_common(folder: str, values: dict[str, Any]) -> None:
    _write(folder, COMMON, values)


def keep_seed(folder: str, seed: int, values: dict[str, Any]) -> None:
    """Write the seed's file. Raises ConfigError where there is one: seeds are measured once."""
    if (Path(folder) / _seed_file(seed)).exists():
        raise ConfigError(f"{folder} has seed {seed}.", "Seeds are measured once: name others.")
    _write(folder, _seed_file(seed), {"seed": seed, **values})


@cache
def commit_of_start() -> str | None:
    """Of the code as it was when it was first asked: a checkout may move on in two hours."""
    return git_commit()


def made() -> dict[str, Any]:
    """With what, where and when something is measured."""
    return {
        "commit": commit_of_start(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "hardware": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "versions": installed_versions(),
    }


def _processor() -> str:
    """The GPU, if there is one, else the processor by its name."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _seed_file(seed: int) -> str:
    return f"seed-{seed}.json"


def _write(folder: str, name: str, values: dict[str, Any]) -> None:
    text = record_bytes({"format": FORMAT, **values}, ensure_ascii=False)
    LocalStore(Path(folder).absolute()).put(name, text + b"\n")


def _read(file: Path) -> Any:
    try:
        return read_record(file.read_bytes())
    except (ValueError, OSError) as error:
        raise InputError(f"{file} cannot be read ({error}).") from error


def _require_registered(file: Path, found: Any, settings: dict[str, Any]) -> None:
    if not isinstance(found, dict) or set(found) != _FIELDS:
        names = set(found) if isinstance(found, dict) else set()
        raise InputError(
            f"{file} lacks {', '.join(sorted(_FIELDS - names)) or 'nothing'}, and has besides "
            f"{', '.join(sorted(names - _FIELDS)) or 'nothing'}."
        )
    if other := differing(found["settings"], settings):
        raise ConfigError(
            f"This is not what was registered in {file}: {', '.join(other)}.",
            "Run what was registered, or name another keep_dir: without registered.json it is a "
            "pilot.",
        )
