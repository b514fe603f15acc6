"""The Serve application of a recipe's `serving` section, and what is refused before it starts."""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ray import serve
from ray.actor import ActorHandle
from ray.serve.config import RequestRouterConfig

from codepmp_ray.cluster.preflight import require_needs
from codepmp_ray.config.audit import AuditConfig
from codepmp_ray.config.evaluation import ServingConfig
from codepmp_ray.errors import ConfigError
from codepmp_ray.evaluation.audit.served import require_audited
from codepmp_ray.hub_models import at_commit
from codepmp_ray.scoring.exported_model import require_model
from codepmp_ray.storage import absolute
from codepmp_ray.weights_digest import weights_digest

from .answer_schemas import Calibration
from .app import ServiceSettings
from .auth import KeyRing, digest_of, key_from_environment
from .deployments import ListeningIngress, ProxiedIngress, ScorerReplica
from .listening import Listener
from .replicas import (
    each_model,
    gpus_per_replica,
    replica_options,
    scaling_of,
    scorer_name,
    serving_needs,
)
from .settings import ModelFacts
from .traces import require_packages

INGRESS_NAME = "Ingress"
DEFAULT_KEY_VARIABLE = "CODEPMP_API_KEY"
# Requests at the ingress: those that wait there for their turn are bounded by their memory.
_INGRESS_REQUESTS = 65_536
# Of a replica, beyond what admission lets through: what asks about it never waits behind work.
_CONTROL_REQUESTS = 64
# It takes this long at most until a dead replica's successor is started.
_HEALTH_CHECK_PERIOD_S = 1.0


def build_application(
    config: ServingConfig,
    model_path: str | Path,
    api_key_sha256: Sequence[str],
    replica_class: type[ScorerReplica] = ScorerReplica,
    limits: AuditConfig | None = None,
    owner: ActorHandle | None = None,
    listener: Listener | None = None,
) -> serve.Application:
    """The bound application; nothing is started. `model_path` is a folder every node can
    read, or the URI of one.

    Under `require_audit` the model's audit has to be passed, by `limits` or else its own recipe's.
    With `owner`, an actor of the job that starts it, the service ends too. With `listener` it takes
    connections there, else from Serve's proxy.
    Deployed over a running one it replaces that replica by replica: each finishes what it has, for
    at most `drain_timeout_s`. The ingress's successor starts first, as it needs no CPU.
    """
    # Refuse what is no digest here, not in the replica, which also runs in another folder.
    keys_file = config.api_keys_file and str(Path(config.api_keys_file).absolute())
    KeyRing(api_key_sha256, keys_file)
    for digests in (config.metrics_token_sha256, config.admin_key_sha256):
        if digests:
            KeyRing(digests)
    if config.admin_key_sha256 and not config.weight_roots:
        raise ConfigError(
            "serving.admin_key_sha256 opens /admin/weights, and serving.weight_roots is empty.",
            "Name the folders or URIs from which weights may be loaded.",
        )
    if config.otlp_traces_endpoint is not None:
        require_packages()
    models = each_model(config, absolute(str(model_path)))
    facts = [_facts_of(name, *model, limits) for name, model in models.items()]
    quantised = next((found for found in facts if found.quantization), None)
    if quantised and config.admin_key_sha256:
        raise ConfigError(
            f"The model {quantised.model_name!r} is quantised ({quantised.quantization}): its "
            "weights cannot be changed in place.",
            "Leave serving.admin_key_sha256 out.",
        )
    require_needs(serving_needs(config))
    settings = ServiceSettings(
        **facts[0].model_dump(),
        other_models=tuple(facts[1:]),
        lower_bound_stds=config.lower_bound_stds,
        api_key_sha256=tuple(api_key_sha256),
        api_keys_file=keys_file,
        metrics_token_sha256=tuple(config.metrics_token_sha256),
        admin_key_sha256=tuple(config.admin_key_sha256),
        weight_roots=tuple(map(absolute, config.weight_roots)),
        cors_origins=tuple(config.cors_origins),
        truncate=None if config.truncate == "refuse" else config.truncate,
        max_candidates=config.max_candidates,
        max_body_bytes=config.max_body_bytes,
        max_concurrent_requests=config.max_concurrent_requests,
        max_tokens_in_flight=config.max_tokens_in_flight,
        max_waiting_bytes=config.max_waiting_bytes,
        requests_per_minute=config.requests_per_minute,
        tokens_per_minute=config.tokens_per_minute,
        otlp_traces_endpoint=config.otlp_traces_endpoint,
        execute=config.execute,
    )
    ingress = serve.deployment(
        name=INGRESS_NAME,
        ray_actor_options={"num_cpus": 0, **_machine_of(listener)},
        max_ongoing_requests=_INGRESS_REQUESTS,
        health_check_period_s=_HEALTH_CHECK_PERIOD_S,
        graceful_shutdown_timeout_s=config.drain_timeout_s,
        max_surge_percent=100,
    )
    scorers = {
        name: _scorer(scorer_name(number, name), *model, replica_class)
        for number, (name, model) in enumerate(models.items())
    }
    arguments = settings.model_dump(mode="json"), scorers, owner
    if listener is None:
        return ingress(ProxiedIngress).bind(*arguments)
    return ingress(ListeningIngress).bind(*arguments, listener)


