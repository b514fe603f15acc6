"""The same text on any later day, for strings, messages, the export and other programs."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
import transformers.utils.chat_template_utils as rendering

from codepmp_ray.errors import ModelError
from codepmp_ray.modeling.chat_template import scored_conversation
from codepmp_ray.preference import prompt_template
from codepmp_ray.preference.tokenization import Encoder, PromptTemplate
from tests.tiny_models import tiny_tokenizer

BODY = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}<eot>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
# The three ways of families: a default that an argument overrides, an own format, a macro.
LLAMA = (
    "{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    '{%- set date_string = strftime_now("%d %b %Y") %}{%- else %}'
    '{%- set date_string = "26 Jul 2024" %}{%- endif %}{%- endif %}Today: {{ date_string }} '
) + BODY
SMOLLM3 = "{%- set today = strftime_now('%d %B %Y') -%}Today: {{ today }} " + BODY
GPT_OSS = (
    '{%- macro date() -%}{{ strftime_now( "%Y-%m-%d" ) }}{%- endmacro -%}Today: {{ date() }} '
) + BODY
QWEN3 = BODY[:-11] + (
    "<assistant>{% if enable_thinking is defined and enable_thinking is false %}"
    "<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
R1 = BODY[:-11] + "<assistant><think>\n{% endif %}"
HYBRID = BODY[:-11] + (
    "<assistant>{% if thinking is not defined or thinking %}<think>\n{% else %}</think>{% endif %}"
    "{% endif %}"
)
PROMPT = [{"role": "user", "content": "Hi"}]


class _Day(datetime):
    today = datetime(2026, 12, 1)

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return cls.today


@pytest.fixture
def day(monkeypatch: pytest.MonkeyPatch) -> type[_Day]:
    monkeypatch.setattr(_Day, "today", datetime(2026, 12, 1))
    monkeypatch.setattr(rendering, "datetime", _Day)
    monkeypatch.setattr(prompt_template, "datetime", _Day)
    return _Day


def encoder_of(chat_template: str, **kwargs: Any) -> Encoder:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = chat_template
    return Encoder(tokenizer, PromptTemplate.from_tokenizer(tokenizer, "chat", True, kwargs))


@pytest.mark.parametrize("chat_template", [LLAMA, SMOLLM3, GPT_OSS])
def test_the_date_is_that_of_the_training(chat_template: str, day: type[_Day]) -> None:
    encoder = encoder_of(chat_template)
    began = encoder.render_prompt("Hi")
    assert "2026" in began and encoder.render_prompt(PROMPT) == began
    day.today = datetime(2027, 3, 1)
    later = Encoder(encoder.tokenizer, PromptTemplate.from_json(encoder.template.to_json()))
    assert later.render_prompt("Hi") == later.render_prompt(PROMPT) == began
    assert later.template.chat_template is not None
    later.tokenizer.chat_template = scored_conversation(later.template.chat_template, True)
    whole = [*PROMPT, {"role": "assistant", "content": "Yo"}]
    exported = later.tokenizer.apply_chat_template(whole, tokenize=False)
    assert exported == began + "Yo" + later.tokenizer.eos_token
    assert "2027" in encoder_of(chat_template).render_prompt("Hi")  # another training


def test_a_program_without_dates_renders_the_same(day: type[_Day]) -> None:
    import jinja2

    template = encoder_of(LLAMA).template.chat_template
    plain = jinja2.Environment().from_string(str(template))
    assert plain.render(messages=PROMPT).startswith("Today: 01 Dec 2026")


def test_a_date_that_cannot_be_written_in_is_refused() -> None:
    computed = "{%- set f = '%Y' -%}{{ strftime_now(f) }}" + BODY
    with pytest.raises(ModelError, match="cannot be frozen"):
        encoder_of(computed)


def test_arguments_are_part_of_the_template() -> None:
    without, quiet = encoder_of(QWEN3), encoder_of(QWEN3, enable_thinking=False)
    assert without.render_prompt("Hi").endswith("<assistant>")
    assert quiet.render_prompt("Hi").endswith("<think>\n\n</think>\n\n")
    assert quiet.render_prompt(PROMPT) == quiet.render_prompt("Hi")
    loaded = PromptTemplate.from_json(quiet.template.to_json())
    assert loaded == quiet.template and loaded.chat_template_kwargs == {"enable_thinking": False}
    text = encoder_of(QWEN3.replace("is false", "== None"), enable_thinking=None)
    assert text.template.chat_template is not None and "= none" in text.template.chat_template


def test_arguments_without_an_effect_are_refused() -> None:
    with pytest.raises(ModelError, match=r"enable_thinkin: .* does not mention"):
        encoder_of(QWEN3, enable_thinkin=False)
    with pytest.raises(ModelError, match="does not mention"):
        encoder_of(QWEN3, **{"enable_thinking = 1 %}": False})
    with pytest.raises(ModelError, match="template=plain has no chat template"):
        PromptTemplate.from_tokenizer(tiny_tokenizer(), "plain", True, {"enable_thinking": False})


def test_no_answer_lies_inside_an_open_thought() -> None:
    for chat_template in (R1, HYBRID):
        with pytest.raises(ModelError, match="open <think>"):
            encoder_of(chat_template)
    assert encoder_of(HYBRID, thinking=False).template.suffix.endswith("</think>")
