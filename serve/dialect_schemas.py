"""Requests of other servers' scoring routes: vLLM, Cohere, Jina and infinity, TEI, OpenRLHF, slime,
SGLang, LLaMA-Factory.

Unknown fields are ignored, as those servers do. Fields of theirs that would change what is scored,
and are not implemented here, are refused by name (`UNSUPPORTED`). Scores are raw rewards unless a
sigmoid is asked for; TEI's and infinity's clients ask for it by their own fields.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from codepmp_ray.scoring.best_of_n import Candidate, Cut, Side

from .dialect_answers import sigmoid
from .errors import ApiError
from .schemas import MAX_MESSAGES, ChatMessage, Text

MAX_TEXTS = 16_384  # of one request; `max_body_bytes` is what bounds long ones
_MAX_IDS = 1_000_000

# Fields of other servers -> values beside null that change nothing here. All others get 422.
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "add_generation_prompt": (False,),
    "add_special_tokens": (False,),  # those of the template are in the text, EOS is added
    "cache_salt": (),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "continue_final_message": (False,),
    "dimensions": (),
    "embed_dtype": ("float32",),
    "encoding_format": ("float",),
    "endianness": ("native", "little"),
    "image_data": (),
    "input_embeds": (),
    "instruction": (),
    "is_cross_encoder_request": (False,),
    "max_chunks_per_doc": (),
    "max_tokens_per_query": (0,),
    "media_io_kwargs": ({},),
    "mm_processor_kwargs": ({},),
    "normalize": (False,),
    "padding": ("do_not_pad",),
    "prompt_name": (),
    "rank_fields": (["text"],),
    "softmax": (False,),
    "task": ("classify",),
    "tools": ([],),
}
# Fields of theirs that say nothing about scores.
IGNORED = frozenset({"priority", "request_id", "user"})


class _Dialect(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)
    model: Text | None = None

    @model_validator(mode="before")
    @classmethod
    def _all_supported(cls, body: object) -> object:
        if isinstance(body, dict):
            known = cls.model_fields
            for name in UNSUPPORTED.keys() & body.keys() - known.keys():
                _require_neutral(name, body[name])
        return body


def _require_neutral(name: str, value: object) -> None:
    allowed = UNSUPPORTED[name]
    if value is None or any(type(value) is type(item) and value == item for item in allowed):
        return
    shown = " or ".join(["null", *map(str, allowed)])
    raise ApiError(
        422,
        f"{name} is not supported here and would change the answer: leave it out, or send {shown}.",
        param=name,
        code="unsupported_field",
    )


class _Cutting(_Dialect):
    """How texts that are too long are cut; without these fields `serving.truncate` says it."""

    truncate_prompt_tokens: int | None = Field(
        None, ge=-1, description="Cut to so many tokens; -1: to what the model takes."
    )
    truncate: bool | None = Field(
        None,
        validation_alias=AliasChoices("truncate", "truncation"),
        description="Cut to what the model takes (false: refuse what is longer).",
    )
    truncation_side: Literal["right", "left", "Right", "Left"] | None = Field(
        None,
        validation_alias=AliasChoices("truncation_side", "truncation_direction"),
        description="The end that is lost, where something is cut.",
    )

    @model_validator(mode="after")
    def _cuts_to_something(self) -> _Cutting:
        if self.truncate_prompt_tokens == 0:
            raise ValueError("truncate_prompt_tokens is 0: nothing would be left to score")
        return self

    def cut(self, usual: Cut) -> Cut:
        most = self.truncate_prompt_tokens
        side = _side(self.truncation_side)
        if most is not None or self.truncate:
            return Cut(side or usual.side or "right", most if most and most > 0 else None)
        if self.truncate is False or usual.side is None:
            return Cut()
        return Cut(side or usual.side)


def _side(name: str | None) -> Side | None:
    return None if name is None else "left" if name.lower() == "left" else "right"


class _Scored(_Cutting):
    """What vLLM's and infinity's routes have in common."""

    use_activation: bool | None = Field(
        None,
        validation_alias=AliasChoices("use_activation", "activation"),
        description="True: sigmoid of the reward. Otherwise the raw reward.",
    )
    raw_scores: bool | None = Field(
        None, description="False: sigmoid, as infinity and TEI understand it."
    )

    @model_validator(mode="after")
    def _one_scale(self) -> _Scored:
        if None not in (self.use_activation, self.raw_scores) and (
            self.use_activation is self.raw_scores
        ):
            raise ValueError("use_activation and raw_scores contradict each other: send one")
        return self

    def shown(self, reward: float | None) -> float | None:
        is_raw = self.raw_scores is not False and not self.use_activation
        return reward if is_raw or reward is None else sigmoid(reward)


def _kind_of_texts(value: object) -> str:
    return "texts" if isinstance(value, list) else "text"


def _kind_of_input(value: object) -> str:
    first = value[0] if isinstance(value, list) and value else None
    kinds = {list: "rows", int: "ids"}
    return kinds.get(type(first)) or _kind_of_texts(value)


Texts = Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS, fail_fast=True)]
Ids = Annotated[
    list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=_MAX_IDS, fail_fast=True)
]
Rows = Annotated[list[Ids], Field(min_length=1, max_length=MAX_TEXTS, fail_fast=True)]
OneOrMore = Annotated[
    Annotated[Text, Tag("text")] | Annotated[Texts, Tag("texts")], Discriminator(_kind_of_texts)
]
TextsOrIds = Annotated[
    Annotated[Text, Tag("text")]
    | Annotated[Texts, Tag("texts")]
    | Annotated[Ids, Tag("ids")]
    | Annotated[Rows, Tag("rows")],
    Discriminator(_kind_of_input),
]
_CONVERSATION = Field(min_length=2, max_length=MAX_MESSAGES)


class WholeTextRequest(_Scored):
    """`/classify` and `/pooling`: texts with prompt, response and markers in them, their token ids,
    or messages.
    """

    input: TextsOrIds | None = Field(
        None,
        description="Texts are scored as they are; EOS is added where the model was trained with "
        "it. Ids get nothing added.",
    )
    messages: Annotated[list[ChatMessage], _CONVERSATION] | None = Field(
        None, description="A conversation that ends with the assistant's message to be scored."
    )

    @model_validator(mode="after")
    def _one_input(self) -> WholeTextRequest:
        if (self.input is None) == (self.messages is None):
            raise ValueError("send exactly one of input (text or token ids) and messages")
        if self.messages is not None and self.messages[-1].role != "assistant":
            raise ValueError("messages must end with the assistant's message that is to be scored")
        return self


class EncodedRequest(WholeTextRequest):
    """`/pooling`, where the reward is a vector that may be asked for as base64."""

    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="base64: little-endian float32."
    )


class EmbeddingsRequest(_Cutting):
    """`/v1/embeddings` as SGLang's reward models answer it: the reward as a vector of one."""

    input: TextsOrIds
    encoding_format: Literal["float", "base64"] | None = None


