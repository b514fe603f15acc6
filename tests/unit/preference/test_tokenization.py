"""Prompt and answer are one text, on every kind of tokenizer; people's control tokens are text."""

from __future__ import annotations

import string
from typing import Any

import pytest

from codepmp_ray.errors import InputError, ModelError
from codepmp_ray.modeling.chat_template import scored_conversation
from codepmp_ray.preference.tokenization import Encoder, PromptTemplate, common_length

TEXT = (
    "def f(x):\n    return x\n\n\n    if x:\n        y = x + 1\n\n    return y\nAdd  one to it.\n"
    "  Two\tspaces\n\nand the assistant answers the user user\nassistant\n    return\n" * 3
)
SPECIAL = ["<pad>", "<bos>", "<eos>", "<|im_start|>", "<|im_end|>", "<gmask>"]
CHATML = (
    "{{ bos_token or '' }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TRIMMED = CHATML.replace("{{ m.content }}", "{{ m.content | trim }}")
# No control token before the answer, as Llama 2 has it.
INSTRUCTIONS = (
    "{{ bos_token or '' }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
)
# (how words are cut, what the tokenizer puts before a text)
KINDS = {
    "bytes": ("bytes", []),
    "bytes, BOS": ("bytes", ["<bos>"]),
    "bytes, two tokens": ("bytes", ["<gmask>", "<bos>"]),
    "words after a space": ("metaspace always", ["<bos>"]),
    "first word after a space": ("metaspace first", ["<bos>"]),
    "whole text": ("metaspace never", ["<bos>"]),
}
ANSWERS = [
    "return", " return", "\n    return x\n", "\n\nAdd", "    return x", "\tspaces", "Add  one", "",
    "\n", "  ", "é", "assistant\n",
]  # fmt: skip


def make_tokenizer(kind: str) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    cut, before = KINDS[kind]
    tokenizer = Tokenizer(models.BPE(byte_fallback=cut != "bytes", unk_token="<pad>"))
    if cut == "bytes":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(
            prepend_scheme=cut.split()[1], split=False
        )
        tokenizer.decoder = decoders.Metaspace()
        alphabet = sorted({*TEXT, *"é▁<|>_", *string.ascii_lowercase})
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([line + "\n" for line in TEXT.split("\n")] + [TEXT], trainer)
    if before:
        ids = [(token, tokenizer.token_to_id(token)) for token in before]
        single = " ".join([*before, "$A"])
        tokenizer.post_processor = TemplateProcessing(single=single, special_tokens=ids)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>" if before else None,
        eos_token="<eos>",
        pad_token="<pad>",
    )


def encoder_of(kind: str, template: str, append_eos: bool = True) -> Encoder:
    tokenizer = make_tokenizer(kind)
    tokenizer.chat_template = None if template == "plain" else template
    name = "plain" if template == "plain" else "chat"
    return Encoder(tokenizer, PromptTemplate.from_tokenizer(tokenizer, name, append_eos))


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("template", [CHATML, TRIMMED, INSTRUCTIONS])
def test_a_conversation_has_the_ids_that_the_exported_tokenizer_gives_it(
    kind: str, template: str
) -> None:
    encoder = encoder_of(kind, template)
    exported = make_tokenizer(kind)
    exported.chat_template = scored_conversation(encoder.template.chat_template or "", True)
    for prompt in ("Add one to it.", "  Two \n", "x"):
        user = {"role": "user", "content": prompt}
        encoded = encoder.encode(prompt, ANSWERS)
        assert encoded == encoder.encode([user], ANSWERS)
        for answer, ids in zip(ANSWERS, encoded.sequences, strict=True):
            talk = [user, {"role": "assistant", "content": answer}]
            assert ids == exported.apply_chat_template(talk, return_dict=False), (prompt, answer)
            text = exported.apply_chat_template(talk, tokenize=False)
            assert encoder.whole_text(text).ids == ids, (prompt, answer)


@pytest.mark.parametrize("rest", ["<|channel|>final<|message|>", " "])
def test_an_answer_follows_the_whole_header_that_the_template_gives_it(rest: str) -> None:
    """As in gpt-oss's template, where the model begins with a channel, and in Mistral's."""
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}{% if m.role == 'assistant' %}REST"
        "{{ m.content }}<|im_end|>{% else %}\n{{ m.content }}<|im_end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
    ).replace("REST", f"{{{{ '{rest}' }}}}")
    encoder = encoder_of("bytes", template)
    assert encoder.template.suffix == f"<|im_end|><|im_start|>assistant{rest}"
    talk = [{"role": "user", "content": "Add"}, {"role": "assistant", "content": "x"}]
    shown = encoder.tokenizer.apply_chat_template(talk, chat_template=template, tokenize=False)
    assert shown == encoder.render_prompt("Add") + "x<|im_end|>"
    thought = template.replace(f"'{rest}'", "'<think></think>'")
    assert encoder_of("bytes", thought).template.suffix.endswith("assistant")


def test_plain_prompts_begin_as_the_tokenizer_begins_a_text(kind: str) -> None:
    encoder = encoder_of(kind, "plain")
    tokenizer = encoder.tokenizer
    before = KINDS[kind][1]
    assert encoder.template.prefix == "".join(before)
    for prompt in ("Add one to it.", " Two \n", "x"):
        encoded = encoder.encode(prompt, ANSWERS)
        for answer, ids in zip(ANSWERS, encoded.sequences, strict=True):
            text = f"{prompt}\n{answer}"
            assert ids == [*tokenizer(text)["input_ids"], tokenizer.eos_token_id], answer
            assert encoder.whole_text(text).ids == ids
            assert encoder.whole_text(encoder.template.prefix + text + "<eos>").ids == ids
        assert encoded.prompt == tokenizer(f"{prompt}\n")["input_ids"]