def _facts_of(
    name: str, config: ServingConfig, model: str, limits: AuditConfig | None
) -> ModelFacts:
    """Raises what is wrong with a model before anything starts."""
    facts = require_model(config, model)
    if config.require_audit:
        require_audited(config, model, limits)
    quantised = facts.get("quantization_config") or {}
    return ModelFacts(
        model_name=name,
        weights_digest=weights_digest(model),
        max_model_len=config.max_model_len,
        dtype=config.dtype,
        quantization=config.quantization or quantised.get("quant_method"),
        label=str(facts.get("id2label", {}).get("0", "LABEL_0")),
        calibration=calibration_of(config),
    )


def _scorer(
    name: str, config: ServingConfig, model: str, replica_class: type[ScorerReplica]
) -> serve.Application:
    """The deployment of one model."""
    num_gpus = gpus_per_replica(config)
    most_replicas = max(config.num_replicas, config.max_replicas or 0)
    scorer = serve.deployment(
        name=name,
        **scaling_of(config),
        ray_actor_options=replica_options(config, num_gpus),
        # Admission bounds the work; two ingresses admit it while one replaces the other.
        max_ongoing_requests=2 * config.max_concurrent_requests * most_replicas + _CONTROL_REQUESTS,
        request_router_config=RequestRouterConfig.model_validate(
            {"request_router_class": f"{__package__}.router.PrefixRouter"}
        ),
        # A model that cannot be loaded is reported, not tried twenty times.
        max_constructor_retry_count=1,
        health_check_period_s=_HEALTH_CHECK_PERIOD_S,
        graceful_shutdown_timeout_s=config.drain_timeout_s,
        max_surge_percent=config.max_surge_percent,
    )(replica_class)
    return scorer.bind(model, config.model_dump(mode="json"), num_gpus)


def _machine_of(listener: Listener | None) -> dict[str, Any]:
    return {"label_selector": {"ray.io/node-id": listener.node_id}} if listener else {}


def build_app(args: dict[str, Any]) -> serve.Application:
    """Builder for `serve run` and `serve deploy` (serve/config.yaml).

    `args` are the keys of a recipe's serving section, with model_path given, and optionally
    `api_key_sha256`: digests of the accepted keys. Without it $CODEPMP_API_KEY is the one key.
    With `require_audit` it needs `audit_file`, which every machine that builds it can read.
    Host, port and TLS belong to Serve's own http_options there.
    """
    fields = dict(args)
    digests = fields.pop("api_key_sha256", None) or []
    if not digests:
        key = key_from_environment(os.environ, DEFAULT_KEY_VARIABLE)
        digests = [digest_of(key)] if key else []
    try:
        config = ServingConfig.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "args"
        raise ConfigError(f"serve args: {name}: {first['msg']}.") from error
    if not config.model_path:
        raise ConfigError("serve args: model_path is missing.", "Name an exported model's folder.")
    if config.tls_cert_file or config.tls_key_file:
        raise ConfigError(
            "serve args: tls_cert_file and tls_key_file have no effect here.",
            "Set http_options.ssl_certfile and ssl_keyfile of the Serve config.",
        )
    return build_application(config, at_commit(config.model_path, config.revision), digests)


def tls_options(config: ServingConfig) -> dict[str, str]:
    """Serve's HTTP options for TLS, none without. The files are those of this machine.

    Raises ConfigError for one file without the other, or a pair that no server can use.
    """
    cert_file, key_file = config.tls_cert_file, config.tls_key_file
    if cert_file is None and key_file is None:
        return {}
    named = f"serving.tls_cert_file={cert_file} and tls_key_file={key_file}"
    if cert_file is None or key_file is None:
        raise ConfigError(f"{named}: one is missing.", "Give both, or none for plain HTTP.")
    try:
        # A key with a password would ask for it on the terminal.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert_file, key_file, password=lambda: "")
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(
            f"{named} cannot be used: {error.strerror or error}.",
            "Give a PEM certificate (with its chain) and its PEM key without a password, readable "
            "by this user.",
        ) from error
    return {
        "ssl_certfile": str(Path(cert_file).absolute()),
        "ssl_keyfile": str(Path(key_file).absolute()),
    }


def calibration_of(config: ServingConfig) -> Calibration | None:
    """Raises ConfigError where one of the two figures is missing."""
    if config.score_mean is None and config.score_std is None:
        return None
    if config.score_mean is None or config.score_std is None:
        raise ConfigError(
            f"serving.score_mean={config.score_mean} and score_std={config.score_std}: one is "
            "missing.",
            "Give both, measured on one set of answers, or none.",
        )
    return Calibration(mean=config.score_mean, std=config.score_std)
