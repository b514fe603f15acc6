"""What a service is told of itself: its models, limits and keys."""

from __future__ import annotations

from codepmp_ray.config.base import Section
from codepmp_ray.scoring.best_of_n import Side

from .answer_schemas import Calibration
from .schemas import MAX_CANDIDATES


class ModelFacts(Section):
    """What the service tells of a model. `label` is what vLLM calls its one output."""

    model_name: str
    weights_digest: str | None = None
    max_model_len: int | None = None
    dtype: str | None = None
    quantization: str | None = None
    label: str = "LABEL_0"
    calibration: Calibration | None = None


class ServiceSettings(ModelFacts):
    """Limits and keys of one service, and its first model. Keys are sha256 digests.

    Requests at once and tokens in flight are of each replica.
    """

    other_models: tuple[ModelFacts, ...] = ()
    lower_bound_stds: float = 1.0
    api_key_sha256: tuple[str, ...]
    api_keys_file: str | None = None
    metrics_token_sha256: tuple[str, ...] = ()
    admin_key_sha256: tuple[str, ...] = ()
    weight_roots: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    truncate: Side | None = None
    max_candidates: int = MAX_CANDIDATES
    max_body_bytes: int = 8_000_000
    body_timeout_s: float = 60.0
    max_concurrent_requests: int = 64
    max_tokens_in_flight: int = 262_144
    max_waiting_bytes: int = 536_870_912
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    otlp_traces_endpoint: str | None = None
    execute: bool = False
