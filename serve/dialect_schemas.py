"""Requests of other servers' scoring routes: vLLM, Cohere, Jina and infinity, TEI, OpenRLHF, slime,
SGLang, LLaMA-Factory.

Unknown fields are ignored, as those servers do. Fields of theirs that would change what is scored,
and are not implemented here, are refused by name (`UNSUPPORTED`), and so is a second field that
holds texts. Scores are raw rewards unless a sigmoid is asked for, but TEI's, as TEI gives them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import chain
from typing import Annotated, Any, ClassVar, Literal

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

from codepmp_ray.scoring.best_of_n import Candidate, Cut, Side

from .dialect_answers import sigmoid
from .errors import ApiError
from .schemas import Messages, Text

MAX_TEXTS = 16_384  # of one request; `max_body_bytes` is what bounds long ones
_MAX_IDS = 1_000_000

# Fields of other servers -> values beside null that change nothing here. All others get 422.
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(["cache_salt", "chat_template", "dimensions", "instruct", "instruction"], ()),
    **dict.fromkeys(["audio_data", "image_data", "video_data", "input_embeds"], ()),
    **dict.fromkeys(["label_token_ids", "lora_id", "lora_path", "max_chunks_per_doc"], ()),
    **dict.fromkeys(["max_length", "prompt_name"], ()),
    # Special tokens: those of the template are in the text, EOS is added.
    **dict.fromkeys(["add_generation_prompt", "add_special_tokens"], (False,)),
    **dict.fromkeys(["continue_final_message", "is_cross_encoder_request"], (False,)),
    **dict.fromkeys(["apply_softmax", "item_first", "normalize", "softmax"], (False,)),
    **dict.fromkeys(["return_pooled_hidden_states"], (False,)),
    **dict.fromkeys(["max_tokens_per_doc", "max_tokens_per_query"], (0,)),
    **dict.fromkeys(["chat_template_kwargs", "media_io_kwargs", "mm_processor_kwargs"], ({},)),
    "embed_dtype": ("float32",),
    "encoding_format": ("float",),
    "endianness": ("native", "little"),
    "padding": ("do_not_pad",),
    "rank_fields": (["text"],),
    "task": ("classify",),
    "tools": ([],),
}
# Fields of theirs that say nothing about scores.
IGNORED = frozenset({"priority", "request_id", "user"})
# What holds texts to be scored in some request here. In another it would be left out in silence.
_OF_TEXTS = frozenset({"documents", "input", "input_ids", "inputs", "items", "messages", "query"})
_OF_TEXTS |= {"data_1", "data_2", "queries", "response", "text", "texts", "text_1", "text_2"}


class _Dialect(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)
    model: Text | None = None

    @model_validator(mode="before")
    @classmethod
    def _all_supported(cls, body: object) -> object:
        given = body if isinstance(body, dict) else {}
        for names in _own_names(cls):
            if len(twice := [name for name in names if given.get(name) is not None]) > 1:
                raise ApiError(
                    422, f"{' and '.join(twice)} are one field: send one", param=twice[1]
                )
        others = given.keys() - set(chain(*_own_names(cls)))
        for name in sorted(_OF_TEXTS & others):
            if given[name] is not None:
                raise ApiError(
                    422, f"{name} belongs to another kind of request: leave it out", param=name
                )
        for name in sorted(UNSUPPORTED.keys() & others):
            value, allowed = given[name], (None, *UNSUPPORTED[name])
            if not any(type(value) is type(item) and value == item for item in allowed):
                shown = " or ".join(["null", *map(str, allowed[1:])])
                raise ApiError(
                    422,
                    f"{name} is not supported here and would change the answer: leave it out, or "
                    f"send {shown}.",
                    param=name,
                    code="unsupported_field",
                )
        return body


@cache
def _own_names(kind: type[BaseModel]) -> list[list[str]]:
    """The names of each of its fields."""
    return [
        [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else [name]
        for name, field in kind.model_fields.items()
        for alias in [field.validation_alias]
    ]


class _Scored(_Dialect):
    """What all routes that score have in common: how texts that are too long are cut, without these
    fields as `serving.truncate` says, and on which scale scores are.
    """

    is_raw_by_default: ClassVar[bool] = True
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
    use_activation: bool | None = Field(
        None,
        validation_alias=AliasChoices("use_activation", "activation"),
        description="True: sigmoid of the reward; false: the raw reward.",
    )
    raw_scores: bool | None = Field(
        None, description="The opposite of use_activation, as infinity and TEI have it."
    )

    @model_validator(mode="after")
    def _one_scale(self) -> _Scored:
        if self.use_activation is not None and self.use_activation is self.raw_scores:
            raise ValueError("use_activation and raw_scores contradict each other: send one")
        return self

    @model_validator(mode="after")
    def _cuts_to_something(self) -> _Scored:
        if self.truncate_prompt_tokens == 0:
            raise ValueError("truncate_prompt_tokens is 0: nothing would be left to score")
        return self

    def cut(self, usual: Cut) -> Cut:
        most, side = self.truncate_prompt_tokens, self._side
        if most is not None or self.truncate:
            return Cut(side or usual.side or "right", most if most and most > 0 else None)
        if self.truncate is False or usual.side is None:
            return Cut()
        return Cut(side or usual.side)

    @property
    def _side(self) -> Side | None:
        sides: dict[str | None, Side] = {"right": "right", "left": "left"}
        return sides.get(self.truncation_side and self.truncation_side.lower())

    def shown(self, reward: float | None) -> float | None:
        """On the scale that was asked for."""
        is_raw = self.is_raw_by_default
        if self.raw_scores is not None or self.use_activation is not None:
            is_raw = bool(self.raw_scores) or self.use_activation is False
        return reward if is_raw or reward is None else sigmoid(reward)


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


class WholeTextRequest(_Scored):
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


class SglangRequest(_Scored):
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


class _Documents(_Scored):
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


class TeiRerankRequest(_Scored):
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


class TeiPredictRequest(_Scored):
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


class OpenRLHFRequest(_Scored):
    """`/get_reward`: `query` holds whole texts; prompts and labels are not needed."""

    query: OneOrMore
    prompts: Any = None
    labels: Any = None


class SlimeRequest(_Scored):
    """slime's remote reward model on `/get_reward`, told by its `response`. The answer is a number.

    `prompt` as text has the template around it already, which ends where the response begins.
    """

    prompt: Text | Messages
    response: Text
    label: Any = None


class LlamaFactoryRequest(_Scored):
    """LLaMA-Factory's `/v1/score/evaluation`: `messages` are whole texts."""

    messages: Texts
    max_length: int | None = Field(None, ge=1, description="Longer texts are cut to it.")

    def cut(self, usual: Cut) -> Cut:
        if self.max_length is None:
            return super().cut(usual)
        return Cut(self._side or "right", self.max_length)


class TokenizeRequest(_Dialect):
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
