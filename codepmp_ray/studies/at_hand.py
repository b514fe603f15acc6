"""Reward models at hand: found before anything is trained, and known by what they are.

The key of a folder follows from its weights, that of a service from what it says of its model, so
scores are found again where the same model lies elsewhere, and never taken for another's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from codepmp_ray.config.base import fingerprint
from codepmp_ray.config.evaluation import ServingConfig
from codepmp_ray.config.reward_models import RewardConfig
from codepmp_ray.config.studies import ScoringConfig
from codepmp_ray.errors import ConfigError, InputError
from codepmp_ray.hub_models import is_hub_id
from codepmp_ray.modeling.sources import CONFIG_FILE, resolve_model
from codepmp_ray.runs import MODEL_FOLDER
from codepmp_ray.scoring.exported_model import require_model
from codepmp_ray.storage import absolute, open_store
from codepmp_ray.studies.scores import Trained, ask
from codepmp_ray.weights_digest import weights_digest

_VERSION = 1  # goes up when the same model is scored with in another way


@dataclass(frozen=True)
class AtHand:
    """A reward model that was found. `words` say in a report what it is."""

    label: str
    model: Trained
    words: str


def find_reward_model(name: str, config: RewardConfig, scoring: ScoringConfig) -> AtHand:
    """The model of `rewards.NAME`.

    Raises InputError or ConfigError for a folder that holds no exported reward model or one that
    cannot be scored with as `scoring` says, and what `served.ask` raises.
    """
    label = config.title or name
    base = f"reward:{name}"  # timed apart from models that are trained
    if config.endpoint is not None:
        setting = f"rewards.{name}.endpoint"
        service = ask(config.endpoint, config.api_key_env, setting)
        told = service.model
        key = fingerprint(_VERSION, "service", told.weights_digest, told.max_model_len, told.dtype)
        words = (
            f"{label}: served as {told.name} at {service.place} (weights "
            f"{(told.weights_digest or '')[:12]}), scored over HTTP"
        )
        return AtHand(label, Trained(key, label, Path(), base, service), words)
    assert config.model_name_or_path is not None, "a model has a folder or an endpoint"
    place = _exported(name, config.model_name_or_path, scoring)
    digest = weights_digest(place)
    key = fingerprint(_VERSION, "folder", digest, scoring)
    facts = json.loads(open_store(place).read_bytes(CONFIG_FILE))
    architecture = (facts.get("architectures") or ["a model"])[0]
    words = (
        f"{label}: {architecture} in the folder {_folder_name(place)} (weights {digest[:12]}), "
        "scored in process"
    )
    return AtHand(label, Trained(key, label, Path(resolve_model(place)), base), words)


def _exported(name: str, given: str, scoring: ScoringConfig) -> str:
    """The absolute path or URI of the model."""
    setting = f"rewards.{name}.model_name_or_path"
    if given.startswith("builtin:") or is_hub_id(given):
        raise InputError(
            f"{setting}={given!r} is no folder, and only an exported reward model says in which "
            "words it was trained to read prompts.",
            f"Set {setting} to the folder that codepmp train rm exported.",
        )
    place = absolute(given)
    try:
        require_model(ServingConfig(max_model_len=scoring.max_model_len), place)
    except (InputError, ConfigError) as error:
        remedy = error.remedy.replace("serving.model_path", setting)
        problem = error.problem.replace("serving.max_model_len", "scoring.max_model_len")
        remedy = remedy.replace("serving.max_model_len", "scoring.max_model_len")
        raise type(error)(problem, remedy) from error
    return place


def _folder_name(place: str) -> str:
    """Without where it lies: the last folder, and the one before it for <stage>/model."""
    parts = [part for part in place.split("/") if part]
    return "/".join(parts[-2:]) if parts[-1] == MODEL_FOLDER else parts[-1]
