"""Requests of other servers' scoring routes: vLLM, Cohere, Jina and infinity, TEI, OpenRLHF, slime,
SGLang, LLaMA-Factory.

What they have in common is in `dialect_fields`. Scores are raw rewards unless a sigmoid is asked
for, but TEI's, as TEI gives them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from codepmp_ray.scoring.best_of_n import Candidate, Cut

from .dialect_answers import sigmoid
from .dialect_fields import Dialect, Scored
from .errors import ApiError
from .schemas import Messages, Text

MAX_TEXTS = 16_384  # of one request; `max_body_bytes` is what bounds long ones
_MAX_IDS = 1_000_000


def _as_list(value: object) -> object:
    """Of one text, or of the ids of one."""
    is_ids = isinstance(value, list) and value and isinstance(value[0], int)
    return [value] if isinstance(value, str) or is_ids else value


def _text_of(document: object) -> object:
    return document.get("text") if isinstance(document, dict) else document


_MANY = Field(min_length=1, max_length=MAX_TEXTS, fail_fast=True)
Ids = Annotated[
    list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=_MAX_IDS, fail_fast=True)
]
Texts = Annotated[list[Text], _MANY]
OneOrMore = Annotated[Texts, BeforeValidator(_as_list, json_schema_input_type=Text | Texts)]
TextsOrIds = Annotated[
    list[Text | Ids],
    _MANY,
    BeforeValidator(
        _as_list, json_schema_input_type=Text | Texts | Ids | Annotated[list[Ids], _MANY]
    ),
]
Documents = Annotated[
    list[Annotated[Text, BeforeValidator(_text_of, json_schema_input_type=Text | dict[str, Any])]],
    _MANY,
]


class WholeTextRequest(Scored):
    """`/classify` and `/pooling`: texts with prompt, response and markers in them, their token ids,
    or messages.
    """

    input: TextsOrIds | None = Field(
        None,
        description="Texts are scored as they are; EOS is added where the model was trained with "
        "it. Ids get nothing added.",
    )
    messages: Annotated[Messages, Field(min_length=2)] | None = Field(
        None, description="A conversation that ends with the assistant's message to be scored."
    )

    @model_validator(mode="after")
    def _one_input(self) -> WholeTextRequest:
        if (self.input is None) == (self.messages is None):
            raise ValueError("send exactly one of input (text or token ids) and messages")
        if self.messages is not None and self.messages[-1].role != "assistant":
            raise ValueError("messages must end with the assistant's message that is to be scored")
        return self


class VectorRequest(WholeTextRequest):
    """`/pooling`, and `/v1/embeddings` as SGLang's reward models have it: a vector of one."""

    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="base64: little-endian float32."
    )


class SglangRequest(Scored):
    """SGLang's native `/classify`; told from vLLM's by its `text` or `input_ids`."""

    text: Text | Texts | None = None
    input_ids: Ids | Annotated[list[Ids], _MANY] | None = None

    @model_validator(mode="after")
    def _one_input(self) -> SglangRequest:
        if (self.text is None) == (self.input_ids is None):
            raise ValueError("send exactly one of text and input_ids")
        return self

    def items(self) -> tuple[list[Any], bool]:
        """(texts or ids, whether it was one without a list around it)."""
        given = self.input_ids if self.text is None else self.text
        found: Any = _as_list(given)
        return found, found is not given


class _Documents(Scored):
    max_tokens_per_doc: int | None = Field(None, ge=0, description="Each is cut to so many tokens.")

    def cut(self, usual: Cut) -> Cut:
        return replace(super().cut(usual), max_response_tokens=self.max_tokens_per_doc or None)


class ScoreRequest(_Documents):
    """`/score`: each second text as a response to its first; one first text serves them all."""

    text_1: OneOrMore = Field(
        validation_alias=AliasChoices("text_1", "queries", "data_1"),
        description="Also called queries or data_1.",
    )
    text_2: OneOrMore = Field(
        validation_alias=AliasChoices("text_2", "documents", "items", "data_2"),
        description="Also called documents, items or data_2.",
    )

    def pairs(self) -> list[tuple[str | None, Candidate]]:
        """Raises ApiError when the lengths do not fit."""
        firsts = self.text_1 * (len(self.text_2) if len(self.text_1) == 1 else 1)
        if len(firsts) != len(self.text_2):
            raise ApiError(
                422,
                f"text_1 has {len(firsts)} texts and text_2 {len(self.text_2)}: send one text_1, "
                "or as many as text_2",
                param="text_1",
            )
        return list(zip(firsts, self.text_2, strict=True))


