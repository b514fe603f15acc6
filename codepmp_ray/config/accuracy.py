"""Which preference pairs the accuracy of a reward model is measured on."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from codepmp_ray.config.base import Section, later
from codepmp_ray.config.data import DataSourceConfig, check_names

PreferenceTaskName = Literal[
    "math_shepherd",
    "reclor_pairs",
    "logiqa2_pairs",
    "code_ultrafeedback",
    "hh_helpful",
    "hh_harmless",
    "reward_bench",
    "reward_bench_2",
    "rm_bench",
    "judge_bench",
    "ppe_human",
    "ppe_correctness",
    "code_reward_bench",
]


class AccuracyTaskConfig(Section):
    """A known set of pairs, with its own place on the hub; its name alone stands for it.

    Attributes:
        path: a file or folder of the set's rows; null reads the hub.
        max_rows: rows that are read, from the beginning of the set.
        name: docs/evaluation.md lists them.
    """

    name: PreferenceTaskName
    path: str | None = None
    max_rows: int | None = Field(default=None, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, data: Any) -> Any:
        return {"name": data} if isinstance(data, str) else data


class AccuracyConfig(Section):
    """Which pairs are scored, and how accuracies of their sections are put together.

    Attributes:
        tasks: known sets of pairs; docs/evaluation.md lists them. Benchmarks bring their sections,
            weights and ties with them.
        data: preference sets; each is a section by its name.
        section_column: column of the rows of `data` that names their section instead. Not for
            math_shepherd, whose pairs are made of several rows.
        weights: "reward_bench" where the sections of `data` are that benchmark's subsets.
        ties: what equal rewards of both sides count; in benchmarks they are always wrong.
        process_bench: a file or folder of ProcessBench's rows, such as
            hf://datasets/Qwen/ProcessBench; measured beside the pairs.
        calibrate: of the model that is measured, fit a temperature on half of the prompts and keep
            it beside its weights if it serves the other half: `probabilities` of a service use it.
        prompts_per_shard: of one shard, the unit of resuming.
    """

    tasks: tuple[AccuracyTaskConfig, ...] = ()
    data: tuple[DataSourceConfig, ...] = ()
    section_column: str | None = None
    weights: Literal["none", "reward_bench"] = "none"
    ties: Literal["half", "wrong"] = "half"
    process_bench: str | None = later(None)
    calibrate: bool = later(False)
    prompts_per_shard: int = Field(default=64, ge=1)

    @property
    def task_names(self) -> tuple[str, ...]:
        return tuple(task.name for task in self.tasks)

    @model_validator(mode="after")
    def _named_apart(self) -> AccuracyConfig:
        check_names(self.data)
        names = [*self.task_names, *(source.label for source in self.data)]
        for name in self.task_names:
            if self.task_names.count(name) > 1:
                raise ValueError(f"accuracy.tasks names {name!r} twice; name it once")
            if names.count(name) > 1:
                raise ValueError(f"two sets are called {name!r}; give accuracy.data another name")
        if self.section_column and any(source.kind == "math_shepherd" for source in self.data):
            raise ValueError("section_column is of single rows; math_shepherd pairs rows up")
        if self.weights == "reward_bench" and "reward_bench" in self.task_names:
            raise ValueError("RewardBench is asked for twice, by tasks and by weights")
        return self
