"""Candidate pools, their grading, serving, scoring in bulk and best-of-N evaluation."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from codepmp_ray.config.base import LabelSelector, Section, later, operational
from codepmp_ray.config.engines import EngineConfig, Role, SamplingConfig

Task = Literal[
    "humaneval", "humaneval_plus", "mbpp", "mbpp_plus", "gsm8k", "math", "math500", "reclor",
    "logiqa2", "lsat_lr", "live_code_bench", "reasoning_gym",
]  # fmt: skip


class CandidatesConfig(Section):
    """Candidate answers per problem. Table 10: temperature 0.7, top-p 1.

    Problems that train and problems that evaluate are disjoint by construction. Of multiple choice
    the candidates are the options.

    Attributes:
        task: see docs/evaluation.md.
        task_path: a file of the task's rows; null reads HumanEval from its package, others from
            the hub.
        pool_path: a file of answers that were sampled elsewhere; then no generator runs, and
            the samples are at most `num_*_samples` of the file's answers per problem, in its order.
        kinds: of `reasoning_gym`: the parameters of each kind of problem; `size` is how many
            different problems it makes.
        split_seed: which problems train and which evaluate; of `reasoning_gym` also which there
            are.
        role: whose engine answers, where `engine` is null.
        engine: a generator of its own, beside the two that write pairs; it names its model.
        num_train_problems / num_eval_problems: that feed RM finetuning, and the evaluation.
        num_train_samples / num_eval_samples: answers to each of these problems.
        sampling: how answers are sampled.
        problems_per_shard: of one shard, the unit of resuming.
    """

    task: Task = "humaneval"
    task_path: str | None = None
    pool_path: str | None = None
    kinds: dict[str, dict[str, Any]] = later({})
    role: Role = "strong"
    engine: EngineConfig | None = None
    num_train_problems: int = Field(default=82, ge=0)
    num_eval_problems: int = Field(default=82, ge=1)
    num_train_samples: int = Field(default=4, ge=1, le=256)
    num_eval_samples: int = Field(default=16, ge=1, le=256)
    sampling: SamplingConfig = SamplingConfig(temperature=0.7, top_p=1.0, max_tokens=512)
    split_seed: int = 0
    problems_per_shard: int = Field(default=32, ge=1)

    @model_validator(mode="after")
    def _engine_names_its_model(self) -> CandidatesConfig:
        # One key of an engine, such as num_gpus, must not bring a model that nobody named.
        if self.engine and "model_name_or_path" not in self.engine.model_fields_set:
            raise ValueError(
                f"candidates.engine is a generator of its own: set "
                f"candidates.engine.model_name_or_path, or set engines.{self.role}, which answers "
                "where candidates.engine is null"
            )
        return self

    @model_validator(mode="after")
    def _kinds_where_problems_are_made(self) -> CandidatesConfig:
        if (self.task == "reasoning_gym") != bool(self.kinds):
            raise ValueError(
                f"task={self.task} with kinds={list(self.kinds)}: kinds, such as "
                "{products: {max_digits: 1}}, go with task=reasoning_gym and with no other"
            )
        if self.kinds and (self.task_path or self.pool_path):
            raise ValueError("with kinds, which make problems, task_path and pool_path are null")
        return self


def _require_http(endpoint: str | None) -> None:
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise ValueError(f"endpoint={endpoint!r} must start with http:// or https://")


class SandboxConfig(Section):
    """Limits of one execution of generated code, and what it can reach.

    Attributes:
        packages: installed distributions that code may import, each with those that it needs.
        shared_process: problems whose tests run in the answer's own process, because they hand over
            objects; an answer can forge the verdict of these.
        endpoint: a SandboxFusion service that executes instead of this machine. There test and
            answer always share a process.
        time_limit_s: wall-clock seconds of one execution.
        memory_mb / max_processes: that one execution may have.
        max_file_mb / max_output_bytes: of a file that it writes, and of what it prints.
        num_parallel: executions at once; null: one per core.
    """

    time_limit_s: float = Field(default=10.0, gt=0)
    memory_mb: int = Field(default=512, ge=64)
    max_processes: int = Field(default=16, ge=1)
    max_file_mb: int = Field(default=16, ge=1)
    max_output_bytes: int = Field(default=65_536, ge=1)
    num_parallel: int | None = operational(None, ge=1)
    packages: list[str] = later([])
    shared_process: list[str] = later([])
    endpoint: str | None = later(None)

    @model_validator(mode="after")
    def _endpoint_is_http(self) -> SandboxConfig:
        _require_http(self.endpoint)
        return self


class GraderConfig(Section):
    """Limits on grading one answer that is not code; each has processor time, not wall-clock.

    Attributes:
        num_parallel: processes of one task; null: one per core of what the task has.
        label_selector: nodes that grade, code too.
        time_limit_s: processor seconds of one answer.
        memory_mb: of one process that grades.
    """

    time_limit_s: float = Field(default=5.0, gt=0)
    memory_mb: int = Field(default=1024, ge=64)
    num_parallel: int | None = operational(None, ge=1)
    label_selector: LabelSelector = operational({})


class ServingConfig(Section):
    """The best-of-N scoring service. Loopback unless the host is changed.

    Attributes:
        template: what is put around prompts and answers: `recorded` is the codepmp_template.json
            beside the weights, `own` the chat template of a reward model of others, whose reward is
            read where the rendered conversation ends.
        execute: run the tests that a request brings (`stages: [run, reward]`), in the sandbox.
        sandbox: limits of a program that is run for a request.
        engine: `vllm`, or `torch` for models that vLLM cannot load.
        model_path: folder, URI or hub id; null: the finetuned model of this run.
        revision: of a hub model in model_path; null: its main branch.
        served_model_name: what `/v1/models` and `model` call it; null: the model's own name.
        host / port: that the service listens on; port 0 takes a free one.
        tls_cert_file / tls_key_file: PEM files, the certificate with its chain; both or none.
        require_audit / audit_file: serve only what has passed `codepmp eval audit`, and its
            audit.json; null: the recipe's own.
        dtype: of the weights.
        max_model_len: tokens of prompt and candidate together.
        max_candidates: of one request.
        max_body_bytes: of one request; larger ones get 413.
        max_concurrent_requests: that one replica works on; others wait.
        api_keys_file: sha256 digests of the keys that may call; it is read again when it changes.
        metrics_token_sha256: digests of the tokens that open /metrics.
        max_tokens_in_flight: of each replica.
        max_waiting_bytes: of all calls that wait.
        truncate: a text that is too long, where the request does not say: refused, or cut at that
            end.
        cors_origins: of web pages that may call; "*" for all.
        admin_key_sha256: digests of the keys that open /admin/weights.
        weight_roots: folders and URIs under which /admin/weights may load.
        score_mean / score_std: of rewards; with both, requests may ask for (reward - mean) / std.
        num_replicas / max_replicas: the fewest and the most; without `max_replicas` always
            `num_replicas`.
        target_tokens_per_replica: in flight, at which autoscaling aims.
        downscale_delay_s: seconds of less load before a replica goes.
        max_surge_percent: replicas beyond their number during a rollout.
        drain_timeout_s: seconds for requests in flight, before a stop.
        num_cpus / num_gpus: Ray resources of one replica; `num_gpus=null`: one where the cluster
            has GPUs.
        label_selector: nodes that replicas may run on.
        kv_cache_gb: GiB of key-value cache of a replica without a GPU.
        block_size: tokens of one block of vLLM's cache; prompts are shared in whole blocks.
    """

    engine: Literal["vllm", "torch"] = "vllm"
    model_path: str | None = None
    revision: str | None = later(None)
    served_model_name: str | None = None
    host: str = operational("127.0.0.1")
    port: int = operational(9000, ge=0, le=65535)
    tls_cert_file: str | None = operational(None)
    tls_key_file: str | None = operational(None)
    require_audit: bool = operational(False)
    audit_file: str | None = operational(None)
    template: Literal["recorded", "own"] = later("recorded")
    dtype: Literal["float32", "bfloat16"] = "float32"
    max_model_len: int = Field(default=2048, ge=8)
    max_candidates: int = Field(default=256, ge=1, le=256)
    max_body_bytes: int = operational(8_000_000, ge=1024)
    max_concurrent_requests: int = operational(64, ge=1)
    api_keys_file: str | None = operational(None)
    metrics_token_sha256: list[str] = operational([])
    max_tokens_in_flight: int = operational(262_144, ge=1)
    max_waiting_bytes: int = operational(536_870_912, ge=0)
    truncate: Literal["refuse", "right", "left"] = later("refuse")
    cors_origins: list[str] = operational([])
    admin_key_sha256: list[str] = operational([])
    weight_roots: list[str] = operational([])
    score_mean: float | None = operational(None)
    score_std: float | None = operational(None, gt=0)
    num_replicas: int = operational(1, ge=1)
    max_replicas: int | None = operational(None, ge=1)
    target_tokens_per_replica: int = operational(65_536, ge=1)
    downscale_delay_s: float = operational(300.0, ge=0)
    max_surge_percent: int = operational(0, ge=0, le=100)
    drain_timeout_s: float = operational(120.0, gt=0)
    num_cpus: float = operational(1.0, gt=0)
    num_gpus: float | None = operational(None, ge=0)
    label_selector: LabelSelector = operational({})
    kv_cache_gb: float = operational(1.0, gt=0)
    block_size: int = operational(16, ge=1)
    execute: bool = operational(False)
    sandbox: SandboxConfig = operational(SandboxConfig())

    @model_validator(mode="after")
    def _no_problems_of_its_own(self) -> ServingConfig:
        if self.sandbox.shared_process:
            raise ValueError("sandbox.shared_process names problems, and requests have no names")
        return self

    @model_validator(mode="after")
    def _revision_of_a_model(self) -> ServingConfig:
        if self.revision is not None and self.model_path is None:
            raise ValueError(
                f"revision={self.revision} is of model_path, which is not set: the finetuned model "
                "of this run has none"
            )
        return self


class EvaluationConfig(Section):
    """Best-of-N accuracy from one pool of candidates per problem.

    Attributes:
        endpoint: a service that scores; null starts one for the time of the job.
        api_key_env: the environment variable that holds the key of `endpoint`.
        confidence: of all intervals.
        num_bootstrap: resamples of an interval that needs them.
        seed: of the resamples.
    """

    endpoint: str | None = None
    api_key_env: str = operational("CODEPMP_API_KEY")
    confidence: float = Field(default=0.95, gt=0, lt=1)
    num_bootstrap: int = Field(default=2_000, ge=100)
    seed: int = 0
    sandbox: SandboxConfig = SandboxConfig()
    grader: GraderConfig = GraderConfig()

    @model_validator(mode="after")
    def _endpoint_is_http(self) -> EvaluationConfig:
        _require_http(self.endpoint)
        return self


class BatchScoringConfig(Section):
    """One row is one prompt with its candidates. Model and engine are those of `serving`.

    Attributes:
        path: a Parquet or JSON lines file, or a folder of such files; a path or a URI.
        id_column: what a row is called in the result; rows without one are called after their
            place.
        prompt_column: the prompt as text, or a conversation as a list of {role, content}.
        messages_column: a conversation, for files that have both kinds of row.
        candidates_column: a list of texts.
        rows_per_shard: a row group of Parquet that is much larger is read again for each of its
            shards.
        min_actors / max_actors: bounds of the autoscaling pool; `max_actors=None` means one for
            every `serving.num_gpus` GPUs, without GPUs one for each node.
        max_rows_in_flight: prompts that one engine has at once.
        crash_patience / max_crashes: as in `engines`.
    """

    path: str | None = None
    id_column: str = "id"
    prompt_column: str = "prompt"
    messages_column: str = "messages"
    candidates_column: str = "candidates"
    rows_per_shard: int = Field(default=256, ge=1)
    min_actors: int = operational(1, ge=1)
    max_actors: int | None = operational(None, ge=1)
    max_rows_in_flight: int = operational(16, ge=1)
    crash_patience: int = operational(2, ge=1)
    max_crashes: int = operational(50, ge=0)

    @model_validator(mode="after")
    def _pool_bounds(self) -> BatchScoringConfig:
        if self.max_actors is not None and self.min_actors > self.max_actors:
            raise ValueError(f"min_actors={self.min_actors} exceeds max_actors={self.max_actors}")
        return self

    def columns(self) -> list[str]:
        """Every column that is read, where the file has it."""
        named = [
            *(self.id_column, self.prompt_column),
            *(self.messages_column, self.candidates_column),
        ]
        return list(dict.fromkeys(named))
