"""Which preference sets a training stage reads, instead of the pairs that the run made itself."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from codepmp_ray.config.base import Section, later

Kind = Literal[
    "preference",
    "math_shepherd",
    "reclor",
    "logiqa2",
    "code_ultrafeedback",
    "hh_rlhf",
    "gsm8k_solutions",
]

# Sets whose files the `datasets` library loads without running code of the set.
HUB_IDS: dict[str, str] = {
    "math_shepherd": "peiyi9979/Math-Shepherd",
    "reclor": "metaeval/reclor",
    "code_ultrafeedback": "coseal/CodeUltraFeedback_binarized",
    "hh_rlhf": "Anthropic/hh-rlhf",
    "logiqa2": "baber/logiqa2",
}
# What a set of HUB_IDS needs besides its id. The main revision of LogiQA 2.0 needs code of its own
# to be run; this one holds Parquet files.
HUB_PLACES: dict[str, dict[str, str]] = {
    "logiqa2": {
        "subset": "logiqa2",
        "revision": "9494864c996d52531e6e43d047e4cbec4b6546d3",
    },
}
# Columns that rows of each kind are read for. `columns` of a set may map these names, no others.
_SCORES = ("score_chosen", "score_rejected", "chosen_score", "rejected_score")
_SCORES += ("chosen-rating", "rejected-rating")
_PAIR = ("prompt", "chosen", "rejected", "system", "tools", "chat_template_kwargs", "margin")
_PAIR += ("pair_id", "problem_id", "source_id")
KIND_COLUMNS: dict[Kind, tuple[str, ...]] = {
    "preference": (*_PAIR, *_SCORES),
    "math_shepherd": ("input", "label"),
    "reclor": ("context", "question", "answers", "label"),
    "logiqa2": ("text", "question", "options", "answer"),
    "code_ultrafeedback": ("instruction", "chosen", "rejected", "margin", *_SCORES),
    "hh_rlhf": (*_PAIR, *_SCORES),
    "gsm8k_solutions": ("question", "outputs", "candidates", "solutions"),
}


class DataSourceConfig(Section):
    """One set of preference pairs; docs/data-format.md shows a row of each kind.

    Attributes:
        kind: how rows become pairs; see `codepmp_ray.preference.sources`.
        path: a file of rows (JSON lines, one JSON array or Parquet) or a folder of such files; a
            path or a URI (s3://, gs://, https:// and others of fsspec). Its content is part of the
            stage's fingerprint, at a URI what the store says of it.
        hub_id: a set on the Hugging Face hub, where `path` is null; kinds with a well-known home
            have it as default.
        revision: branch, tag or commit of the hub set; a commit pins its content, which nothing
            else does.
        split / subset: of the hub set; of hh_rlhf the subset is a folder, e.g. `harmless-base`.
        name: stands in tables and summaries; the kind by default.
        weight: how often a pair is seen per epoch: 2 is twice, 0.5 every other epoch.
        max_rows: pairs that are taken, from the beginning of the set (of `math_shepherd`: of its
            questions in an order of their own); what comes after is not read.
        max_pairs_per_problem: of the kinds that pair right with wrong answers to one question.
        balance: of gsm8k_solutions whose answers name several models: as many pairs have the right
            answer from the weaker model as from the stronger one, and both sides have one form.
            False takes any right with any wrong answer, which who wrote it mostly decides.
        scores_as_margin: the margin is score_chosen - score_rejected, where a row has no `margin`.
        prompt_format: text around every prompt, for example "Question: {prompt} Answer:".
        show_options: of reclor and logiqa2: the prompt lists the options too.
        columns: what the set calls the columns that its kind reads, by the kind's names, for
            example {prompt: question}. `prompt: null` says that none holds the prompt: both sides
            begin with it.
    """

    kind: Kind = "preference"
    path: str | None = None
    hub_id: str | None = None
    split: str = "train"
    subset: str | None = None
    revision: str | None = None
    name: str = Field(default="", pattern=r"^[A-Za-z0-9_.-]*$", max_length=64)
    weight: float = Field(default=1.0, gt=0, le=1000)
    max_rows: int | None = Field(default=None, ge=1)
    max_pairs_per_problem: int = Field(default=8, ge=1)
    balance: bool = True
    scores_as_margin: bool = False
    prompt_format: str | None = None
    show_options: bool = False
    columns: dict[str, str | None] = later({})

    @property
    def label(self) -> str:
        return self.name or self.kind

    @property
    def hub_set(self) -> str | None:
        """The hub's id of the set that is read, or null when it is a local one."""
        return None if self.path else self.hub_id or HUB_IDS.get(self.kind)

    @property
    def columns_read(self) -> tuple[str, ...]:
        """Names, after `columns` is applied, of what rows are read for; the rest is not used."""
        names = KIND_COLUMNS[self.kind]
        return names if self.scores_as_margin else tuple(n for n in names if n not in _SCORES)

    @model_validator(mode="before")
    @classmethod
    def _known_place(cls, data: Any) -> Any:
        """Fills in what the kind's own set on the hub needs, where nothing else is said."""
        if not isinstance(data, dict) or data.get("path"):
            return data
        kind = str(data.get("kind"))
        known = HUB_PLACES.get(kind, {})
        if data.get("hub_id") not in (None, HUB_IDS.get(kind)):
            return data
        return data | {name: value for name, value in known.items() if data.get(name) is None}

    @model_validator(mode="after")
    def _one_place(self) -> DataSourceConfig:
        if self.path and self.hub_id:
            raise ValueError("path and hub_id name two sets; give one of them")
        if not self.path and not self.hub_set:
            raise ValueError(f"kind={self.kind} needs path (a file or folder) or hub_id")
        if self.path and (self.subset or self.revision or self.split != "train"):
            raise ValueError("split, subset and revision are of hub sets; path names the files")
        if self.prompt_format is not None and "{prompt}" not in self.prompt_format:
            raise ValueError(f"prompt_format={self.prompt_format!r} has no {{prompt}}")
        if self.name in (".", ".."):
            raise ValueError(f"name={self.name!r} is no name")
        self._check_columns()
        return self

    def _check_columns(self) -> None:
        known = KIND_COLUMNS[self.kind]
        for name, column in self.columns.items():
            if name not in known:
                raise ValueError(
                    f"columns has the key {name!r}; rows of kind={self.kind} are read for "
                    f"{', '.join(known)}"
                )
            if column is None and (self.kind, name) != ("preference", "prompt"):
                raise ValueError(
                    f"columns has {name}=null; only prompt of kind=preference may have no column"
                )
        given = [column for column in self.columns.values() if column is not None]
        if twice := next((column for column in given if given.count(column) > 1), None):
            raise ValueError(f"columns reads {twice!r} as two columns; name it once")


def check_names(sources: tuple[DataSourceConfig, ...]) -> None:
    """Raise ValueError when two sources would be counted under one name."""
    labels = [source.label for source in sources]
    for label in labels:
        if labels.count(label) > 1:
            raise ValueError(f"two sources are called {label!r}; give each a name of its own")
