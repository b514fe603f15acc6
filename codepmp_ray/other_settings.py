"""Stages of a run directory that were made with other settings: how they differ, and their reuse.

A stage whose settings changed is made anew in a folder of its own. `differing` says which keys are
why; `reusing` takes a finished folder as it is instead:

- the recipe gets that folder's own section (`corpus` of its manifest for a corpus), so that nothing
  that reads the stage works with settings that it was not made with;
- `reuse` holds its fingerprint, which stands in the fingerprints of the stages that read it;
- the stages that it was made from come along where they are complete;
- nothing is added to it; only a purge takes rows out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from codepmp_ray.config.base import Section
from codepmp_ray.config.keys import differences, shown_differences
from codepmp_ray.config.recipe import Recipe, did_you_mean, parse_sections
from codepmp_ray.errors import ConfigError, InputError
from codepmp_ray.runs import (
    SIDE_JOBS,
    STAGE_FOLDER,
    STAGE_JOBS,
    Stage,
    stage_fingerprints,
    stages_read,
)
from codepmp_ray.storage import open_store

# Sections that belong to a stage alone.
_OWN = {
    "corpus": ("corpus",),
    "synthesis": ("synthesis",),
    "pretraining": ("pretraining",),
    "candidates": ("candidates",),
    "grades": ("evaluation.sandbox", "evaluation.grader"),
    "finetuning": ("finetuning",),
    "evaluation": ("evaluation",),
    "scoring": ("batch_scoring",),
}
# What else is in their fingerprints; it is not taken over, since others read it too.
_SHARED = {
    "corpus": ("candidates.task",),
    "synthesis": ("engines",),
    "candidates": ("engines",),
    "evaluation": ("serving",),
    "scoring": ("serving",),
}


@dataclass(frozen=True)
class OtherStage:
    """A stage of other settings than the recipe's.

    Attributes:
        written: when it began last, UTC.
        differs: key -> (its value, the recipe's), of the stage and of those that it reads. Empty
            where settings are equal: then the code, a named file, weights or Python changed.
        fingerprints: of all stages, as its recipe had them.
        problem: why its manifest cannot be read; then nothing else is known of it.
    """

    name: str
    fingerprint: str
    is_complete: bool
    written: str
    differs: dict[str, tuple[Any, Any]]
    fingerprints: dict[str, str]
    problem: str = ""

    @property
    def folder(self) -> str:
        return f"{self.name}-{self.fingerprint}"

    @property
    def why(self) -> str:
        """How it differs, in one line."""
        if self.problem:
            return self.problem
        if self.differs:
            return shown_differences(self.differs)
        return f"equal keys, but other code, files, weights or Python (it was begun {self.written})"


def other_stages(recipe: Recipe) -> list[OtherStage]:
    """What there is in the run directory, in the order of the main job, oldest first."""
    prints, found = stage_fingerprints(recipe), []
    for folder in open_store(recipe.run_dir).list(""):
        match = STAGE_FOLDER.fullmatch(folder)
        if not match or match[2] == prints[match[1]]:
            continue
        stage = Stage(recipe, match[1], match[2])
        if stage.has_begun:
            found.append(_described(stage, recipe))
    names = list(prints)
    return sorted(found, key=lambda other: (names.index(other.name), other.written))


def nearest(name: str, others: list[OtherStage]) -> OtherStage | None:
    """The complete one of stage `name` that differs in the fewest keys, the newest of these."""
    known = [o for o in reversed(others) if o.name == name and o.is_complete and not o.problem]
    return min(known, key=lambda other: len(other.differs), default=None)


def reusing(recipe: Recipe, names: list[str]) -> tuple[Recipe, list[OtherStage]]:
    """`recipe` with stages taken as other settings made them, and which these are.

    Args:
        names: "corpus" for the only complete one, or "corpus=0123456789ab"; beside recipe.reuse.

    A bare name of a stage that is complete with these settings changes nothing. Raises ConfigError
    for an unknown stage and for a name with several candidates, InputError where there is none.
    """
    asked = dict(recipe.reuse)
    for name in names:
        stage, _, fingerprint = name.partition("=")
        asked[stage] = fingerprint
    if not asked:
        return recipe, []
    plain = recipe.without_reuse(*recipe.reuse)
    if unknown := sorted(set(asked) - _OWN.keys()):
        raise ConfigError(
            f"reuse: there is no stage {unknown[0]} ({did_you_mean(unknown[0], _OWN, 'stages')})."
        )
    others = [other for other in other_stages(plain) if other.is_complete]
    taken: dict[str, OtherStage] = {}
    for name, fingerprint in asked.items():
        own = stage_fingerprints(plain)[name]
        if fingerprint in ("", own) and Stage(plain, name, own).is_complete:
            continue
        found = _found(name, fingerprint, others)
        taken[name] = found or _chosen(plain, name, fingerprint, others)
    _with_upstream(plain, taken, others)
    made = plain
    for other in taken.values():
        made = _with_sections(made, other)
    made = made.model_copy(update={"reuse": {o.name: o.fingerprint for o in taken.values()}})
    return made, list(taken.values())


def _chosen(recipe: Recipe, name: str, fingerprint: str, others: list[OtherStage]) -> OtherStage:
    """The folder to take for a stage that is not complete with its own settings."""
    there = [other for other in others if other.name == name]
    listed = "; ".join(f"--reuse {o.name}={o.fingerprint} ({o.why})" for o in there)
    if fingerprint:
        raise InputError(
            f"--reuse {name}={fingerprint}: {name}-{fingerprint} is not complete in "
            f"{recipe.run_dir}.",
            f"Complete there: {listed}." if there else "No other settings of it are complete.",
        )
    if not there:
        raise InputError(
            f"--reuse {name}: {recipe.run_dir} holds no complete {name} of other settings.",
            "Leave it out, or set run_dir to where it lies.",
        )
    if len(there) > 1:
        raise ConfigError(f"--reuse {name}: {len(there)} are complete.", f"Name one: {listed}.")
    return there[0]


def _found(name: str, fingerprint: str, others: list[OtherStage]) -> OtherStage | None:
    return next((o for o in others if (o.name, o.fingerprint) == (name, fingerprint)), None)


def _with_upstream(recipe: Recipe, taken: dict[str, OtherStage], others: list[OtherStage]) -> None:
    """Add what the stages in `taken` were made from, where that is complete and nobody chose."""
    for other in reversed(list(taken.values())):
        reads = stages_read(_with_sections(recipe, other))
        waiting = list(reads[other.name])
        while waiting:
            name = waiting.pop()
            waiting += reads[name]
            found = _found(name, other.fingerprints.get(name, ""), others)
            if found and name not in taken:
                taken[name] = found


def _with_sections(recipe: Recipe, other: OtherStage) -> Recipe:
    """`recipe` with the own sections of a stage as its manifest has them."""
    manifest = _manifest(Stage(recipe, other.name, other.fingerprint))
    for path in _OWN[other.name]:
        *above, last = path.split(".")
        outer: Section = getattr(recipe, above[0]) if above else recipe
        data = manifest["recipe"]
        for part in path.split("."):
            data = data.get(part, {})
        section = parse_sections(type(getattr(outer, last)), data, f"{other.folder}, {path}")
        changed: Any = outer.model_copy(update={last: section})
        recipe = recipe.model_copy(update={above[0]: changed}) if above else changed
    return recipe


def _described(stage: Stage, recipe: Recipe) -> OtherStage:
    try:
        manifest = _manifest(stage)
    except InputError as error:
        known = (stage.name, stage.fingerprint, stage.is_complete)
        return OtherStage(*known, "", {}, {}, str(error))
    reads, waiting, before = stages_read(recipe), [stage.name], set()
    while waiting:
        name = waiting.pop()
        before.add(name)
        waiting += reads[name]
    names = [name for name in (*STAGE_JOBS, *SIDE_JOBS) if name in before]
    prefixes = tuple(p for name in names for p in (*_OWN[name], *_shared(recipe, name)))
    differs = differences(manifest["recipe"], recipe, prefixes)
    old, new = manifest["recipe"].get("reuse") or {}, recipe.reuse
    for name in names:
        if old.get(name) != new.get(name):
            differs[f"reuse.{name}"] = (old.get(name), new.get(name))
    return OtherStage(
        stage.name,
        stage.fingerprint,
        stage.is_complete,
        str(manifest.get("written", "")),
        differs,
        dict(manifest.get("fingerprints", {})),
    )


def _shared(recipe: Recipe, name: str) -> tuple[str, ...]:
    if name == "pretraining":  # what it begins with may be the strong model
        names = ("model_name_or_path", "revision")
        own = recipe.pretraining.model_name_or_path
        return () if own else tuple(f"engines.strong.{key}" for key in names)
    return _SHARED.get(name, ())


def _manifest(stage: Stage) -> Mapping[str, Any]:
    try:
        found = json.loads(stage.store.read_bytes("manifest.json"))
    except ValueError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("recipe"), dict):
        raise InputError(f"{stage.store.locate('manifest.json')} holds no recipe.")
    return found
