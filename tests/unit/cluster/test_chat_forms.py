"""How a message becomes a prompt, and what is wrong with that before any weights load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from codepmp_ray.cluster import engines
from codepmp_ray.config.engines import EngineConfig
from codepmp_ray.config.recipe import parse_recipe
from codepmp_ray.errors import ModelError
from codepmp_ray.runs import stage_fingerprints

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{{ mode or 'plain' }}>"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tiny_model_dir: Path) -> list[str]:
    """Models whose weights would have loaded."""
    found: list[str] = []
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    tokenizer.chat_template = None
    monkeypatch.setattr(engines, "load_tokenizer", lambda model, arguments: tokenizer)
    monkeypatch.setattr(engines, "start_engine", lambda model, *rest: found.append(model))
    monkeypatch.setattr(engines, "apply", lambda environment: None)
    return found


def engine(model: Path, **settings: Any) -> engines.VLLMEngine:
    return engines.VLLMEngine(EngineConfig(model_name_or_path=str(model), **settings))


def prompt(found: engines.VLLMEngine, message: str) -> str:
    return found._tokenizer.decode(found._chat_ids(message), skip_special_tokens=False)


def test_templates_of_all_kinds(started, tiny_model_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "chat.jinja").write_text(TEMPLATE)
    for template in (TEMPLATE, str(tmp_path / "chat.jinja")):
        found = engine(tiny_model_dir, chat_template=template)
        assert prompt(found, "Add one.").endswith("<user>Add one.plain>")
    thinking = engine(
        tiny_model_dir, chat_template=TEMPLATE, chat_template_kwargs={"mode": "quiet"}
    )
    assert prompt(thinking, "x").endswith("quiet>")
    plain = engine(tiny_model_dir, chat_template="plain")
    assert prompt(plain, "Add one.").endswith("Add one.\n\n")
    assert len(started) == 4


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "chat template of"),
        ({"chat_template": "/no/such.jinja"}, "cannot be read"),
        ({"chat_template": "{{ raise_exception('no user turn') }}"}, "no user turn"),
        ({"chat_template": "{% for %}"}, "cannot be used"),
        ({"chat_template": "{{ messages[3].content.x.y }}"}, "cannot be used"),
    ],
)
def test_what_cannot_be_rendered_is_said_before_the_weights_load(
    started, tiny_model_dir: Path, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        engine(tiny_model_dir, **settings)
    assert "\n" not in str(caught.value) and "plain" in str(caught.value)
    assert started == []


def test_a_template_is_part_of_what_a_stage_depends_on(tmp_path: Path) -> None:
    def fingerprint(**strong: Any) -> str:
        data = {"run_dir": str(tmp_path), "engines": {"strong": strong}}
        return stage_fingerprints(parse_recipe(data, "test"))["synthesis"]

    file = tmp_path / "chat.jinja"
    file.write_text("a {{ x }}")
    own, first = fingerprint(), fingerprint(chat_template=str(file))
    file.write_text("b {{ x }}")
    seen = {own, first, fingerprint(chat_template=str(file)), fingerprint(chat_template="plain")}
    assert len(seen) == 4
    assert own == fingerprint(chat_template=None, chat_template_kwargs={})
