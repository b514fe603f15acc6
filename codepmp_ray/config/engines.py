"""Generation engines (vLLM) and sampling."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from codepmp_ray.config.base import LabelSelector, Section, later, operational
from codepmp_ray.storage.uris import written_name

Role = Literal["strong", "weak"]

# Of `engine_args`: what makes another model of the same name.
_OF_THE_MODEL = ("quantization", "hf_overrides")
PLAIN = "plain"  # of `chat_template`
# What `revision` says, once for weights and tokenizer.
_REVISIONS = ("revision", "tokenizer_revision", "code_revision")


class SamplingConfig(Section):
    """How one hop samples. Names and ranges are vLLM's.

    Attributes:
        top_k: 0 takes all tokens.
        seed: of every request by itself, so that equal prompts get equal answers.
        temperature: 0 takes the likeliest token.
        top_p / min_p: tokens are drawn from: those that make up this probability, those with at
            least this share of the likeliest one's.
        presence_penalty / repetition_penalty: on tokens that were said; 0 and 1 are none.
        max_tokens / min_tokens: of the answer; an answer that `max_tokens` cuts off is rejected.
        stop: texts at which an answer ends.
        include_stop_str_in_output: keep the text at which it ended.
    """

    temperature: float = Field(default=0.7, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = later(0, ge=0)
    min_p: float = later(0.0, ge=0, le=1)
    seed: int | None = later(None, ge=0, lt=2**63)
    presence_penalty: float = later(0.0, ge=-2, le=2)
    repetition_penalty: float = Field(default=1.0, gt=0)
    max_tokens: int = Field(default=1024, ge=1)
    min_tokens: int = Field(default=0, ge=0)
    stop: tuple[str, ...] = ()
    include_stop_str_in_output: bool = False

    @model_validator(mode="after")
    def _token_bounds(self) -> SamplingConfig:
        if self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens={self.min_tokens} exceeds max_tokens={self.max_tokens}")
        if "" in self.stop:
            raise ValueError("stop holds an empty text, at which every answer would end")
        return self


class EngineConfig(Section):
    """One pool of engines.

    Attributes:
        model_name_or_path: hub id, local folder, or `builtin:smollm2-135m-instruct`.
        revision: branch, tag or commit of a hub model; null is its main branch. The run keeps the
            commit that it means when its first job asks for it.
        max_model_len: context in tokens, prompt and answer together.
        engine_args: passed to vLLM's AsyncEngineArgs unchanged.
        chat_template: a file, or the text itself, of a Jinja template; null takes the model's own.
            `plain` asks without any: a base model goes on from the question and two newlines.
        chat_template_kwargs: variables of the template, for example {enable_thinking: false}.
        reasoning_parser: vLLM's name of the parser that takes a model's thought from its answer.
            Thoughts in the usual tags (<think> and its like) are taken out without one.
        num_cpus / num_gpus: Ray resources of one engine actor; `num_gpus=None` means
            `tensor_parallel_size` where the cluster has GPUs and 0 otherwise.
        label_selector: nodes that the actors may run on, see `LabelSelector`.
        min_actors / max_actors: bounds of the autoscaling pool.
        crash_patience: how often a shard may kill its engine before its rows run alone, in halves,
            until the row at fault is found and rejected.
        max_crashes: deaths of engines over unfinished shards after which the job stops instead.
        kind: `fake` writes made-up answers without a model, for tests.
        dtype: of the weights; `auto` takes the model's own.
        tensor_parallel_size: GPUs that one engine spreads its weights over.
        cpu_threads: of an engine without a GPU; null: every core of the machine.
        kv_cache_gb: GiB of key-value cache of an engine without a GPU.
        max_rows_in_flight: rows that one engine has at once.
    """

    kind: Literal["vllm", "fake"] = "vllm"
    model_name_or_path: str = "Qwen/Qwen2.5-Coder-1.5B-Instruct"
    revision: str | None = later(None)
    dtype: Literal["bfloat16", "float16", "float32", "auto"] = "bfloat16"
    max_model_len: int = Field(default=4096, ge=16)
    tensor_parallel_size: int = Field(default=1, ge=1)
    engine_args: dict[str, Any] = {}
    chat_template: str | None = later(None)
    chat_template_kwargs: dict[str, Any] = later({})
    reasoning_parser: str | None = later(None)
    num_cpus: float = operational(1.0, gt=0)
    num_gpus: float | None = operational(None, ge=0)
    label_selector: LabelSelector = operational({})
    cpu_threads: int | None = operational(None, ge=1)
    kv_cache_gb: float = operational(2.0, gt=0)
    min_actors: int = operational(1, ge=1)
    max_actors: int = operational(1, ge=1)
    max_rows_in_flight: int = operational(256, ge=1)
    crash_patience: int = operational(2, ge=1)
    max_crashes: int = operational(50, ge=0)

    @model_validator(mode="after")
    def _pool_bounds(self) -> EngineConfig:
        if self.min_actors > self.max_actors:
            raise ValueError(f"min_actors={self.min_actors} exceeds max_actors={self.max_actors}")
        return self

    @model_validator(mode="after")
    def _one_revision(self) -> EngineConfig:
        for name in _REVISIONS:
            if name in self.engine_args:
                raise ValueError(
                    f"engine_args has {name}={self.engine_args[name]!r}: set revision beside "
                    "model_name_or_path, which is pinned for every node and recorded"
                )
        return self

    @property
    def template_file(self) -> str | None:
        """Where `chat_template` lies, if it names a file."""
        template = self.chat_template
        return None if template in (None, PLAIN) or "{" in str(template) else template

    @property
    def written_name(self) -> str:
        """The model with its revision as one name."""
        return written_name(self.model_name_or_path, self.revision)

    def same_model_as(self, other: EngineConfig) -> bool:
        """Whether both answer alike: the same weights, asked in the same way."""

        def model(engine: EngineConfig) -> list[Any]:
            chosen = [engine.engine_args.get(name) for name in _OF_THE_MODEL]
            chosen += [engine.chat_template, engine.chat_template_kwargs]
            return [engine.kind, engine.model_name_or_path, engine.revision, *chosen]

        return model(self) == model(other)


class EnginesConfig(Section):
    """The pair of CodeLLMs. Equal settings share one pool and one copy of the weights."""

    strong: EngineConfig = EngineConfig(model_name_or_path="Qwen/Qwen2.5-Coder-1.5B-Instruct")
    weak: EngineConfig = EngineConfig(model_name_or_path="Qwen/Qwen2.5-Coder-0.5B-Instruct")