def test_what_a_tokenizer_puts_first_and_no_text_gives_is_refused() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = make_tokenizer("bytes")
    # The token of one letter, whose name alone is another token's text.
    letter = tokenizer.convert_tokens_to_ids("\u0100")  # byte 0 in the alphabet of bytes
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="odd $A", special_tokens=[("odd", letter)]
    )
    with pytest.raises(ModelError, match="cannot be written as text"):
        PromptTemplate.from_tokenizer(tokenizer, "plain", True)


@pytest.mark.parametrize("template", [CHATML, "plain"])
def test_answers_share_what_they_begin_with_and_are_cut_for_themselves(
    kind: str, template: str
) -> None:
    encoder = encoder_of(kind, template)
    encoded = encoder.encode("Add one to it.", ANSWERS)
    prompt, responses = encoded.split()
    assert [prompt + response.ids for response in responses] == encoded.sequences
    assert len(encoded.prompt) - 3 <= len(prompt) <= len(encoded.prompt)
    for answer, ids in zip(ANSWERS, encoded.sequences, strict=True):
        assert encoder.encode("Add one to it.", [answer]).sequences == [
            ids
        ]  # whoever else is there
    limit = len(encoded.prompt) + 2
    prompt, responses = encoded.split(limit)
    for response, ids in zip(responses, encoded.sequences, strict=True):
        assert prompt + response.ids == ids[:limit]
        assert response.truncated == (len(ids) > limit)


@pytest.mark.parametrize("template", [CHATML, INSTRUCTIONS, "plain"])
@pytest.mark.parametrize("token", SPECIAL)
def test_control_tokens_in_a_text_are_text(kind: str, template: str, token: str) -> None:
    encoder = encoder_of(kind, template)
    tokenizer = encoder.tokenizer
    number = tokenizer.convert_tokens_to_ids(token)
    without = encoder.encode("Add  to it.", ["return  x"])
    encoded = encoder.encode(f"Add {token} to it.", [f"return {token} x"])
    for found, clean in zip(
        (encoded.prompt, *encoded.sequences), (without.prompt, *without.sequences), strict=True
    ):
        assert found.count(number) == clean.count(number)
        text = "".join(tokenizer.convert_ids_to_tokens(found))
        assert token in text
    if template != "plain":
        messages = [{"role": "user", "content": f"Add {token} to it."}]
        assert encoder.encode(messages, [f"return {token} x"]) == encoded
    shown = encoder.render_prompt(f"Add {token} to it.")
    assert f"Add {token} to it." in shown and "\u2063" not in shown


def test_what_looks_like_a_mark_is_left_as_it_is() -> None:
    encoder = encoder_of("bytes", CHATML)
    for odd in (
        "a \u2063cfff\u2063 b <eos>",
        "a \u2063c0\u2063 b",
        "\u2063",
        "\u2063c0<eos>\u2063",
    ):
        assert odd in encoder.tokenizer.decode(encoder.prompt_ids(odd))
        assert odd in encoder.render_prompt(odd)


def test_an_answer_that_brings_its_end_gets_no_second_one(kind: str) -> None:
    for template in (CHATML, "plain"):
        encoder = encoder_of(kind, template)
        eos = encoder.tokenizer.eos_token_id
        (once,) = encoder.encode("Add", ["return x"]).sequences
        for text in ("return x<eos>", "return x<eos>\n"):
            assert encoder.encode("Add", [text]).sequences == [once]
        assert once.count(eos) == 1
        bare = encoder_of(kind, template, append_eos=False)
        assert eos not in bare.encode("Add", ["return x<eos>"]).sequences[0]


def test_fields_that_the_template_does_not_show_are_refused_and_others_are_shown() -> None:
    call = {"function": {"name": "add", "arguments": {"x": 1}}}
    talk = [
        {"role": "user", "content": "Add"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "2", "tool_call_id": "7"},
    ]
    with pytest.raises(InputError, match=r"messages\[1\]\.tool_calls would not be shown"):
        encoder_of("bytes", CHATML).prompt_ids(talk)
    shows = CHATML.replace("{{ m.content }}", "{{ m.content }}{{ m.tool_calls or '' }}")
    assert "'add'" in encoder_of("bytes", shows).render_prompt(talk)
    # A template that says the field's name of something else, as those with tools say `name`.
    mentions = CHATML.replace("{{ m.content }}", "{{ m.content }}{{ '' if false and m.id.name }}")
    named = [{"role": "user", "content": "Add", "name": "Ann"}]
    with pytest.raises(InputError, match=r"messages\[0\]\.name would not be shown"):
        encoder_of("bytes", mentions).prompt_ids(named)
    needs = CHATML.replace("{{ m.content }}", "{{ m.name.upper() }}: {{ m.content }}")
    assert "ANN: Add" in Encoder(
        make_tokenizer("bytes"), PromptTemplate("chat", "", "", True, needs)
    ).render_prompt(named)


def test_common_length() -> None:
    assert common_length([[1, 2, 3], [1, 2, 4], [1, 2]]) == 2
    assert common_length([[1], [1, 2]]) == 1
    assert common_length([[], [1]]) == 0
    assert common_length([[5, 6], [4, 6]]) == 0
