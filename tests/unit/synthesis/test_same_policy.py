"""Same policy: a reference in the prompt, another answer of its author against someone else's."""

import asyncio
from typing import Any

import pytest

from codepmp_ray.config.engines import EnginesConfig, SamplingConfig
from codepmp_ray.config.recipe import parse_recipe
from codepmp_ray.config.synthesis import SynthesisConfig
from codepmp_ray.errors import ConfigError
from codepmp_ray.records import SNIPPET
from codepmp_ray.synthesis.constructions import all_hops
from codepmp_ray.synthesis.engine import Completion
from codepmp_ray.synthesis.hops import RowProcessor
from codepmp_ray.synthesis.pairs import split_rows
from codepmp_ray.synthesis.plan import plan_pools
from codepmp_ray.synthesis.prompts import prompt_texts

ROW = dict.fromkeys(SNIPPET.names, "x") | {"language": "python", "code": "def f(x):\n    return x"}
TASK = "Write a function that returns what it is given."
FIRST, SECOND, OTHER = (
    f"```python\n{code}\n```"
    for code in ("def f(x):\n    return x", "same = lambda value: value", "f = print")
)


class Writer:
    """Answers in the order of its script, and keeps what each hop of it was asked."""

    def __init__(self, **answers: str) -> None:
        self.answers = answers
        self.asked: dict[str, tuple[str, SamplingConfig]] = {}
        self.hop = ""

    async def generate(self, user_message: str, sampling: SamplingConfig) -> Completion:
        self.asked[self.hop] = (user_message, sampling)
        text = self.answers[self.hop]
        return Completion(text, "length" if text == "cut" else "stop", len(text.split()))


def make(policy: str = "strong", **answers: str) -> tuple[Writer, dict[str, list[dict[str, Any]]]]:
    config = SynthesisConfig.model_validate({"construction": "same_policy", "policy": policy})
    given = {"describe": TASK, "reference": FIRST, "chosen": SECOND, "rejected": OTHER}
    writer, row = Writer(**given | answers), dict(ROW)
    for pool in plan_pools(config, EnginesConfig()):
        for hop in pool.hops:
            writer.hop = hop
            row = asyncio.run(RowProcessor(config, (hop,))(row, writer))
    tables = split_rows([row], config, EnginesConfig())
    return writer, {name: table.to_pylist() for name, table in tables.items()}


@pytest.mark.parametrize("policy", ["strong", "weak"])
def test_the_reference_stands_in_the_prompt_and_nobody_was_shown_it(policy: str) -> None:
    writer, tables = make(policy)
    (pair,) = tables["pairs"]
    assert TASK in pair["prompt"] and FIRST in pair["prompt"]
    assert (pair["chosen"], pair["rejected"]) == (SECOND, OTHER)
    questions = {writer.asked[hop] for hop in ("reference", "chosen", "rejected")}
    assert len(questions) == 1 and FIRST not in questions.pop()[0]
    hops = all_hops(SynthesisConfig.model_validate({"construction": "same_policy",
                                                    "policy": policy}))  # fmt: skip
    assert hops["reference"] == hops["chosen"] == policy != hops["rejected"]
    of_role = {role: getattr(EnginesConfig(), role).model_name_or_path for role in hops.values()}
    assert pair["strong_model"] == of_role[hops["chosen"]]
    assert pair["weak_model"] == of_role[hops["rejected"]]


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ({"reference": "cut"}, "cut_off"),
        ({"reference": "I cannot help with that."}, "refusal"),
        ({"reference": "```python\ndef f(:\n```"}, "parse_error"),
        ({"reference": "```python\ndef f(x): pass\n```"}, "stub"),
        ({"reference": SECOND}, "chosen: sides_equal"),
        ({"reference": OTHER}, "rejected: sides_equal"),
        (
            {"reference": f"```python\n{list(range(99))}\n```",
             "chosen": f"```python\n{list(range(1, 99))}\n```",
             "rejected": f"```python\n{list(range(1000, 1080))}\n```"},
            "chosen: sides_near_equal",
        ),
    ],
)  # fmt: skip
def test_what_is_no_reference_is_refused(answers: dict[str, str], told: str) -> None:
    _, tables = make(**answers)
    (rejected,) = tables["rejected"]
    assert rejected["reason"] == "no_reference" and told in rejected["detail"]


@pytest.mark.parametrize(
    "chosen", [{"temperature": 0.0}, {"temperature": 1.0, "seed": 3}, {"top_k": 1}]
)
def test_a_model_that_would_say_the_same_twice_is_refused_at_once(chosen: dict) -> None:
    with pytest.raises(ConfigError, match="two different answers"):
        parse_recipe({"synthesis": {"construction": "same_policy", "chosen": chosen}}, "test")
    assert parse_recipe({"synthesis": {"chosen": chosen}}, "test")


def test_one_model_in_both_parts_is_refused() -> None:
    engine = {"model_name_or_path": "one"}
    with pytest.raises(ConfigError, match=r"same_policy.*two models"):
        parse_recipe(
            {"synthesis": {"construction": "same_policy"},
             "engines": {"strong": engine, "weak": engine}}, "test",
        )  # fmt: skip


def test_the_card_shows_the_words_around_the_reference() -> None:
    hops = all_hops(SynthesisConfig(construction="same_policy"))
    assert list(prompt_texts(hops)) == ["describe", "answer", "reference"]