class SglangRequest(_Cutting):
    """SGLang's native `/classify`; told from vLLM's by its `text` or `input_ids`."""

    text: OneOrMore | None = None
    input_ids: TextsOrIds | None = None

    @model_validator(mode="after")
    def _one_input(self) -> SglangRequest:
        if (self.text is None) == (self.input_ids is None):
            raise ValueError("send exactly one of text and input_ids")
        if any(isinstance(ids, str) for ids in listed(self.input_ids or [])):
            raise ValueError("input_ids holds text; send it as text")
        return self

    @property
    def is_one(self) -> bool:
        given = self.text if self.text is not None else self.input_ids
        return isinstance(given, str) or (isinstance(given, list) and isinstance(given[0], int))


class ScoreRequest(_Scored):
    """`/score`: each second text as a response to its first; one first text serves them all."""

    text_1: OneOrMore = Field(
        validation_alias=AliasChoices("text_1", "queries", "data_1"),
        description="Also called queries or data_1.",
    )
    text_2: OneOrMore = Field(
        validation_alias=AliasChoices("text_2", "documents", "items", "data_2"),
        description="Also called documents, items or data_2.",
    )
    max_tokens_per_doc: int | None = Field(None, ge=0, description="Each is cut to so many tokens.")

    def cut(self, usual: Cut) -> Cut:
        return _of_documents(super().cut(usual), self.max_tokens_per_doc)

    def pairs(self) -> list[tuple[str, str]]:
        """Raises ValueError when the lengths do not fit."""
        seconds, firsts = _texts(self.text_2), _texts(self.text_1)
        if len(firsts) == 1:
            firsts = firsts * len(seconds)
        if len(firsts) != len(seconds):
            raise ValueError(
                f"text_1 has {len(firsts)} texts and text_2 {len(seconds)}: send one text_1, or as "
                "many as text_2"
            )
        return list(zip(firsts, seconds, strict=True))


def _of_documents(cut: Cut, max_tokens: int | None) -> Cut:
    return Cut(cut.side, cut.max_tokens, max_tokens or None)


class TextDocument(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)
    text: Text


def _kind_of_document(value: object) -> str:
    return "object" if isinstance(value, dict | TextDocument) else "text"


Document = Annotated[
    Annotated[Text, Tag("text")] | Annotated[TextDocument, Tag("object")],
    Discriminator(_kind_of_document),
]


