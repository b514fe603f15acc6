"""Fields of other servers' requests: which are taken, which change nothing, which are refused.

Unknown fields are ignored, as those servers do. Fields of theirs that would change what is scored,
and are not implemented here, are refused by name (`UNSUPPORTED`), and so are those that another
kind of request here has: they would be left out.
"""

from __future__ import annotations

from functools import cache
from itertools import chain
from typing import Any, ClassVar, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from codepmp_ray.scoring.best_of_n import Cut, Side

from .dialect_answers import sigmoid
from .errors import ApiError
from .schemas import BonManyRequest, BonRequest, Text

# Fields of other servers -> values beside null that change nothing here. All others get 422.
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(["cache_salt", "chat_template", "dimensions", "instruct", "instruction"], ()),
    **dict.fromkeys(["max_doc_length", "max_query_length", "overlap_tokens"], ()),
    **dict.fromkeys(["audio_data", "image_data", "video_data", "input_embeds"], ()),
    **dict.fromkeys(["label_token_ids", "lora_id", "lora_path", "max_chunks_per_doc"], ()),
    **dict.fromkeys(["max_length", "prompt_name"], ()),
    # Special tokens: those of the template are in the text, EOS is added.
    **dict.fromkeys(["add_generation_prompt", "add_special_tokens"], (False,)),
    **dict.fromkeys(["continue_final_message", "is_cross_encoder_request"], (False,)),
    **dict.fromkeys(["apply_softmax", "item_first", "normalize", "softmax"], (False,)),
    **dict.fromkeys(["return_embeddings", "return_pooled_hidden_states"], (False,)),
    **dict.fromkeys(["return_input", "rewrite_query", "stream"], (False,)),
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
IGNORED = frozenset({"label", "labels", "priority", "request_id", "user"})


class Dialect(BaseModel):
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
        for name in sorted(others & (all_names() - UNSUPPORTED.keys() - IGNORED)):
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


@cache
def all_names() -> frozenset[str]:
    """Of the fields of all kinds of requests that are scored, once their modules are imported."""
    kinds: list[type[BaseModel]] = [BonRequest, BonManyRequest, Dialect]
    for kind in kinds:  # which grows
        kinds += kind.__subclasses__()
    return frozenset(chain(*(chain(*_own_names(kind)) for kind in kinds)))


class Scored(Dialect):
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
    def _one_scale(self) -> Scored:
        if self.use_activation is not None and self.use_activation is self.raw_scores:
            raise ValueError("use_activation and raw_scores contradict each other: send one")
        return self

    @model_validator(mode="after")
    def _cuts_to_something(self) -> Scored:
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
