"""Which replicas of which models a recipe's `serving` section asks for."""

from __future__ import annotations

from typing import Any

from codepmp_ray.cluster.placement import Need
from codepmp_ray.cluster.preflight import num_gpus_in_cluster
from codepmp_ray.config.evaluation import ServingConfig
from codepmp_ray.errors import ConfigError
from codepmp_ray.hub_models import at_commit
from codepmp_ray.runs import MODEL_FOLDER
from codepmp_ray.storage import absolute

from .models import ENSEMBLE, LOWER_BOUND

SCORER_NAME = "ScorerReplica"


def each_model(config: ServingConfig, model: str) -> dict[str, tuple[ServingConfig, str]]:
    """Settings and place of each model by its name; the first is `model`.

    Raises ConfigError for a name that another one has, or an ensemble.
    """
    first = served_name(config, model)
    others = config.other_models
    for name in (first, *others):
        if others and (name in (ENSEMBLE, LOWER_BOUND) or (name == first and name in others)):
            raise ConfigError(
                f"serving: two models would be called {name!r}.",
                f"Names in other_models differ from {first!r} and from those of ensembles: set "
                "served_model_name.",
            )
    found = {first: (config, model)}
    for name, other in others.items():
        place = absolute(at_commit(other.model_path, other.revision))
        found[name] = config.with_model(other), place
    return found


def scorer_name(number: int, model_name: str) -> str:
    """Of the deployment of a model, which is the `number`-th."""
    return f"{SCORER_NAME}-{model_name}" if number else SCORER_NAME


def served_name(config: ServingConfig, model: str) -> str:
    """The configured name, or that of the folder (of the stage's folder for <stage>/model)."""
    if config.served_model_name:
        return config.served_model_name
    parts = [part for part in model.split("/") if part]
    return parts[-2] if parts[-1] == MODEL_FOLDER and len(parts) > 1 else parts[-1]


def gpus_per_replica(config: ServingConfig) -> float:
    """As configured, or one where the cluster has any."""
    if config.num_gpus is not None:
        return config.num_gpus
    return 1.0 if num_gpus_in_cluster(config.label_selector) else 0.0


def serving_needs(config: ServingConfig) -> list[Need]:
    """The replicas that the service starts with, of each model: those that a cluster can never hold
    are refused, as Serve would wait for them forever.
    """
    others = config.other_models.items()
    models = {"": config} | {f" by {name}": config.with_model(other) for name, other in others}
    return [_need(words, one, gpus_per_replica(one)) for words, one in models.items()]


def _need(words: str, config: ServingConfig, num_gpus: float) -> Need:
    return Need(
        f"Scoring{words} with serving.num_replicas={config.num_replicas} x "
        f"(num_cpus={config.num_cpus:g}, num_gpus={num_gpus:g})",
        {"CPU": config.num_cpus, "GPU": num_gpus},
        config.num_replicas,
        config.label_selector,
        "Lower serving.num_replicas, serving.num_cpus or serving.num_gpus.",
    )


def replica_options(config: ServingConfig, num_gpus: float) -> dict[str, Any]:
    """Ray's options of one replica's actor."""
    options: dict[str, Any] = {"num_cpus": config.num_cpus, "num_gpus": num_gpus}
    if config.label_selector:
        options["label_selector"] = dict(config.label_selector)
    return options


def scaling_of(config: ServingConfig) -> dict[str, Any]:
    """Options of the scorer's deployment: a fixed number of replicas, or autoscaling by tokens."""
    if config.max_replicas is None or config.max_replicas <= config.num_replicas:
        return {"num_replicas": config.num_replicas}
    policy = {
        "policy_function": f"{__package__}.autoscaling:TokenPolicy",
        "policy_kwargs": {"target_tokens": config.target_tokens_per_replica},
    }
    return {
        "autoscaling_config": {
            "min_replicas": config.num_replicas,
            "max_replicas": config.max_replicas,
            "initial_replicas": config.num_replicas,
            "upscale_delay_s": 5.0,
            "downscale_delay_s": config.downscale_delay_s,
            "look_back_period_s": 10.0,
            "policy": policy,
        }
    }
