"""The run directory: one folder per stage and fingerprint, a manifest in each, a marker when done.

    <run_dir>/corpus-<fingerprint>/      manifest.json  complete.json  snippets/ rejected/ _commits/
    <run_dir>/synthesis-<fingerprint>/   ...

A stage's fingerprint covers its own settings and those of every stage before it, so changing a
prompt, a model or a sampling parameter makes a new folder and unchanged work is found again.
The folder of any stage follows from the recipe alone: each job can be run by itself. `reuse` names
folders of other settings to be taken as they are; what reads them stands on their fingerprints.
"""

from __future__ import annotations

import platform
import re
import sys
import time
from pathlib import Path
from typing import Any

from codepmp_ray.config.base import fingerprint
from codepmp_ray.config.engines import EngineConfig
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.config.synthesis import EXECUTED
from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.content_digests import content_digests
from codepmp_ray.errors import InputError
from codepmp_ray.hub_models import is_hub_id, pin
from codepmp_ray.json_records import record_bytes, stored_record
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.redaction import redacted, redacted_values
from codepmp_ray.storage import LocalStore, absolute, is_uri, open_store
from codepmp_ray.storage.uris import written_name
from codepmp_ray.versions import git_commit, installed_versions
from codepmp_ray.weights_digest import weights_digest, weights_version

# Which job makes which stage; also the order of the main job.
STAGE_JOBS = {
    "corpus": "corpus",
    "synthesis": "synthesize",
    "pretraining": "pretrain",
    "candidates": "sample",
    "grades": "grade",
    "finetuning": "finetune",
    "evaluation": "evaluate",
}
MODEL_FOLDER = "model"  # of the export, in a training stage's folder
# Stages that are no part of the main job, by their jobs.
SIDE_JOBS = {"scoring": "score"}
# What people type to make a stage.
STAGE_COMMANDS = {
    "corpus": "corpus",
    "synthesis": "pairs make",
    "pretraining": "train pmp",
    "candidates": "answers sample",
    "grades": "answers grade",
    "finetuning": "train rm",
    "evaluation": "eval bon",
    "scoring": "score",
}
STAGE_FOLDER = re.compile(rf"({'|'.join(STAGE_JOBS | SIDE_JOBS)})-([0-9a-f]{{12}})")
# A number here goes up when a stage's code changes what it computes from the same settings.
_STAGE_VERSION = (
    dict.fromkeys(STAGE_JOBS, 2)
    | {"corpus": 6, "synthesis": 5, "candidates": 4}
    | {"grades": 4}
    | dict.fromkeys(("pretraining", "finetuning"), 5)
    | {"scoring": 2, "evaluation": 6}
)


class Stage:
    """One stage's folder, `folder` in the run directory. `store` and `ledger` are rooted in it."""

    def __init__(self, recipe: Recipe, name: str, stage_fingerprint: str) -> None:
        self.name = name
        self.fingerprint = stage_fingerprint
        self.recipe = recipe
        self.folder = f"{name}-{stage_fingerprint}"
        self.store = open_store(recipe.run_dir).sub(self.folder)
        self.ledger = ShardLedger(self.store)

    @property
    def uri(self) -> str:
        """The folder as a path or URI: what `open_store` takes, and what people are shown."""
        return self.store.uri

    @property
    def exists(self) -> bool:
        """Whether anything of it is there."""
        return bool(self.store.list(""))

    @property
    def has_begun(self) -> bool:
        return self.store.exists("manifest.json")

    @property
    def is_complete(self) -> bool:
        return self.store.exists("complete.json")

    def start(self, num_shards: int | None = None, models: dict[str, str] | None = None) -> None:
        """Write the manifest; called when the job begins or resumes.

        `num_shards` is the stage's whole work, for those who ask how far it is. `models` are those
        that it loads, by what they do there; hub models with their commits.
        """
        if self.name in self.recipe.reuse:
            raise InputError(
                f"reuse.{self.name}={self.fingerprint}: {self.uri} is not complete.",
                "Leave it out of reuse; only finished work of other settings is taken.",
            )
        self.store.require_ready()
        told = {"num_shards": num_shards, "models": redacted_values(models or {})}
        record = run_manifest(self.recipe) | told
        self.store.put("manifest.json", record_bytes(record, indent=2))

    def manifest(self) -> dict[str, Any]:
        """What `start` wrote; {} before it. Raises StorageError where it is damaged."""
        return stored_record(self.store, "manifest.json") if self.has_begun else {}

    def num_shards(self) -> int | None:
        """What `start` was told; None before it, and for stages that are not cut into shards."""
        return self.manifest().get("num_shards")

    def complete(self, summary: dict[str, Any]) -> None:
        """Mark the stage as done. `summary` holds its counts and timings."""
        identity = {"stage": self.name, "fingerprint": self.fingerprint, "finished": _now()}
        record = identity | summary
        self.store.put_exclusive("complete.json", record_bytes(record, indent=2))

    def remove(self) -> None:
        """Delete the stage. Killed at any point, what is left is taken for unfinished work."""
        self.store.delete("complete.json")
        for folder in ("_rollups", "_commits", ""):
            self.store.delete_tree(folder)

    def summary(self) -> dict[str, Any]:
        """What `complete` recorded. Raises InputError when the stage is not done."""
        self.require()
        return stored_record(self.store, "complete.json")

    def require(self, otherwise: str = "") -> Stage:
        """This stage, if done. Raises InputError that names the job to run, or `otherwise`."""
        if not self.is_complete:
            job, command = job_of(self.name), STAGE_COMMANDS[self.name]
            run = f"Run codepmp {command} (python -m jobs.{job}) with the same recipe first"
            raise InputError(
                f"The stage {self.name!r} of this recipe is not complete in {self.uri}.",
                f"{run}, {otherwise}." if otherwise else f"{run}.",
            )
        return self


