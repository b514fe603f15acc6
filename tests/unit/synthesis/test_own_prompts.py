"""A recipe's own words: what they may hold, what they change, what is stored of them."""

from __future__ import annotations

from typing import Any

import pytest

from codepmp_ray.config.base import fingerprint
from codepmp_ray.config.engines import EnginesConfig
from codepmp_ray.config.prompts import PromptsConfig
from codepmp_ray.config.recipe import Recipe, parse_recipe
from codepmp_ray.config.synthesis import SynthesisConfig
from codepmp_ray.errors import ConfigError
from codepmp_ray.runs import stage_fingerprints
from codepmp_ray.synthesis.constructions import make_construction
from codepmp_ray.synthesis.pairs import split_rows
from codepmp_ray.synthesis.prompts import TEMPLATE_VERSION, prompt_texts

PROMPTS = {
    "describe": "Task of {code} ({language}, {fence}) as {{json}}?",
    "answer": "Do {description}",
    "tests": "Test {description}",
    "label": "Label {code}",
}
ROW = {
    "snippet_id": "s", "source_id": "f", "blob_id": "b", "repo": "r", "path": "a.py",
    "language": "python", "license": "MIT", "kind": "function", "name": "f",
    "code": "def f(x):\n    return {x}", "description": "Return {it}.",
    "description_num_tokens": 3, "chosen_num_tokens": 9, "rejected_num_tokens": 9,
    "description_finish_reason": "stop", "chosen_finish_reason": "stop",
    "rejected_finish_reason": "stop",
    "chosen": "```python\ndef f(x):\n    return x\n```", "rejected": "```python\n1\n```",
}  # fmt: skip


def recipe_with(**prompts: str) -> Recipe:
    return parse_recipe({"synthesis": {"prompts": prompts}}, "test")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("describe", "Describe it.", "placeholder {code} is missing"),
        ("answer", "Write {language} code.", "placeholder {description} is missing"),
        ("answer", "Write {descripton}.", "unknown placeholder {descripton} (did you mean"),
        ("label", "Label {code} {description}", "unknown placeholder {description}"),
        ("tests", "Test {description} in {language}", "unknown placeholder {language}"),
        ("describe", "{code.__class__}", "unknown placeholder {code.__class__}"),
        ("describe", "{code} {}", "unknown placeholder {}"),
        ("describe", "{code!r}", "placeholders are plain names"),
        ("describe", "{code:>9}", "placeholders are plain names"),
        ("describe", "{code} as {json", "write {{ and }} for braces"),
        ("describe", "{code} }", "write {{ and }} for braces"),
    ],
)
def test_a_prompt_that_cannot_be_filled_in_is_refused(name: str, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        recipe_with(**{name: text})
    assert f"synthesis.prompts.{name}" in str(caught.value) and words in str(caught.value)


def test_own_words_are_asked_and_values_are_taken_as_they_are() -> None:
    config = SynthesisConfig.model_validate({"prompts": PROMPTS})
    made = make_construction(config)
    row: dict[str, Any] = dict(ROW)
    assert made.question("describe", row) == f"Task of {ROW['code']} (Python, python) as {{json}}?"
    assert made.question("label", row) == f"Label {ROW['code']}"
    assert made.prompt(row) == made.question("chosen", row) == "Do Return {it}."
    clip = make_construction(config.model_copy(update={"construction": "description_clip"}))
    assert clip.question("rejected", row) == "Do Return"
    tested = make_construction(config.model_copy(update={"construction": "execution_feedback"}))
    assert tested.question("tests", row).startswith("Test Return {it}.\n\nWrite it as one function")


def test_pairs_say_whose_words_they_were_made_with() -> None:
    def version(**prompts: str) -> str:
        config = SynthesisConfig.model_validate({"prompts": prompts, "gates": {"code": "none"}})
        (pair,) = split_rows([dict(ROW)], config, EnginesConfig())["pairs"].to_pylist()
        assert pair["prompt"] == make_construction(config).prompt(dict(ROW))
        return pair["prompt_template"]

    assert version() == TEMPLATE_VERSION
    own = version(answer=PROMPTS["answer"])
    assert own.startswith("own-") and own != version(describe=PROMPTS["describe"])


def test_own_words_are_another_stage_and_the_default_ones_no_other() -> None:
    plain, own = stage_fingerprints(Recipe()), stage_fingerprints(recipe_with(**PROMPTS))
    assert plain["corpus"] == own["corpus"] and plain["synthesis"] != own["synthesis"]
    assert stage_fingerprints(recipe_with(answer=PromptsConfig().answer)) == plain


def test_the_card_shows_the_words_of_the_recipe() -> None:
    words = PromptsConfig.model_validate(PROMPTS)
    assert prompt_texts(("describe", "chosen", "rejected"), words) == {
        "describe": PROMPTS["describe"], "answer": PROMPTS["answer"],
    }  # fmt: skip
    assert list(prompt_texts(("describe", "tests", "chosen", "rejected", "label"))) == [
        *("describe", "label", "tests", "answer")
    ]


def test_other_default_words_need_another_version() -> None:
    """They are in no fingerprint: raise TEMPLATE_VERSION and the stage's number with them."""
    assert (TEMPLATE_VERSION, fingerprint(PromptsConfig())) == ("codepmp-v2", "ea4ca0ee5db9")
