"""How a snippet becomes a <prompt, chosen, rejected> pair (paper section 3.2), and what a plan of
the job is asked for.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from codepmp_ray.config.base import Section, later, operational
from codepmp_ray.config.engines import Role, SamplingConfig
from codepmp_ray.config.evaluation import SandboxConfig
from codepmp_ray.config.prompts import PromptsConfig

ConstructionName = Literal[
    "strong_weak",
    "description_clip",
    "source_model",
    "execution_feedback",
    "web_pairs",
    "continuation",
    "same_policy",
    "pass_rate",
    "commits",
]
# Those of which answers are executed.
EXECUTED: tuple[ConstructionName, ...] = ("execution_feedback", "pass_rate")


class GatesConfig(Section):
    """Bounds under which two answers become a pair. null (or `none`, `false`) opens a gate.

    Measured on 256 pairs by Qwen2.5-Coder 1.5B and 0.5B: no text compresses more than 5 times,
    2.7 % of pairs are more alike than 0.95, in 3.9 % one side is over 4 times as long as the other.

    Attributes:
        code: sides that must hold a code block in the snippet's language, which must parse.
        stubs: of these, sides whose code must do something: `pass` is valid Python, too.
        refusals: refuse texts that decline ("I'm sorry, ...") instead of answering.
        max_compression_ratio: bytes over zlib-compressed bytes; beyond it a model was in a loop.
        max_similarity: of the two sides, 0 to 1: share of characters that match in order.
        min_description_words: "Task" is no task.
        description_without_code: a description that shows code gives the answer away.
        english_description: what is asked for in English is answered in English.
        max_echo: share of a description's word triples that stand in the instruction already.
        max_length_ratio: tokens of the longer side over those of the shorter one. The paper keeps
            mean lengths alike (Table 11: 194.5, 189.9) so that length does not tell the label.
    """

    code: Literal["both", "chosen", "rejected", "none"] = "both"
    stubs: Literal["both", "chosen", "rejected", "none"] = "chosen"
    refusals: bool = True
    min_description_words: int | None = Field(default=3, ge=1)
    description_without_code: bool = True
    english_description: bool = True
    max_echo: float | None = Field(default=0.5, gt=0, le=1)
    max_compression_ratio: float | None = Field(default=10.0, gt=1)
    max_similarity: float | None = Field(default=0.95, gt=0, le=1)
    max_length_ratio: float | None = Field(default=4.0, ge=1)


class ThreadsConfig(Section):
    """Questions with scored answers, for `web_pairs`. Defaults: stack-exchange-preferences.

    One row is one thread. Its answers are a list of structs with a text and a score, or, with
    `scores_column`, a list of texts beside a list of scores.

    Attributes:
        path: a Parquet or JSON lines file, or a folder of such files.
        site: name of the site, stored in the pairs' column `repo`.
        license: of the answers; SPDX id.
        min_score_gap: the chosen answer's score is at least this far above the rejected one's.
        id_column / question_column / answers_column: a thread's name, its question, its answers.
        scores_column: of a list of scores beside a list of texts; null where answers are structs.
        text_field / score_field: of an answer that is a struct.
        rows_per_shard: threads of one shard, the unit of resuming.
    """

    path: str | None = None
    id_column: str = "qid"
    question_column: str = "question"
    answers_column: str = "answers"
    scores_column: str | None = None
    text_field: str = "text"
    score_field: str = "pm_score"
    site: str | None = None
    license: str | None = None
    min_score_gap: float = Field(default=1.0, gt=0)
    rows_per_shard: int = Field(default=1_000, ge=1)

    def columns(self) -> list[str]:
        """Every column that is read, where the file has it."""
        named = [self.id_column, self.question_column, self.answers_column, self.scores_column]
        return list(dict.fromkeys(name for name in named if name))


class ContinuationConfig(Section):
    """Where snippets are broken in two, for `continuation`, and who is whose partner.

    Attributes:
        min_lines: of the beginning and of the rest, blank ones not counted.
        max_length_ratio: characters of the longer rest over those of the shorter one.
    """

    min_lines: int = Field(default=2, ge=1)
    max_length_ratio: float = Field(default=1.25, ge=1)


class CommitsConfig(Section):
    """Which commits of a git history become pairs, for `commits`.

    `corpus.source` (kind folder) is the repository: a checkout, or a bare one. Its licence, and the
    languages, limits, filters and opt-outs of `corpus`, hold for both versions of a file.

    Attributes:
        revision: branch, tag or commit whose history is read; the commits are noted when the stage
            begins, and those are read to the end.
        max_commits: of the newest ones; null takes all.
        max_definitions: a commit that changes more functions and classes (or files of code) is not
            about one thing.
        min_message_words: of a commit's message, without trailers such as Signed-off-by.
        commits_per_shard: of one shard, the unit of resuming.
    """

    revision: str = "HEAD"
    max_commits: int | None = Field(default=None, ge=1)
    max_definitions: int = Field(default=2, ge=1)
    min_message_words: int = Field(default=4, ge=1)
    commits_per_shard: int = Field(default=500, ge=1)


class PassRateConfig(Section):
    """How `pass_rate` counts tests. Each model's tests are half of an answer's rate.

    Attributes:
        max_tests: of each model's tests the first so many are executed, each by itself.
        min_difference: of the two answers' rates, 0 to 1; pairs below it are refused.
    """

    max_tests: int = Field(default=5, ge=1)
    min_difference: float = Field(default=0.2, gt=0, le=1)


class SynthesisConfig(Section):
    """Describe a snippet, then answer the description twice.

    Attributes:
        construction: how the sides are made to differ, Figure 6:
            `strong_weak`: two models answer the same description, the paper's choice.
            `description_clip`: "Des-Clip", the rejected side sees a clipped description.
            `source_model`: "Source Code & model", the snippet itself is the chosen side.
            `execution_feedback`: both sides run against tests that the strong model wrote; the
                passing one is chosen, and pairs without a difference are refused.
            `pass_rate`: as before, with tests of both models; the answer that passes more of them
                is chosen, the difference is the margin; see `pass_rate`.
            `same_policy`: the prompt shows an answer of one model, `policy`; another answer of that
                model is chosen, the other model's rejected. `chosen` samples both of the first.
            `commits`: a definition after a change against the one before it, see `commits`.
            `continuation`: the rest of a snippet against that of another one, see `continuation`.
            `web_pairs`: "Webpage", answers of people ordered by their scores; see `threads`.
        describer: the role that writes the description. The paper names the strong model, the
            authors' scripts use the weak one.
        gates: which answers are refused, each with a reason.
        prompts: the words of all questions, see config/prompts.py.
        clip_fraction: of `description_clip`: share of the description's words removed from its end.
        policy: of `same_policy`: the role that answers twice.
        tests / sandbox: where answers are executed: how tests are sampled, limits of one execution.
        label_domain / label: let the describing model say whether the snippet is engineering work,
            with its confidence (a step of the authors' code), and how it samples that.
        source_opponent: of `source_model`: the role that writes the rejected side.
        describe / chosen / rejected: how descriptions and the two answers are sampled.
    """

    construction: ConstructionName = "strong_weak"
    describer: Role = "strong"
    clip_fraction: float = Field(default=0.1, gt=0, lt=1)
    source_opponent: Role = "weak"
    describe: SamplingConfig = SamplingConfig(temperature=0.7, max_tokens=256)
    chosen: SamplingConfig = SamplingConfig(temperature=0.7, max_tokens=1024)
    rejected: SamplingConfig = SamplingConfig(temperature=0.7, max_tokens=1024)
    tests: SamplingConfig = SamplingConfig(temperature=0.7, max_tokens=1024)
    sandbox: SandboxConfig = SandboxConfig()
    label_domain: bool = False
    label: SamplingConfig = SamplingConfig(temperature=0.0, max_tokens=16)
    gates: GatesConfig = GatesConfig()
    prompts: PromptsConfig = later(PromptsConfig())
    threads: ThreadsConfig = ThreadsConfig()
    continuation: ContinuationConfig = later(ContinuationConfig())
    commits: CommitsConfig = later(CommitsConfig())
    policy: Role = later("strong")
    pass_rate: PassRateConfig = later(PassRateConfig())

    @model_validator(mode="after")
    def _threads_where_needed(self) -> SynthesisConfig:
        if self.construction == "web_pairs" and not self.threads.path:
            raise ValueError("construction=web_pairs needs threads.path (a file or folder)")
        return self

    @model_validator(mode="after")
    def _two_answers_where_two_are_asked(self) -> SynthesisConfig:
        drawn = self.chosen
        is_one = drawn.temperature == 0 or drawn.top_k == 1 or drawn.seed is not None
        if self.construction == "same_policy" and is_one:
            raise ValueError(
                "construction=same_policy needs two different answers of one model, but "
                f"chosen.temperature={drawn.temperature:g}, top_k={drawn.top_k}, seed={drawn.seed} "
                "give the same one twice: set a temperature above 0, top_k other than 1, no seed"
            )
        return self

    def sampling(self, hop: str) -> SamplingConfig:
        """How a hop's answers are sampled."""
        return getattr(self, {"reference": "chosen", "weak_tests": "tests"}.get(hop, hop))


class PlanningConfig(Section):
    """The question that `codepmp pairs plan` answers, and limits at which stages stop.

    Attributes:
        pilot_rows: snippets that every engine pool is measured on, spread over all shards; null
            takes four times as many as an engine has at once, so that most of them meet a full one.
        num_rows: snippets of the whole job; null for those of the corpus stage.
        num_gpus: GPUs to plan for; null for those of the cluster (or its CPUs when it has none).
        price_per_gpu_hour: in any currency; null leaves prices out.
        max_price: at which pairs, answers and trainings stop, with what they have: of the GPUs
            that engines and workers of all stages in run_dir have held, all attempts together.
        max_reject_share: at which synthesis stops: of the rows of its last 16 shards, once these
            have 1,000 rows.
    """

    pilot_rows: int | None = operational(None, ge=1)
    num_rows: int | None = operational(None, ge=1)
    num_gpus: int | None = operational(None, ge=1)
    price_per_gpu_hour: float | None = operational(None, ge=0)
    max_price: float | None = operational(None, gt=0)
    max_reject_share: float = operational(0.99, ge=0, le=1)

    @model_validator(mode="after")
    def _price_of_what(self) -> PlanningConfig:
        if self.max_price is not None and not self.price_per_gpu_hour:
            raise ValueError(
                f"max_price={self.max_price} needs price_per_gpu_hour, which is "
                f"{self.price_per_gpu_hour}: set it to what a GPU costs"
            )
        return self
