"""One tokenisation, an explicit overflow rule, a frozen template."""

import json
from typing import Any

import pytest

from codepmp_ray.config.data import DataSourceConfig
from codepmp_ray.config.evaluation import BatchScoringConfig
from codepmp_ray.errors import InputError, ModelError
from codepmp_ray.io.shards import Piece
from codepmp_ray.preference.encoding import encode_pair
from codepmp_ray.preference.items import EncodedItem
from codepmp_ray.preference.messages import BadMessage, checked_messages
from codepmp_ray.preference.sources.rows import Unusable
from codepmp_ray.preference.sources.trl import build_row
from codepmp_ray.preference.tokenization import Encoder, PromptTemplate
from codepmp_ray.reject_reasons import RejectReason
from codepmp_ray.scoring.batch_rows import parse_row
from codepmp_ray.serve.schemas import BonRequest
from tests.tiny_models import tiny_tokenizer


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    tokenizer = tiny_tokenizer()
    return Encoder(tokenizer, PromptTemplate.from_tokenizer(tokenizer, "chat", True))


ROW = {"prompt": "abc", "chosen": "x = 1", "rejected": "y"}


def test_prompt_is_rendered_like_the_chat_template(encoder: Encoder) -> None:
    as_messages = encoder.prompt_ids([{"role": "user", "content": "abc"}])
    assert encoder.prompt_ids("abc") == as_messages
    text = encoder.tokenizer.decode(as_messages)
    assert text == "<|im_start|>user\nabc<|im_end|>\n<|im_start|>assistant\n"


def test_responses_end_in_eos_and_only_whole_ones_do(encoder: Encoder) -> None:
    encoded = encoder.encode("abc", ["hello"])
    prompt, (whole,) = encoded.split()
    _, (cut,) = encoded.split(len(prompt) + 3)
    assert whole.ids[-1] == encoder.tokenizer.eos_token_id and not whole.truncated
    assert cut.ids == whole.ids[:3] and cut.truncated


def test_overflow_is_rejected_or_cut_as_asked(encoder: Encoder) -> None:
    fits = encode_pair(ROW, encoder, 100, "reject")
    assert isinstance(fits, EncodedItem)
    length = len(fits.prompt) + len(fits.answers[0])
    assert isinstance(encode_pair(ROW, encoder, length, "reject"), EncodedItem)
    refused = encode_pair(ROW, encoder, length - 1, "reject")
    assert not isinstance(refused, EncodedItem) and refused[0] is RejectReason.OVER_MAX_LENGTH
    cut = encode_pair(ROW, encoder, length - 1, "truncate")
    assert isinstance(cut, EncodedItem) and cut.answers[0] == fits.answers[0][:-1]
    assert not isinstance(encode_pair(ROW, encoder, len(fits.prompt), "truncate"), EncodedItem)


@pytest.mark.parametrize("field", ["prompt", "chosen", "rejected"])
@pytest.mark.parametrize("value", ["", "  \n", None, 7])
def test_blank_or_missing_texts_are_rejected(encoder: Encoder, field: str, value: object) -> None:
    result = encode_pair({**ROW, field: value}, encoder, 100, "reject")
    assert not isinstance(result, EncodedItem) and str(result[0]) == f"{field}_empty"


def test_template_round_trip_and_damage(encoder: Encoder, tmp_path) -> None:
    encoder.template.save(tmp_path)
    assert PromptTemplate.load(tmp_path) == encoder.template
    (tmp_path / "codepmp_template.json").write_text("{}")
    with pytest.raises(ModelError, match="damaged"):
        PromptTemplate.load(tmp_path)


def test_plain_template_takes_no_messages_and_chat_needs_a_template() -> None:
    tokenizer = tiny_tokenizer()
    plain = Encoder(tokenizer, PromptTemplate.from_tokenizer(tokenizer, "plain", False))
    assert plain.encode("p", ["a"]).sequences[0][-1] != tokenizer.eos_token_id
    with pytest.raises(InputError, match="no messages"):
        plain.prompt_ids([{"role": "user", "content": "a"}])
    tokenizer.chat_template = None
    with pytest.raises(ModelError, match="template=plain"):
        PromptTemplate.from_tokenizer(tokenizer, "chat", True)


def side(*texts: str) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]


def test_sides_of_several_messages_are_conversations_of_their_own(encoder: Encoder) -> None:
    talk = side("p", "q")
    row = {"pair_id": "x", "messages": talk, "prompt": None, "chosen": "good", "rejected": "bad"}
    row |= {"chosen_context": side("a"), "rejected_context": side("b")}
    pair = encode_pair(row, encoder, 200, "reject")
    assert isinstance(pair, EncodedItem)
    for context, answer, ids in (("a", "good", pair.answers[0]), ("b", "bad", pair.answers[1])):
        (expected,) = encoder.encode([*talk, *side(context)], [answer]).sequences
        assert pair.prompt + ids == expected
    assert encoder.tokenizer.decode(pair.prompt).endswith("q<|im_end|>\n<|im_start|>")
    only_one = encode_pair({**row, "rejected_context": None}, encoder, 200, "reject")
    assert isinstance(only_one, EncodedItem) and only_one.answers[0] == pair.answers[0]
    long = {**row, "chosen_context": side("a" * 300)}
    for overflow in ("reject", "truncate"):
        refused = encode_pair(long, encoder, 200, overflow)
        assert not isinstance(refused, EncodedItem)
        assert refused[0] is RejectReason.OVER_MAX_LENGTH