class RerankRequest(_Scored):
    """Cohere's, Jina's, vLLM's and infinity's `/rerank`."""

    query: Annotated[Text, Field(min_length=1)]
    documents: Annotated[list[Document], Field(min_length=1, max_length=MAX_TEXTS, fail_fast=True)]
    top_n: int | None = Field(
        None,
        ge=0,
        validation_alias=AliasChoices("top_n", "top_k"),
        description="0 and null return all.",
    )
    return_documents: bool | None = None
    max_tokens_per_doc: int | None = Field(None, ge=0, description="Each is cut to so many tokens.")

    def cut(self, usual: Cut) -> Cut:
        return _of_documents(super().cut(usual), self.max_tokens_per_doc)

    def texts(self) -> list[str]:
        return [item if isinstance(item, str) else item.text for item in self.documents]


class TeiRerankRequest(_Cutting):
    """TEI's `/rerank`, told from the others by its `texts`. Its default is the sigmoid."""

    query: Annotated[Text, Field(min_length=1)]
    texts: Texts
    raw_scores: bool | None = Field(
        None, description="True: the raw reward. Otherwise its sigmoid."
    )
    return_text: bool | None = None
    top_n: int | None = Field(None, ge=0)


Pair = Annotated[list[Text], Field(min_length=1, max_length=2)]


def _kind_of_inputs(value: object) -> str:
    if not isinstance(value, list):
        return "text"
    return "batch" if value and isinstance(value[0], list) else "pair"


class TeiPredictRequest(_Cutting):
    """TEI's `/predict`: a whole text, a pair of prompt and response, or a batch of such."""

    inputs: Annotated[
        Annotated[Text, Tag("text")]
        | Annotated[Pair, Tag("pair")]
        | Annotated[
            list[Pair],
            Field(min_length=1, max_length=MAX_TEXTS, fail_fast=True),
            Tag("batch"),
        ],
        Discriminator(_kind_of_inputs),
    ]
    raw_scores: bool | None = Field(
        None, description="True: the raw reward. Otherwise its sigmoid."
    )

    def rows(self) -> list[tuple[str | None, str]]:
        """(prompt or None, text) of each."""
        if isinstance(self.inputs, str):
            return [(None, self.inputs)]
        rows = self.inputs if isinstance(self.inputs[0], list) else [self.inputs]
        return [(row[0] if len(row) == 2 else None, row[-1]) for row in rows]  # type: ignore[misc]


class OpenRLHFRequest(_Cutting):
    """`/get_reward`: `query` holds whole texts; prompts and labels are not needed."""

    query: OneOrMore
    prompts: Any = None
    labels: Any = None


class SlimeRequest(_Cutting):
    """slime's remote reward model on `/get_reward`, told by its `response`. The answer is a number.

    `prompt` as text has the template around it already, which ends where the response begins.
    """

    prompt: Text | Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    response: Text
    label: Any = None


class LlamaFactoryRequest(_Cutting):
    """LLaMA-Factory's `/v1/score/evaluation`: `messages` are whole texts."""

    messages: Texts
    max_length: int | None = Field(None, ge=1, description="Longer texts are cut to it.")

    def cut(self, usual: Cut) -> Cut:
        if self.max_length is None:
            return super().cut(usual)
        return Cut(_side(self.truncation_side) or "right", self.max_length)


class TokenizeRequest(_Dialect):
    """vLLM's `/tokenize`: the ids that would be scored."""

    prompt: Text | None = Field(None, description="A whole text; EOS is added as in /classify.")
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)] | None = (
        Field(None, description="A conversation; with the assistant's last message, where it ends.")
    )
    add_generation_prompt: bool | None = Field(
        None, description="True is what happens after messages that end with another's turn."
    )

    @model_validator(mode="after")
    def _one_input(self) -> TokenizeRequest:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("send exactly one of prompt and messages")
        return self


def has_field(*names: str) -> Any:
    """A Discriminator that tells "other" from "usual" requests by the presence of a field."""

    def kind(body: object) -> str:
        return "other" if isinstance(body, dict) and any(n in body for n in names) else "usual"

    return Discriminator(kind)


ClassifyBody = Annotated[
    Annotated[WholeTextRequest, Tag("usual")] | Annotated[SglangRequest, Tag("other")],
    has_field("text", "input_ids"),
]
RerankBody = Annotated[
    Annotated[RerankRequest, Tag("usual")] | Annotated[TeiRerankRequest, Tag("other")],
    has_field("texts"),
]
RewardBody = Annotated[
    Annotated[OpenRLHFRequest, Tag("usual")] | Annotated[SlimeRequest, Tag("other")],
    has_field("response"),
]


def listed(given: Any) -> list[Candidate]:
    """The texts or rows of ids of a field that holds one or more."""
    if isinstance(given, str):
        return [given]
    if given and isinstance(given[0], int):
        return [tuple(given)]
    return [item if isinstance(item, str) else tuple(item) for item in given]


def _texts(given: str | list[str]) -> list[str]:
    return [given] if isinstance(given, str) else given
