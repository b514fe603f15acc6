"""A recipe: every section of the main job, read from YAML, overridden on the command line.

`load_recipe(path, ["synthesis.describe.max_tokens=64"])` is the only way in. Unknown keys and
impossible values raise ConfigError that names the key, the value and a remedy.

Recipes that come with the package are called by their names: `codepmp_ray/recipes` is a link to
jobs/recipes, and a folder of data in the wheel.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar, get_origin

import yaml
from pydantic import BaseModel, ValidationError, model_validator

from codepmp_ray.config.accuracy import AccuracyConfig
from codepmp_ray.config.audit import AuditConfig
from codepmp_ray.config.base import Section, operational
from codepmp_ray.config.branches import Branch, BranchesConfig, branch_config
from codepmp_ray.config.carried import SCHEME, read_carried
from codepmp_ray.config.corpus import CorpusConfig
from codepmp_ray.config.engines import EngineConfig, EnginesConfig
from codepmp_ray.config.evaluation import (
    BatchScoringConfig,
    CandidatesConfig,
    EvaluationConfig,
    ServingConfig,
)
from codepmp_ray.config.overrides import section_type, with_override
from codepmp_ray.config.places import require_whole_schemes
from codepmp_ray.config.pool_statistics import PoolStatisticsConfig
from codepmp_ray.config.synthesis import PlanningConfig, SynthesisConfig
from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.errors import ConfigError

RECIPES = Path(__file__).resolve().parents[1] / "recipes"

# What the override `seed=N` stands for: sampled files and snippets, engines, problems, the order of
# pairs, reward heads, resamples.
_SEEDS = (
    "corpus.sample_seed",
    "engines.strong.engine_args.seed",
    "engines.weak.engine_args.seed",
    "candidates.split_seed",
    "pretraining.seed",
    "finetuning.seed",
    "evaluation.seed",
)


class Recipe(Section):
    """The whole main job. `run_dir` holds everything it writes.

    Attributes:
        reuse: stage -> fingerprint of a folder in run_dir, made with other settings, that is taken
            in place of the stage's own; see other_settings.py. `--reuse` writes it.
        name: of the run, in reports and trackers.
        run_dir: folder or URI that every node sees.
    """

    name: str = operational("unnamed")
    run_dir: str = operational("runs/default")
    reuse: dict[str, str] = operational({})
    corpus: CorpusConfig = CorpusConfig()
    engines: EnginesConfig = EnginesConfig()
    synthesis: SynthesisConfig = SynthesisConfig()
    planning: PlanningConfig = PlanningConfig()
    pretraining: TrainingConfig = TrainingConfig(objective="pmp")
    branches: BranchesConfig = BranchesConfig()
    candidates: CandidatesConfig = CandidatesConfig()
    finetuning: TrainingConfig = TrainingConfig(
        objective="rm", batch_size=64, learning_rate=1e-6, schedule="cosine", weight_decay=0.0
    )
    serving: ServingConfig = ServingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    batch_scoring: BatchScoringConfig = BatchScoringConfig()
    accuracy: AccuracyConfig = AccuracyConfig()
    audit: AuditConfig = AuditConfig()
    pool_statistics: PoolStatisticsConfig = PoolStatisticsConfig()

    @model_validator(mode="after")
    def _two_models_where_two_are_compared(self) -> Recipe:
        strong, weak = self.engines.strong, self.engines.weak
        kind = self.synthesis.construction
        if kind in ("strong_weak", "same_policy") and strong.same_model_as(weak):
            raise ValueError(
                f"synthesis.construction={kind} pairs answers of two models, but both "
                f"engines have {strong.model_name_or_path!r}: name another one in "
                "engines.weak.model_name_or_path, or let one model play both parts with "
                "synthesis.construction=description_clip"
            )
        return self

    @model_validator(mode="after")
    def _history_where_it_is_read(self) -> Recipe:
        kind = self.corpus.source.kind
        if self.synthesis.construction == "commits" and kind != "folder":
            raise ValueError(
                "synthesis.construction=commits reads the history of a git repository: set "
                f"corpus.source.kind=folder instead of {kind}, and corpus.source.path to it"
            )
        return self

    def without_reuse(self, *stages: str) -> Recipe:
        """The recipe of a variant, whose own `stages` are to be made."""
        kept = {name: value for name, value in self.reuse.items() if name not in stages}
        return self.model_copy(update={"reuse": kept})

    @property
    def generator(self) -> EngineConfig:
        """The engine that answers problems."""
        return self.candidates.engine or getattr(self.engines, self.candidates.role)

    @property
    def corpus_in_use(self) -> CorpusConfig:
        """`corpus`, with the evaluation sets of the recipe's own candidates among those it names.

        Its `decontamination` holds for snippets and for pairs.
        """
        own = self.corpus.decontamination.with_tasks((self.candidates.task,))
        return self.corpus.model_copy(update={"decontamination": own})


def branch_recipe(recipe: Recipe, branch: Branch, trunk_steps: int) -> Recipe:
    """The recipe whose pretraining is `branch`; its later stages follow from it as from any."""
    own = recipe.without_reuse("pretraining", "finetuning", "evaluation")
    pretraining = branch_config(recipe.pretraining, branch, trunk_steps)
    return own.model_copy(update={"pretraining": pretraining})


S = TypeVar("S", bound=Section)


def load_recipe(path: str | Path | None, overrides: list[str] | None = None) -> Recipe:
    """The recipe in the YAML file at `path`, with `a.b=value` overrides (values are YAML).

    `path` may be the name of a recipe of this package, or env:VARIABLE (config/carried.py); None is
    a recipe of defaults. `seed=value` sets the seeds of all stages; what follows it may set one of
    them again.
    """
    whole: list[str] = []
    for override in overrides or []:
        key, _, value = override.partition("=")
        whole += [f"{name}={value}" for name in _SEEDS] if key == "seed" else [override]
    return load_sections(Recipe, path, whole)


def load_sections(
    kind: type[S], path: str | Path | None, overrides: list[str] | None = None, folder: str = ""
) -> S:
    """`load_recipe` for any section as the outermost one; `folder` below RECIPES holds its names.

    A file at `path` comes before a recipe of that name.
    """
    data: Any = {} if path is None else _read(path, folder)
    for override in overrides or []:
        data = with_override(kind, data, override)
    made = parse_sections(kind, data, "the command line" if path is None else str(path))
    require_whole_schemes(made)
    return made


def recipe_names(folder: str = "") -> list[str]:
    """What the recipes of this package are called."""
    return sorted(file.stem for file in (RECIPES / folder).glob("*.yaml"))


def did_you_mean(name: str, known: Iterable[str], what: str = "known") -> str:
    """What `name` was perhaps meant to be, or everything that there is, as `what`."""
    choices = sorted(known)
    close = difflib.get_close_matches(name, choices, n=1)
    return f"did you mean {close[0]}?" if close else f"{what}: {', '.join(choices)}"


def _read(path: str | Path, folder: str) -> dict[str, Any]:
    file, names = Path(path), recipe_names(folder)
    if str(path) in names and not file.is_file():
        file = RECIPES / folder / f"{path}.yaml"
    try:
        is_carried = str(path).startswith(SCHEME)
        data = read_carried(str(path)) if is_carried else yaml.safe_load(file.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(
            f"The recipe {path} does not exist ({did_you_mean(file.stem, names, 'recipes')}).",
            "Give the path of a YAML file, or the name of a recipe of this package.",
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"The recipe {path} cannot be read: {error}.") from error
    if not isinstance(data, dict | None):
        raise ConfigError(f"The recipe {path} holds a {type(data).__name__}, not sections.")
    return data or {}


def parse_recipe(data: dict[str, Any], origin: str) -> Recipe:
    """Validate `data`; all problems are reported in one ConfigError."""
    return parse_sections(Recipe, data, origin)


def parse_sections(kind: type[S], data: dict[str, Any], origin: str) -> S:
    """`parse_recipe` for any section as the outermost one."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        _require_kind(kind, data, origin)
        problems = "; ".join(_explain(item, kind) for item in error.errors())
        raise ConfigError(f"{origin}: {problems}.") from error


