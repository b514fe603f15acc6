"""A conversation rendered by an exported tokenizer is what the encoder makes of its parts."""

from __future__ import annotations

import pytest

from codepmp_ray.modeling.chat_template import scored_conversation
from codepmp_ray.preference.tokenization import Encoder, PromptTemplate
from tests.tiny_models import CHAT_TEMPLATE, tiny_tokenizer

# A turn marker that is not EOS, contents trimmed, roles that must alternate: Gemma's way.
TURNS = (
    "{% for message in messages %}\n"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "<turn>{{ message['role'] }}\n{{ message['content'] | trim }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>model\n{% endif %}"
)
# A system message taken off the list, as Llama 3.1 does it.
SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = 'Be kind.' %}{% endif %}"
    "[{{ system }}]{% for m in messages %}<{{ m.role }}>{{ m.content }}<eot>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
PROMPT = [{"role": "user", "content": " Add one.\n"}]
TALK = [*PROMPT, {"role": "assistant", "content": "Sure."}, {"role": "user", "content": "So?"}]
ANSWERS = (" x + 1\n", "x + 1<|im_end|>", "x + 1<|im_end|>\n")


@pytest.mark.parametrize("chat_template", [CHAT_TEMPLATE, TURNS, SYSTEM])
# What ends without EOS has no EOS of its own: there it is text like any other control token.
@pytest.mark.parametrize(
    ("append_eos", "answer"), [(False, ANSWERS[0]), *((True, answer) for answer in ANSWERS)]
)
@pytest.mark.parametrize("prompt", [PROMPT, TALK])
def test_whole_conversations_end_where_the_reward_is_read(
    chat_template, append_eos, prompt, answer
):
    tokenizer = tiny_tokenizer()
    encoder = Encoder(tokenizer, PromptTemplate("chat", "", "", append_eos, chat_template))
    (expected,) = encoder.encode(prompt, [answer]).sequences
    before = tokenizer.apply_chat_template(
        prompt, chat_template=chat_template, add_generation_prompt=True, tokenize=False
    )
    tokenizer.chat_template = scored_conversation(chat_template, append_eos)
    whole = [*prompt, {"role": "assistant", "content": answer}]
    text = tokenizer.apply_chat_template(whole, tokenize=False)
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == expected
    again = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
    assert again == before


def test_an_export_that_is_trained_on_keeps_its_template() -> None:
    once = scored_conversation(CHAT_TEMPLATE, True)
    assert scored_conversation(once, True) == once