def job_of(stage: str) -> str:
    """The job that makes the stage."""
    return (STAGE_JOBS | SIDE_JOBS)[stage]


def stages_of_run(recipe: Recipe) -> list[Stage]:
    """The stages of the main job in its order, then others that have begun."""
    others = [open_stage(recipe, name) for name in SIDE_JOBS]
    main = [open_stage(recipe, name) for name in STAGE_JOBS]
    return main + [stage for stage in others if stage.has_begun]


def stage_folders(recipe: Recipe) -> list[Stage]:
    """Every stage that the run directory holds, whatever its settings."""
    found = [STAGE_FOLDER.fullmatch(name) for name in open_store(recipe.run_dir).list("")]
    return [Stage(recipe, match[1], match[2]) for match in found if match]


def require_run(recipe: Recipe) -> None:
    """Raise InputError when there is no run directory, or bucket prefix, of that name."""
    place = recipe.run_dir
    if open_store(place).list("") or (not is_uri(place) and Path(absolute(place)).is_dir()):
        return
    remedy = "Set run_dir, or name the recipe of a run."
    if not is_uri(place):
        beside = Path(absolute(place)).parent
        near = [name for name in LocalStore(beside).list("") if _holds_stages(beside / name)]
        remedy = f"{remedy} Runs beside it: {', '.join(near) or 'none'}."
    raise InputError(f"The run directory {absolute(place)} does not exist.", remedy)


def _holds_stages(folder: Path) -> bool:
    return folder.is_dir() and any(STAGE_FOLDER.fullmatch(n) for n in LocalStore(folder).list(""))


def stages_read(recipe: Recipe) -> dict[str, tuple[str, ...]]:
    """Stage -> those that it reads. With data sets or a model of its own it reads none for them."""
    pmp, rm = recipe.pretraining, recipe.finetuning
    return {
        "corpus": (),
        "synthesis": ("corpus",),
        "pretraining": () if pmp.data else ("synthesis",),
        "candidates": (),
        "grades": ("candidates",),
        "finetuning": (
            *(() if rm.model_name_or_path else ("pretraining",)),
            *(() if rm.data else ("grades",)),
        ),
        "evaluation": ("finetuning", "grades"),
        "scoring": () if recipe.serving.model_path else ("finetuning",),
    }