def _require_kind(kind: type[BaseModel], data: dict[str, Any], origin: str) -> None:
    """Raise ConfigError for a recipe of the main job where studies read one, or the other way."""
    from codepmp_ray.config.studies import StudiesConfig

    names = {Recipe: "of the main job", StudiesConfig: "of studies"}
    own, given = set(kind.model_fields), set(data)
    for other, name in names.items():
        others = set(other.model_fields)
        unknown = given - own
        # An override of the wrong kind is an unknown key like any other.
        if kind in names and unknown and unknown <= others and not given & (own - others):
            raise ConfigError(
                f"{origin} is a recipe {name}, and this command reads one {names[kind]} "
                f"({', '.join(sorted(unknown))}: unknown).",
                "`codepmp paper` reads recipes of studies, everything else those of the main job.",
            )


def _explain(item: Any, kind: type[BaseModel]) -> str:
    location = [str(part) for part in item["loc"]]
    key = ".".join(location) or "recipe"
    if item["type"] == "extra_forbidden":
        known = _known_keys(location[:-1], kind)
        return f"unknown key {key} ({did_you_mean(location[-1], known, 'known keys')})"
    message = item["msg"].removeprefix("Value error, ")
    shown = item.get("input")
    value = f"={shown!r}" if isinstance(shown, str | int | float | bool) else ""
    return f"{key}{value}: {message}"


def _known_keys(location: list[str], kind: type[BaseModel]) -> list[str]:
    model = kind
    names = iter(location)
    for part in names:
        if part.isdigit():  # an entry of a list of sections
            continue
        field = model.model_fields.get(part)
        if field is not None and get_origin(field.annotation) is dict:
            next(names, None)  # the entry's own name
        inner = section_type(field.annotation) if field else None
        if inner is None:
            return []
        model = inner
    return sorted(model.model_fields)
