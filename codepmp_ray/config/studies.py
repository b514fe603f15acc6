"""The studies: which models, sets and sizes stand in for the paper's, and how long each may take.

`load_studies(path, ["data_dir=data"])` is the only way in; errors are those of recipes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from codepmp_ray.config.base import Section, operational
from codepmp_ray.config.branches import BranchesConfig
from codepmp_ray.config.data import HUB_IDS, Kind
from codepmp_ray.config.recipe import load_sections
from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.storage import is_uri

Objective = Literal["pmp", "rm", "lm", "sft", "dpo"]
SetKind = Kind | Literal["python_functions", "stdlib_functions", "humaneval_corrupted"]
MADE_HERE = ("stdlib_functions", "humaneval_corrupted")


class SetConfig(Section):
    """One set of preference pairs, split into a training and a test part by question.

    Attributes:
        kind: how rows become pairs: the kinds of training sources, and three that are made here:
            `python_functions` (rows of docstring and code) and `stdlib_functions` (those of the
            standard library) pair code with a corrupted copy, `humaneval_corrupted` does so with
            HumanEval's canonical solutions.
        paths: files, relative to `data_dir`; all of them are read.
        test_paths: files of the test part; without them `test_fraction` of the questions, chosen
            by a hash, are the test part.
        hub_id / subset / split / test_split: the set on the hub, where no file is there.
        title: in tables; by default the set's name.
        stands_for: the paper's set in whose place this one is measured.
        test_fraction: 1 makes all of it test: it is measured on, and never trained on.
        made_by: the command that makes it, which is said where it is not here.
        as_transcript: conversations become one text of "\\n\\nHuman: ...\\n\\nAssistant:" turns, as
            HH-RLHF has them: for models without a chat template, which take no messages.
        learning_rate / warmup_ratio: of reward models that are finetuned on it, in place of `rm`'s
            and the model's own (Table 9, logic), if all sets of a training say the same.
    """

    kind: SetKind = "preference"
    paths: tuple[str, ...] = ()
    test_paths: tuple[str, ...] = ()
    hub_id: str | None = None
    subset: str | None = None
    split: str = "train"
    test_split: str | None = None
    title: str = ""
    stands_for: str | None = None
    max_rows: int | None = Field(default=None, ge=1)
    max_pairs_per_problem: int = Field(default=4, ge=1)
    prompt_format: str | None = None
    test_fraction: float = Field(default=0.2, ge=0, le=1)
    made_by: str = operational("")
    as_transcript: bool = False
    learning_rate: float | None = Field(default=None, gt=0)
    warmup_ratio: float | None = Field(default=None, ge=0, le=1)

    @property
    def hub_set(self) -> str | None:
        return self.hub_id or HUB_IDS.get(self.kind)

    @model_validator(mode="after")
    def _somewhere(self) -> SetConfig:
        if self.kind not in MADE_HERE and not self.paths and not self.hub_set:
            raise ValueError(f"kind={self.kind} needs paths (below data_dir) or hub_id")
        return self


class PoolConfig(Section):
    """Many labelled answers to each question; docs/data-format.md shows a row.

    Attributes:
        test_of: a set whose test questions alone are scored, because its others train.
        stands_for: the paper's benchmark in whose place this pool is measured (GSM8K, MATH,
            HumanEval); by default the one that the pool is named after, if it is.
        num_candidates: answers to each question, where it has fewer than studies ask for.
    """

    path: str
    title: str = ""
    test_of: str | None = None
    stands_for: str | None = None
    num_candidates: int | None = Field(default=None, ge=2)


class ModelConfig(Section):
    """A backbone: weights by name, or one of its own making, of random weights and this shape.

    Attributes:
        model_name_or_path: weights; for a model made here null, and only its tokenizer is taken
            from `tokenizer`.
        warmup_pairs: answers of code pairs, none of which is trained on later, that a model made
            here first learns to write, as a language model.
        pmp_pairs: of this model's PMP, where the recipe's are too many for it.
        learning_rate_factor: of all its trainings: trained weights want smaller steps.
        learning_rates: by objective, in place of the stage's rate times the factor (Tables 7, 8).
        bf16: of all its trainings, in place of the stages' own, and of its sampled answers.
        speed: of its trainings and its scoring, in shares of the recipe's `pairs_per_s` and
            `scoring.tokens_per_s`; assumed until they were timed.
    """

    model_name_or_path: str | None = None
    architecture: Literal["llama", "qwen2", "gemma2"] = "llama"
    tokenizer: str = "builtin:smollm2-135m-instruct"
    hidden_size: int = Field(default=192, ge=16)
    intermediate_size: int = Field(default=512, ge=16)
    num_hidden_layers: int = Field(default=6, ge=1)
    num_attention_heads: int = Field(default=6, ge=1)
    num_key_value_heads: int = Field(default=2, ge=1)
    warmup_pairs: int = Field(default=512, ge=0)
    pmp_pairs: int | None = Field(default=None, ge=8)
    learning_rate_factor: float = Field(default=1.0, gt=0)
    # Part of the trainings' own settings: as part of the model, too, it would make others stale.
    learning_rates: dict[Objective, Annotated[float, Field(gt=0)]] = operational({})
    bf16: bool | None = None
    speed: float = operational(1.0, gt=0)
    seed: int = 0

    @property
    def before_training(self) -> ModelConfig:
        """The model alone, without how it is trained: that is said by its trainings."""
        trained_by = ("warmup_pairs", "pmp_pairs", "learning_rate_factor", "bf16", "speed")
        defaults = {name: type(self).model_fields[name].default for name in trained_by}
        return self.model_copy(update=defaults | {"warmup_pairs": 0})


class PromptFilter(Section):
    """Which test prompts a policy is asked; a choice of ours, off unless a recipe sets it.

    Attributes:
        max_turns: of the human, in the conversation so far; 1 is single-turn prompts only.
        max_tokens: of the whole prompt, by the studied model's tokenizer.
    """

    max_turns: int | None = Field(default=None, ge=1)
    max_tokens: int | None = Field(default=None, ge=1)


class StudyOptions(Section):
    """One study's own sizes; what it leaves out comes from `defaults`.

    Attributes:
        budget_min: minutes that it may take. Seeds for which there is no time are left out, and
            the report says so.
        seeds: trainings of every arm, with different subsets, orders and heads.
        sets: names of sets, or of pools, that it is measured on.
        train_set: what finetunes, where `sets` are only measured on.
        num_train: pairs that a reward model is finetuned on; `sizes` are the points of a curve.
        num_test: test pairs scored per set.
        num_problems / num_candidates: questions of a pool, and answers to each.
        num_prompts / max_new_tokens: of policies; greedy. `num_steps` are those of GRPO.
        scorer: a reward model of others that scores their answers: a folder, or a model of the hub,
            if the hub answers; any one-label AutoModelForSequenceClassification in safetensors.
        prompt_filter: which of a set's test prompts are asked, by the set's name.
        num_rft_prompts: that RFT samples answers to, where `num_train` are too many for it.
        generator_pairs: (strong, weak) generators of the pool that Figure 13 compares, by a label
            of the pair.
        constructions: sets of pairs that were made otherwise, which Figure 6 pretrains on beside
            the constructions that it makes of `train_set`, by their label.
    """

    model: str | None = None
    models: tuple[str, ...] = ()
    budget_min: float | None = Field(default=None, gt=0, json_schema_extra={"operational": True})
    seeds: int | None = Field(default=None, ge=1)
    sets: tuple[str, ...] | None = None
    pools: tuple[str, ...] | None = None
    train_set: str | None = None
    num_train: int | None = Field(default=None, ge=1)
    sizes: tuple[int, ...] = ()
    num_test: int | None = Field(default=None, ge=2)
    num_problems: int | None = Field(default=None, ge=2)
    num_candidates: int | None = Field(default=None, ge=2)
    num_prompts: int | None = Field(default=None, ge=1)
    max_new_tokens: int | None = Field(default=None, ge=1)
    scorer: str | None = None
    prompt_filter: dict[str, PromptFilter] = {}
    num_rft_prompts: int | None = Field(default=None, ge=1)
    num_steps: int | None = Field(default=None, ge=1)
    generator_pairs: dict[str, tuple[str, str]] = {}
    constructions: dict[str, str] = {}

    def over(self, defaults: StudyOptions) -> StudyOptions:
        """These options, with those of `defaults` where they say nothing."""
        own = {name: getattr(self, name) for name in self.model_fields_set}
        return defaults.model_copy(update=own)


class ScoringConfig(Section):
    """How trained models score; see StudiesConfig."""

    engine: Literal["torch", "vllm"] = "torch"
    dtype: Literal["float32", "bfloat16"] = "float32"
    max_model_len: int = Field(default=1024, ge=8)
    kv_cache_gb: float = operational(1.0, gt=0)
    tokens_per_s: float = operational(4000.0, gt=0)  # assumed until it has been measured


class StudiesConfig(Section):
    """Everything that `jobs.study` and `jobs.reproduce` need.

    Attributes:
        run_dir: trainings, scores and results; everything in it is found again.
        data_dir: the folder below which sets and pools lie. Null: what this project makes itself,
            and the hub, if it answers.
        code_pairs: the sets that PMP trains on, one after another up to `pmp_pairs` pairs.
        pmp_pairs: pairs of the whole PMP run; `branches` are the shorter ones (Figure 5).
        warmup / pmp / rm: settings of the three kinds of training; weights, data and seed are the
            studies'.
        scoring: `torch` scores in this process, `vllm` with the engine that serves; answers are
            cut at `max_model_len` tokens, prompt included.
        pairs_per_s: assumed until a training of that kind has been timed.
        tokens_per_pair: assumed by `--plan`, which reads no pairs: the paper's 19 billion tokens
            over 28 million files, or pairs, unless a recipe knows better.
        budget_min: minutes for all studies of `jobs.reproduce` together; null is no limit.
        studies: what `jobs.reproduce` runs, in this order.
    """

    name: str = operational("unnamed")
    run_dir: str = operational("runs/studies")
    data_dir: str | None = operational(None)
    confidence: float = Field(default=0.95, gt=0, lt=1)
    num_bootstrap: int = Field(default=2_000, ge=100)
    models: dict[str, ModelConfig] = {"trend": ModelConfig()}
    sets: dict[str, SetConfig] = {}
    pools: dict[str, PoolConfig] = {}
    code_pairs: tuple[str, ...] = ("stdlib",)
    pmp_pairs: int = Field(default=1024, ge=8)
    branches: BranchesConfig = BranchesConfig(factor=2.0, num_branches=4)
    warmup: TrainingConfig = TrainingConfig(objective="sft")
    pmp: TrainingConfig = TrainingConfig(objective="pmp")
    rm: TrainingConfig = TrainingConfig(objective="rm", schedule="cosine", weight_decay=0.0)
    dpo: TrainingConfig = TrainingConfig(objective="dpo", schedule="cosine", weight_decay=0.0)
    scoring: ScoringConfig = ScoringConfig()
    pairs_per_s: float = operational(4.0, gt=0)
    overhead_s: float = operational(15.0, ge=0)
    tokens_per_pair: float = operational(680.0, gt=0)
    defaults: StudyOptions = StudyOptions()
    budget_min: float | None = operational(None, gt=0)
    studies: dict[str, StudyOptions] = {}

    @field_validator("run_dir")
    @classmethod
    def _run_dir_is_a_folder(cls, value: str) -> str:
        if is_uri(value):
            raise ValueError(
                f"{value} is an object store, and studies keep many small models as files: "
                "name a folder"
            )
        return value

    @model_validator(mode="after")
    def _names_are_known(self) -> StudiesConfig:
        for name in self.code_pairs:
            if name not in self.sets:
                raise ValueError(f"code_pairs names the set {name!r}, which is not among sets")
        for name, pool in self.pools.items():
            if pool.test_of is not None and pool.test_of not in self.sets:
                raise ValueError(f"pools.{name}.test_of={pool.test_of!r} is not among sets")
        for study, options in [("defaults", self.defaults), *self.studies.items()]:
            for name in (options.model, *options.models):
                if name is not None and name not in self.models:
                    raise ValueError(f"{study}: the model {name!r} is not among models")
            for name in (
                *(options.sets or ()),
                *([options.train_set] if options.train_set else []),
                *options.constructions.values(),
                *options.prompt_filter,
            ):
                if name not in self.sets:
                    raise ValueError(f"{study}: the set {name!r} is not among sets")
            for name in options.pools or ():
                if name not in self.pools:
                    raise ValueError(f"{study}: the pool {name!r} is not among pools")
        return self

    def options(self, study: str) -> StudyOptions:
        """What holds for `study`."""
        return self.studies.get(study, StudyOptions()).over(self.defaults)


def load_studies(path: str | Path, overrides: list[str] | None = None) -> StudiesConfig:
    """The studies of the YAML file at `path`, with `a.b=value` overrides. Raises ConfigError."""
    return load_sections(StudiesConfig, path, overrides)