def stage_fingerprints(recipe: Recipe) -> dict[str, str]:
    """Fingerprint of each stage, from its settings and those of the stages that it reads."""
    prints: dict[str, str] = {}
    reads = stages_read(recipe)

    def add(name: str, *parts: Any) -> None:
        upstream = [prints[stage] for stage in reads[name]]
        made = fingerprint(name, _STAGE_VERSION[name], upstream, *parts)
        prints[name] = recipe.reuse.get(name, made)

    # The standard library differs between interpreters.
    interpreter = platform.python_version() if recipe.corpus.source.kind == "stdlib" else ""
    corpus = recipe.corpus_in_use
    named = [corpus.filters.opt_out_path, *(item.path for item in corpus.decontamination.sets)]
    add("corpus", corpus, interpreter, *content_digests(named))
    engines = recipe.engines
    models = [engines.strong.model_name_or_path, engines.weak.model_name_or_path]
    # A number of its own for those pairs that executed code decides.
    executed = [2] if recipe.synthesis.construction in EXECUTED else []
    models = [*map(weights_version, models), *_template_digests(engines.strong, engines.weak)]
    add("synthesis", recipe.synthesis, engines, *models, *executed)
    pmp, rm = recipe.pretraining, recipe.finetuning
    base = base_model(recipe)
    add("pretraining", pmp, base, weights_version(base), *_data_digests(pmp))
    named = [recipe.candidates.task_path, recipe.candidates.pool_path]
    task_file = content_digests([path for path in named if path])
    generator = recipe.generator
    models = [weights_version(generator.model_name_or_path), *_template_digests(generator)]
    add("candidates", recipe.candidates, generator, *models, *task_file)
    add("grades", recipe.evaluation.sandbox, recipe.evaluation.grader)
    weights = weights_version(rm.model_name_or_path)
    add("finetuning", rm, weights, *_data_digests(rm))
    serving = recipe.serving
    given = [weights_version(serving.model_path)] if serving.model_path else []
    add("evaluation", recipe.evaluation, serving, *given)
    place = serving.model_path and written_name(serving.model_path, serving.revision)
    scorer = [serving.engine, place, serving.dtype, serving.max_model_len]
    scorer += [serving.template] if serving.template != "recorded" else []
    scorer += [serving.quantization] if serving.quantization else []
    add("scoring", recipe.batch_scoring, scorer, *given)
    return prints


def base_model(recipe: Recipe) -> str:
    """What pretraining starts from, with its revision: its own model or the strong engine's."""
    own = recipe.pretraining
    if own.model_name_or_path is not None:
        return written_name(own.model_name_or_path, own.revision)
    return recipe.engines.strong.written_name


def _data_digests(config: TrainingConfig) -> list[str]:
    return content_digests(source.path for source in (*config.data, *config.eval_data))


def _template_digests(*engines: EngineConfig) -> list[str]:
    """Of the files that hold chat templates; none for engines with those of their models."""
    return content_digests(file for engine in engines if (file := engine.template_file))


def open_stage(recipe: Recipe, name: str) -> Stage:
    """The folder of stage `name` for `recipe`; nothing is created."""
    return Stage(recipe, name, stage_fingerprints(recipe)[name])


def model_identity(recipe: Recipe) -> list[Any]:
    """What the recipe's reward model is known by: an address, a folder's content, or what
    finetunes it."""
    if recipe.evaluation.endpoint is not None:
        return ["endpoint", recipe.evaluation.endpoint]
    serving = recipe.serving.result_fields()
    if recipe.serving.model_path is not None:
        place = written_name(recipe.serving.model_path, recipe.serving.revision)
        # A hub model is known by its revision, whose commit the run keeps.
        return ["folder", serving, place if is_hub_id(place) else weights_digest(place)]
    return ["finetuning", stage_fingerprints(recipe)["finetuning"], serving]


def reward_model(recipe: Recipe) -> str:
    """Folder or URI of the model that scores: that of serving.model_path, or the finetuned one.

    A hub model is pinned, see hub_models.py. Raises InputError when that is not finished, and
    ModelError when the hub does not have it.
    """
    serving = recipe.serving
    if serving.model_path is not None:
        return pin(recipe.run_dir, serving.model_path, serving.revision)
    return open_stage(recipe, "finetuning").require().store.locate(MODEL_FOLDER)


def run_manifest(recipe: Recipe) -> dict[str, Any]:
    """Configuration, versions, commit and machine, for the run directory and the report.

    Credentials in URLs are left out.
    """
    return {
        "written": _now(),
        "command": redacted(" ".join([Path(sys.argv[0]).name, *sys.argv[1:]])),
        "recipe": redacted_values(recipe.model_dump(mode="json")),
        "fingerprints": stage_fingerprints(recipe),
        "versions": installed_versions(),
        "commit": git_commit(),
        "platform": platform.platform(),
        "python": platform.python_version(),
    }


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
