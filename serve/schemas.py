"""Requests of the HTTP interface.

They are strict: no coercion, unknown fields refused. Strings that are not Unicode text (lone
surrogates, which JSON can spell) are refused: no tokenizer takes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from codepmp_ray.errors import InputError
from codepmp_ray.preference.messages import Message, checked_messages
from codepmp_ray.scoring.best_of_n import RIGHT, Cut, ScoringRequest
from codepmp_ray.scoring.stages import STAGES, AnswerTests, Stage, StagesAsked

MAX_CANDIDATES = 256  # of one prompt in /v1/bon, and of what is scored in one turn
MAX_PROMPTS = 1_024  # of one call to /v1/bon
MAX_MESSAGES = 256
MAX_TEST_CHARS = 200_000
_MAX_FIELDS = 64


def _unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("holds a lone surrogate, which is not Unicode text") from None
    return text


Text = Annotated[str, AfterValidator(_unicode)]


class _Request(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, body: object) -> object:
        """One problem for a body with a million fields, not a million problems."""
        if isinstance(body, dict) and len(body) > _MAX_FIELDS:
            raise ValueError(f"has {len(body)} fields; at most {_MAX_FIELDS} are looked at")
        return body


class ChatMessage(BaseModel):
    """As in OpenAI's API, and as rows of data have it: `preference.messages` looks at all of it.

    `content` is text or parts of type "text". Fields that the model's chat template may show
    (`tool_calls`, `name`, `reasoning_content`, ...) have to be shown by it; others are left out.
    """

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)
    role: Annotated[Text, Field(min_length=1, max_length=64)]
    content: Text | list[dict[str, Any]] | None = None


Messages = Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]


def plain_messages(messages: Sequence[ChatMessage]) -> list[Message]:
    """In the schema of rows of data. Raises InputError."""
    return checked_messages([message.model_dump() for message in messages], "messages")


class BonTests(_Request):
    """What the program in a candidate has to pass, where `stages` says run."""

    entry_point: Annotated[Text, Field(min_length=1, max_length=256)] = Field(
        description="Name of the function that a candidate defines."
    )
    test: Annotated[Text, Field(min_length=1, max_length=MAX_TEST_CHARS)] = Field(
        description="Python that defines check(candidate), which raises unless it is right."
    )
    setup: Annotated[Text, Field(max_length=MAX_TEST_CHARS)] = Field(
        "", description="Python that comes first: imports, helpers, the stub that was completed."
    )


class BonItem(_Request):
    """A prompt and the candidates to choose from; `prompt` and `messages` exclude each other."""

    prompt: Annotated[Text, Field(min_length=1)] | None = Field(
        None, description="Put into the model's own prompt template as one user message."
    )
    messages: Messages | None = Field(
        None, description="Rendered with the chat template saved beside the weights."
    )
    candidates: list[Text] = Field(min_length=1, max_length=MAX_CANDIDATES)
    top_n: int | None = Field(None, ge=1, le=MAX_CANDIDATES, description="Return the best n only.")
    tests: BonTests | None = Field(None, description="For stages; with them candidates are code.")

    @model_validator(mode="after")
    def _one_prompt(self) -> BonItem:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("send exactly one of prompt and messages")
        if self.messages and self.messages[-1].role == "assistant":
            raise ValueError("messages ends with the assistant's turn: send it as a candidate")
        return self

    def prompt_or_messages(self) -> str | list[Message]:
        """Raises InputError."""
        return self.prompt if self.prompt is not None else plain_messages(self.messages or [])


class BonOptions(_Request):
    model: Text | None = Field(
        None, description="Name of the served model; null takes it as it is."
    )
    deadline_ms: int | None = Field(
        None, ge=1, le=3_600_000, description="Answer with what is scored by then, as partial."
    )
    normalize: bool = Field(
        False, description="Scores as standard deviations from the mean of the calibration set."
    )
    probabilities: bool = Field(
        False, description="With each score the chance (Bradley-Terry) that it is the best one."
    )
    truncate: Literal["refuse", "right", "left"] | None = Field(
        None,
        description="Of prompt and candidate together, the end that is cut where they are too "
        "long. Null: right, or what the service is set to.",
    )
    stages: list[Stage | Literal["reward"]] | None = Field(
        None,
        description="What candidates come through, in this order: extract (they hold an answer), "
        "parse (their code is Python), run (it passes tests), reward (chooses among the rest).",
    )

    @model_validator(mode="after")
    def _in_order(self) -> BonOptions:
        names = self.stages
        if names is not None and names != [s for s in (*STAGES, "reward") if s in names]:
            raise ValueError(f"stages: each once, in the order {', '.join(STAGES)}, reward")
        if names is not None and "reward" not in names:
            raise ValueError("stages: the last one is reward, which chooses among what is left")
        return self

    def stages_of(self, item: BonItem) -> StagesAsked | None:
        """Raises InputError for stages without their tests, and for tests without stages."""
        names = tuple(name for name in self.stages or () if name != "reward")
        if "run" in names and item.tests is None:
            raise InputError("stages say run, and there are no tests.", "Send tests.")
        if item.tests is not None and not names:
            raise InputError("There are tests, and no stage looks at them.", "Send stages.")
        tests = item.tests and AnswerTests(**item.tests.model_dump())
        return StagesAsked(names, tests) if names else None

    def asked(self, item: BonItem, usual: Cut) -> ScoringRequest:
        """Raises InputError for messages and stages that cannot be used."""
        cut = usual if usual.side else RIGHT
        if self.truncate is not None:
            cut = Cut(None if self.truncate == "refuse" else self.truncate)
        timeout_s = None if self.deadline_ms is None else self.deadline_ms / 1000
        prompt, stages = item.prompt_or_messages(), self.stages_of(item)
        return ScoringRequest(prompt, item.candidates, cut, timeout_s, stages=stages)


class BonRequest(BonItem, BonOptions):
    """One prompt."""


class BonManyRequest(BonOptions):
    """Many prompts in one call, with one deadline."""

    requests: list[BonItem] = Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)


def _kind_of_bon(body: object) -> str:
    return "many" if isinstance(body, dict) and "requests" in body else "one"


BonBody = Annotated[
    Annotated[BonRequest, Tag("one")] | Annotated[BonManyRequest, Tag("many")],
    Discriminator(_kind_of_bon),
]
