"""The studies: which models, sets and sizes stand in for the paper's, and how long each may take.

`load_studies(path, ["data_dir=data"])` is the only way in; errors are those of recipes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from codepmp_ray.config.base import Section, later, operational
from codepmp_ray.config.branches import BranchesConfig
from codepmp_ray.config.recipe import load_sections
from codepmp_ray.config.reward_models import RewardConfig, require_own_labels
from codepmp_ray.config.study_materials import ModelConfig, PoolConfig, SetConfig
from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.storage import is_uri


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
        num_train: pairs that a reward model is finetuned on.
        num_test: test pairs scored per set.
        num_problems / num_candidates: questions of a pool, and answers to each.
        num_prompts / max_new_tokens: of policies; greedy.
        num_steps: of GRPO.
        scorer: a reward model of others that scores their answers: a folder, or a model of the hub,
            if the hub answers; any one-label AutoModelForSequenceClassification in safetensors.
        prompt_filter: which of a set's test prompts are asked, by the set's name.
        num_rft_prompts: that RFT samples answers to, where `num_train` are too many for it.
        generator_pairs: (strong, weak) generators of the pool that Figure 13 compares, by a label
            of the pair.
        rewards: reward models at hand that are measured beside the study's own; studies of
            accuracy on pairs and of best-of-N take them.
        train_arms: false measures `rewards` alone, and trains nothing.
        constructions: sets of pairs that were made otherwise, which Figure 6 pretrains on beside
            the constructions that it makes of `train_set`, by their label.
        first_seed: of `seeds`; a pilot has others than the experiment.
        keep_dir: of `evidence`: the folder of its kept scores and of what was registered.
        ceiling_set: of `evidence`: what shows that the model can learn the task at all.
        num_draws: of `evidence`: sets of pairs, of each size, that heads on frozen features see.
        model / models: of `models`: which one is trained, or which ones are compared.
        pools: names of pools that best-of-N is measured on.
        sizes: the points of a curve, in pairs.
    """

    model: str | None = None
    models: tuple[str, ...] = ()
    rewards: tuple[str, ...] = ()
    train_arms: bool = True
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
    first_seed: int = later(0, ge=0)
    keep_dir: str | None = operational(None)
    ceiling_set: str | None = later(None)
    num_draws: int = later(200, ge=2)

    def over(self, defaults: StudyOptions) -> StudyOptions:
        """These options, with those of `defaults` where they say nothing."""
        own = {name: getattr(self, name) for name in self.model_fields_set}
        return defaults.model_copy(update=own)


class ScoringConfig(Section):
    """How trained models score; see StudiesConfig.

    Attributes:
        engine: `torch` scores in this process, `vllm` with the engine that serves.
        dtype: of the weights.
        max_model_len: tokens of prompt and answer; longer answers are cut.
        kv_cache_gb: GiB of key-value cache of `vllm` without a GPU.
        tokens_per_s: assumed until it has been measured.
    """

    engine: Literal["torch", "vllm"] = "torch"
    dtype: Literal["float32", "bfloat16"] = "float32"
    max_model_len: int = Field(default=1024, ge=8)
    kv_cache_gb: float = operational(1.0, gt=0)
    tokens_per_s: float = operational(4000.0, gt=0)  # assumed until it has been measured


class StudiesConfig(Section):
    """Everything that `codepmp paper run` and `codepmp paper all` need.

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
        budget_min: minutes for all studies of `codepmp paper all` together; null is no limit.
        rewards: reward models at hand, by the names that studies call them by.
        studies: what `codepmp paper all` runs, in this order.
        name: of the run, in reports and trackers.
        confidence: of all intervals.
        num_bootstrap: resamples of an interval that needs them.
        models / sets / pools: by the names that studies call them by.
        branches: the shorter runs beside the whole PMP (Figure 5).
        dpo: settings of DPO.
        overhead_s: seconds of a training beside its steps, for the plan.
        defaults: options of every study that does not set its own.
    """

    name: str = operational("unnamed")
    run_dir: str = operational("runs/studies")
    data_dir: str | None = operational(None)
    confidence: float = Field(default=0.95, gt=0, lt=1)
    num_bootstrap: int = Field(default=2_000, ge=100)
    models: dict[str, ModelConfig] = {"trend": ModelConfig()}
    sets: dict[str, SetConfig] = {}
    pools: dict[str, PoolConfig] = {}
    rewards: dict[str, RewardConfig] = {}
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
        require_own_labels(self.rewards)
        for name in self.code_pairs:
            if name not in self.sets:
                raise ValueError(f"code_pairs names the set {name!r}, which is not among sets")
        for name, pool in self.pools.items():
            if pool.test_of is not None and pool.test_of not in self.sets:
                raise ValueError(f"pools.{name}.test_of={pool.test_of!r} is not among sets")
        for study, options in [("defaults", self.defaults), *self.studies.items()]:
            one_model = [options.model] if options.model else []
            one_set = [name for name in (options.train_set, options.ceiling_set) if name]
            further = [*options.constructions.values(), *options.prompt_filter]
            for kind, names, known, section in (
                ("model", [*one_model, *options.models], self.models, "models"),
                ("set", [*(options.sets or ()), *one_set, *further], self.sets, "sets"),
                ("pool", options.pools or (), self.pools, "pools"),
                ("reward model", options.rewards, self.rewards, "rewards"),
            ):
                for name in names:
                    if name not in known:
                        raise ValueError(f"{study}: the {kind} {name!r} is not among {section}")
        return self

    def options(self, study: str) -> StudyOptions:
        """What holds for `study`."""
        return self.studies.get(study, StudyOptions()).over(self.defaults)


def load_studies(path: str | Path | None, overrides: list[str] | None = None) -> StudiesConfig:
    """`load_recipe` for studies. Raises ConfigError."""
    return load_sections(StudiesConfig, path, overrides, "studies")
