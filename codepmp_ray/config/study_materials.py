"""What studies are made of: sets of pairs, pools of answers, backbones."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from codepmp_ray.config.base import Section, later, operational
from codepmp_ray.config.data import HUB_IDS, Kind
from codepmp_ray.storage.uris import written_name

Objective = Literal["pmp", "rm", "lm", "sft", "dpo"]
SetKind = (
    Kind
    | Literal[
        "python_functions", "stdlib_functions", "humaneval_corrupted", "example_solutions"
    ]
)  # fmt: skip
MADE_HERE = ("stdlib_functions", "humaneval_corrupted")
CORRUPTED = ("python_functions", *MADE_HERE)


class SetConfig(Section):
    """One set of preference pairs, split into a training and a test part by question.

    Attributes:
        kind: how rows become pairs: the kinds of training sources, and three that are made here:
            `python_functions` (rows of docstring and code) and `stdlib_functions` (those of the
            standard library) pair code with a corrupted copy, `humaneval_corrupted` does so with
            HumanEval's canonical solutions. `example_solutions` are OpenAI's of GSM8K, a column for
            each of four models; `balance` takes one pair of each question.
        paths: files, relative to `data_dir`; all of them are read.
        test_paths: files of the test part; without them `test_fraction` of the questions, chosen
            by a hash, are the test part.
        hub_id / subset / split / test_split: the set on the hub, where no file is there.
        title: in tables; by default the set's name.
        paper_set: the paper's own name of this set, if it is that set.
        stands_for: the paper's set in whose place this one is measured: a stand-in has none of the
            paper's columns beside it.
        test_fraction: 1 makes all of it test: it is measured on, and never trained on.
        left_out: a share of the questions, the first in the hash's order, that is neither trained
            nor tested on: a pilot leaves out those that the experiment itself tests.
        made_by: the command that makes it, which is said where it is not here.
        as_transcript: conversations become one text of "\\n\\nHuman: ...\\n\\nAssistant:" turns, as
            HH-RLHF has them: for models without a chat template, which take no messages.
        learning_rate / warmup_ratio: of reward models that are finetuned on it, in place of `rm`'s
            and the model's own (Table 9, logic), if all sets of a training say the same.
        max_rows: that are read; null takes all.
        max_pairs_per_problem: of the right and wrong answers to one problem.
        balance: as of `pretraining.data`: neither generator nor form tells the label.
        prompt_format: a text with {prompt} that is put around each prompt; null takes it as it is.
    """

    kind: SetKind = "preference"
    paths: tuple[str, ...] = ()
    test_paths: tuple[str, ...] = ()
    hub_id: str | None = None
    subset: str | None = None
    split: str = "train"
    test_split: str | None = None
    title: str = ""
    paper_set: str | None = None
    stands_for: str | None = None
    max_rows: int | None = Field(default=None, ge=1)
    max_pairs_per_problem: int = Field(default=4, ge=1)
    balance: bool = True
    prompt_format: str | None = None
    test_fraction: float = Field(default=0.2, ge=0, le=1)
    left_out: float = later(0.0, ge=0, lt=1)
    made_by: str = operational("")
    as_transcript: bool = False
    learning_rate: float | None = Field(default=None, gt=0)
    warmup_ratio: float | None = Field(default=None, ge=0, le=1)

    @property
    def hub_set(self) -> str | None:
        return self.hub_id or HUB_IDS.get(self.kind)

    @property
    def paper_name(self) -> str | None:
        """The paper's set that this one is, or in whose place it is measured."""
        return self.paper_set or self.stands_for

    @model_validator(mode="after")
    def _somewhere(self) -> SetConfig:
        if self.kind not in MADE_HERE and not self.paths and not self.hub_set:
            raise ValueError(f"kind={self.kind} needs paths (below data_dir) or hub_id")
        if self.paper_set is not None and self.stands_for is not None:
            raise ValueError(
                f"paper_set={self.paper_set!r} says that it is the paper's set, and "
                f"stands_for={self.stands_for!r} that it is another one; give one of them"
            )
        return self


class PoolConfig(Section):
    """Many labelled answers to each question; docs/data-format.md shows a row.

    Attributes:
        test_of: a set whose test questions alone are scored, because its others train.
        stands_for: the paper's benchmark in whose place this pool is measured (GSM8K, MATH,
            HumanEval); by default the one that the pool is named after, if it is.
        num_candidates: answers to each question, where it has fewer than studies ask for.
        generators: models whose answers count, by the names that the pool gives them; empty: all.
        path: a file, relative to `data_dir`.
        title: in tables; by default the pool's name.
    """

    path: str
    title: str = ""
    test_of: str | None = None
    stands_for: str | None = None
    num_candidates: int | None = Field(default=None, ge=2)
    generators: tuple[str, ...] = ()


class ModelConfig(Section):
    """A backbone: weights by name, or one of its own making, of random weights and this shape.

    Attributes:
        revision: branch, tag or commit of a hub model; null is its main branch.
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
        architecture: of a model made here.
        tokenizer: whose a model made here takes.
        hidden_size / intermediate_size / num_hidden_layers: shape of a model made here.
        num_attention_heads / num_key_value_heads: of a model made here.
        seed: of the random weights.
    """

    model_name_or_path: str | None = None
    revision: str | None = later(None)
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

    @model_validator(mode="after")
    def _revision_of_weights(self) -> ModelConfig:
        if self.revision is not None and self.model_name_or_path is None:
            raise ValueError(f"revision={self.revision} is of model_name_or_path, which is not set")
        return self

    @property
    def weights(self) -> str | None:
        """`model_name_or_path` with its revision; None for a model made here."""
        if self.model_name_or_path is None:
            return None
        return written_name(self.model_name_or_path, self.revision)

    @property
    def before_training(self) -> ModelConfig:
        """The model alone, without how it is trained: that is said by its trainings."""
        trained_by = ("warmup_pairs", "pmp_pairs", "learning_rate_factor", "bf16", "speed")
        defaults = {name: type(self).model_fields[name].default for name in trained_by}
        return self.model_copy(update=defaults | {"warmup_pairs": 0})