class RerankRequest(_Documents):
    """Cohere's, Jina's, vLLM's and infinity's `/rerank`; documents are texts or {text}."""

    query: Annotated[Text, Field(min_length=1)]
    documents: Documents
    top_n: int | None = Field(
        None,
        ge=0,
        validation_alias=AliasChoices("top_n", "top_k"),
        description="0 and null return all.",
    )
    return_documents: bool | None = None


class TeiRerankRequest(Scored):
    """TEI's `/rerank`, told from the others by its `texts`. Its default is the sigmoid."""

    is_raw_by_default = False
    query: Annotated[Text, Field(min_length=1)]
    texts: Texts
    return_text: bool | None = None
    top_n: int | None = Field(None, ge=0)


_Pair = Annotated[list[Text], Field(min_length=1, max_length=2)]


class _HuggingFaceParameters(BaseModel):
    """What huggingface_hub's `text_classification` sends beside `inputs`."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    function_to_apply: Literal["sigmoid", "none"] | None = None
    top_k: Annotated[int, Field(ge=1)] | None = Field(None, description="There is one label.")


class TeiPredictRequest(Scored):
    """TEI's `/predict`: a whole text, a pair of prompt and response, or a batch of such."""

    is_raw_by_default = False
    inputs: Text | _Pair | Annotated[list[_Pair], _MANY]
    parameters: _HuggingFaceParameters | None = None

    def shown(self, reward: float | None) -> float | None:
        if self.parameters is None or (asked := self.parameters.function_to_apply) is None:
            return super().shown(reward)
        return reward if asked == "none" or reward is None else sigmoid(reward)

    def rows(self) -> tuple[list[tuple[str | None, Candidate]], bool]:
        """((prompt or None, text) of each, whether they came as a batch)."""
        given: Any = [self.inputs] if isinstance(self.inputs, str) else self.inputs
        is_batch = not isinstance(given[0], str)
        rows = given if is_batch else [given]
        return [(row[0] if len(row) == 2 else None, row[-1]) for row in rows], is_batch


class OpenRLHFRequest(Scored):
    """`/get_reward`: `query` holds whole texts; prompts and labels are not needed."""

    query: OneOrMore
    prompts: Any = None
    labels: Any = None


class SlimeRequest(Scored):
    """slime's remote reward model on `/get_reward`, told by its `response`. The answer is a number.

    `prompt` as text has the template around it already, which ends where the response begins.
    """

    prompt: Text | Messages
    response: Text
    label: Any = None


class LlamaFactoryRequest(Scored):
    """LLaMA-Factory's `/v1/score/evaluation`: `messages` are whole texts."""

    messages: Texts
    max_length: int | None = Field(None, ge=1, description="Longer texts are cut to it.")

    def cut(self, usual: Cut) -> Cut:
        if self.max_length is None:
            return super().cut(usual)
        return Cut(self._side or "right", self.max_length)


class TokenizeRequest(Dialect):
    """vLLM's `/tokenize`: the ids that would be scored."""

    prompt: Text | None = Field(None, description="A whole text; EOS is added as in /classify.")
    messages: Messages | None = Field(
        None, description="A conversation; with the assistant's last message, where it ends."
    )
    add_generation_prompt: bool | None = Field(
        None, description="True is what happens after messages that end with another's turn."
    )

    @model_validator(mode="after")
    def _one_input(self) -> TokenizeRequest:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("send exactly one of prompt and messages")
        return self


def _has(*names: str) -> Discriminator:
    """Tells "other" from "usual" requests by a field that only they have."""

    def kind(body: object) -> str:
        given = body if isinstance(body, dict) else {}
        return "usual" if all(given.get(name) is None for name in names) else "other"

    return Discriminator(kind)


ClassifyBody = Annotated[
    Annotated[WholeTextRequest, Tag("usual")] | Annotated[SglangRequest, Tag("other")],
    _has("text", "input_ids"),
]
RerankBody = Annotated[
    Annotated[RerankRequest, Tag("usual")] | Annotated[TeiRerankRequest, Tag("other")],
    _has("texts"),
]
RewardBody = Annotated[
    Annotated[OpenRLHFRequest, Tag("usual")] | Annotated[SlimeRequest, Tag("other")],
    _has("response"),
]


def candidates_of(items: list[Any]) -> list[Candidate]:
    return [item if isinstance(item, str) else tuple(item) for item in items]