def test_a_template_that_rewrites_earlier_turns_rejects_sides_of_several_messages() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{% if loop.index > messages|length - 2 %}{{ m.role }}:{% endif %}"
        "{{ m.content }}<|im_end|>{% endfor %}"
    )
    encoder = Encoder(tokenizer, PromptTemplate.from_tokenizer(tokenizer, "chat", True))
    row = {"messages": side("a long enough prompt"), "chosen": "good", "rejected": "bad"}
    row |= {"chosen_context": side("x", "y", "z")[1:], "rejected_context": None}
    refused = encode_pair(row, encoder, 300, "reject")
    assert not isinstance(refused, EncodedItem)
    assert refused[0] is RejectReason.PROMPT_NOT_RENDERED and "earlier turns" in refused[1]


CALL = [{"id": "7", "type": "function", "function": {"name": "f", "arguments": {"x": None}}}]
SHOWN = [{"id": "7", "type": "function", "function": {"name": "f", "arguments": {}}}]
USER = {"role": "user", "content": "And?"}
GOOD = [
    ({"role": "user", "content": "Hi"}, {"role": "user", "content": "Hi"}),
    ({"role": "ipython", "content": ""}, {"role": "ipython", "content": ""}),
    (
        {"role": "user", "content": [{"type": "text", "text": t} for t in ("a", "b")]},
        {"role": "user", "content": "a\nb"},
    ),
    ({"role": "user", "content": []}, {"role": "user", "content": ""}),
    (
        {"role": "user", "content": "Hi", "name": "Ann", "refusal": None, "tool_calls": None},
        {"role": "user", "content": "Hi", "name": "Ann"},
    ),
    (
        {"role": "assistant", "content": None, "tool_calls": CALL},
        {"role": "assistant", "content": "", "tool_calls": SHOWN},
    ),
    (
        {"role": "tool", "content": "2", "tool_call_id": "7"},
        {"role": "tool", "content": "2", "tool_call_id": "7"},
    ),
    (
        {"role": "assistant", "content": "2", "reasoning_content": "1 + 1"},
        {"role": "assistant", "content": "2", "reasoning_content": "1 + 1"},
    ),
]
BAD: list[tuple[Any, str, str]] = [
    ({"content": "Hi"}, "bad_conversation", "role"),
    ({"role": 7, "content": "Hi"}, "bad_conversation", "role"),
    ({"role": "", "content": "Hi"}, "bad_conversation", "role"),
    ({"role": "user"}, "bad_conversation", "content"),
    ({"role": "user", "content": None}, "bad_conversation", "content"),
    ({"role": "user", "content": 7}, "not_text", "content"),
    ({"role": "user", "content": "half \ud83d"}, "not_text", "surrogate"),
    ({"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, "field_not_shown",
     "image_url"),
    ({"role": "user", "content": ["Hi"]}, "field_not_shown", "content"),
    ({"role": "user", "content": [{"type": "text", "text": None}]}, "not_text", "text"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "expected"), GOOD)
def test_a_message_is_the_same_wherever_it_comes_from(
    given: dict[str, Any], expected: dict[str, Any]
) -> None:
    talk, wanted = [given, USER], [expected, USER]
    assert checked_messages(talk, "m") == wanted
    answers = {name: [{"role": "assistant", "content": name}] for name in ("chosen", "rejected")}
    (pair,) = build_row({"prompt": talk, **answers}, DataSourceConfig(path="x"))
    assert pair["messages"] == wanted
    asked = {"messages": talk, "candidates": ["a"]}
    piece = Piece("/data/x.jsonl", "x.jsonl", 1, 1, 0, 1)
    row = parse_row(asked, piece, 0, BatchScoringConfig(path="x"))
    assert row["is_messages"] and json.loads(row["prompt"]) == wanted
    assert BonRequest.model_validate(asked).prompt_or_messages() == wanted


@pytest.mark.parametrize(("given", "reason", "word"), BAD)
def test_what_is_no_message_is_refused_everywhere(given: Any, reason: str, word: str) -> None:
    talk = [given, USER]
    with pytest.raises(BadMessage, match=word) as found:
        checked_messages(talk, "m")
    assert str(found.value.reason) == reason
    answers = {name: [{"role": "assistant", "content": name}] for name in ("chosen", "rejected")}
    with pytest.raises(Unusable, match=word) as refused:
        build_row({"prompt": talk, **answers}, DataSourceConfig(path="x"))
    assert str(refused.value.reason) == reason
    with pytest.raises((ValueError, InputError)):
        BonRequest.model_validate({"messages": talk, "candidates": ["a"]}).prompt_or_messages()
