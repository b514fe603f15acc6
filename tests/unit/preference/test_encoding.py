"""One tokenisation, an explicit overflow rule, a frozen template."""

import pytest

from codepmp_ray.errors import InputError, ModelError
from codepmp_ray.preference.encoding import encode_pair
from codepmp_ray.preference.packing import EncodedPair
from codepmp_ray.preference.tokenization import Encoder, PromptTemplate
from codepmp_ray.records import RejectReason
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
    whole = encoder.response("hello")
    cut = encoder.response("hello", max_tokens=3)
    assert whole.ids[-1] == encoder.tokenizer.eos_token_id and not whole.truncated
    assert cut.ids == whole.ids[:3] and cut.truncated


def test_overflow_is_rejected_or_cut_as_asked(encoder: Encoder) -> None:
    fits = encode_pair(ROW, encoder, 100, "reject")
    assert isinstance(fits, EncodedPair)
    length = len(fits.prompt) + len(fits.chosen)
    assert isinstance(encode_pair(ROW, encoder, length, "reject"), EncodedPair)
    refused = encode_pair(ROW, encoder, length - 1, "reject")
    assert not isinstance(refused, EncodedPair) and refused[0] is RejectReason.OVER_MAX_LENGTH
    cut = encode_pair(ROW, encoder, length - 1, "truncate")
    assert isinstance(cut, EncodedPair) and cut.chosen == fits.chosen[:-1]
    assert not isinstance(encode_pair(ROW, encoder, len(fits.prompt), "truncate"), EncodedPair)


@pytest.mark.parametrize("field", ["prompt", "chosen", "rejected"])
@pytest.mark.parametrize("value", ["", "  \n", None, 7])
def test_blank_or_missing_texts_are_rejected(encoder: Encoder, field: str, value: object) -> None:
    result = encode_pair({**ROW, field: value}, encoder, 100, "reject")
    assert not isinstance(result, EncodedPair) and str(result[0]) == f"{field}_empty"


def test_template_round_trip_and_damage(encoder: Encoder, tmp_path) -> None:
    encoder.template.save(tmp_path)
    assert PromptTemplate.load(tmp_path) == encoder.template
    (tmp_path / "codepmp_template.json").write_text("{}")
    with pytest.raises(ModelError, match="damaged"):
        PromptTemplate.load(tmp_path)


def test_plain_template_takes_no_messages_and_chat_needs_a_template() -> None:
    tokenizer = tiny_tokenizer()
    plain = Encoder(tokenizer, PromptTemplate.from_tokenizer(tokenizer, "plain", False))
    assert plain.response("a").ids[-1] != tokenizer.eos_token_id
    with pytest.raises(InputError, match="no messages"):
        plain.prompt_ids([{"role": "user", "content": "a"}])
    tokenizer.chat_template = None
    with pytest.raises(ModelError, match="template=plain"):
        PromptTemplate.from_tokenizer(tokenizer, "chat", True)
