"""Hops, gates, constructions and the split into pairs and rejected rows."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from codepmp_ray.config.corpus import DecontaminationConfig
from codepmp_ray.config.engines import EngineConfig, EnginesConfig, SamplingConfig
from codepmp_ray.config.synthesis import SynthesisConfig
from codepmp_ray.corpus.languages import LANGUAGES
from codepmp_ray.errors import ConfigError, EngineError
from codepmp_ray.shard_markers import Totals
from codepmp_ray.shard_stats import contamination_hits, shard_stats
from codepmp_ray.synthesis.constructions.description_clip import clip
from codepmp_ray.synthesis.engine import Completion, ContextOverflow
from codepmp_ray.synthesis.hops import RowProcessor
from codepmp_ray.synthesis.pairs import split_rows
from codepmp_ray.synthesis.plan import plan_pools
from codepmp_ray.synthesis.prompts import answer_prompt, describe_prompt, parse_label

SNIPPET = {
    "snippet_id": "s1",
    "source_id": "f1",
    "blob_id": "b1",
    "repo": "r",
    "path": "a.py",
    "language": "python",
    "license": "MIT",
    "kind": "function",
    "name": "f",
    "start_line": 1,
    "end_line": 4,
    "code": "def f(x):\n    return x",
}
CONFIG = SynthesisConfig()
HOPS = ("describe", "chosen", "rejected")
TASK = "Return the input."
NUMBERS = str(list(range(60)))


class ScriptedEngine:
    """Gives the scripted answers in order and records what it was asked."""

    def __init__(self, *answers: Completion | Exception) -> None:
        self.answers = list(answers)
        self.questions: list[str] = []

    async def generate(self, user_message: str, sampling: SamplingConfig) -> Completion:
        self.questions.append(user_message)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def done(text: str, reason: str = "stop") -> Completion:
    return Completion(text, reason, len(text.split()))


def block(code: str, reason: str = "stop") -> Completion:
    return done(f"```python\n{code}\n```", reason)


def process(*answers: Completion | Exception, config: SynthesisConfig = CONFIG) -> dict[str, Any]:
    return asyncio.run(RowProcessor(config, HOPS)(dict(SNIPPET), ScriptedEngine(*answers)))


def only_row(row: dict[str, Any], config: SynthesisConfig = CONFIG) -> tuple[str, dict[str, Any]]:
    tables = split_rows([row], config, EnginesConfig())
    (name,) = [name for name, table in tables.items() if table.num_rows]
    return name, tables[name].to_pylist()[0]


def test_a_good_row_becomes_a_pair_with_provenance() -> None:
    row = process(done(' "Return the input." '), block("def f(x): return x"), block("def f(x): 1"))
    table, pair = only_row(row)
    assert table == "pairs"
    assert "Return the input." in pair["prompt"] and '"' not in pair["description"]
    assert pair["chosen"] == "```python\ndef f(x): return x\n```"
    assert pair["rejected"] == "```python\ndef f(x): 1\n```"
    assert pair["license"] == "MIT" and pair["snippet_id"] == "s1"
    assert pair["strong_model"].endswith("1.5B-Instruct") and pair["weak_model"].endswith(
        "0.5B-Instruct"
    )


def test_the_stored_prompt_is_what_the_chosen_side_was_asked() -> None:
    engine = ScriptedEngine(done(TASK), block("alpha()"), block("beta()"))
    row = asyncio.run(RowProcessor(CONFIG, HOPS)(dict(SNIPPET), engine))
    assert only_row(row)[1]["prompt"] == engine.questions[1] == engine.questions[2]


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([done("  \n")], "description_empty"),
        ([done("Half a sen", "length")], "description_cut_off"),
        ([ContextOverflow("too long")], "snippet_over_context"),
        ([done(TASK), ContextOverflow("too long")], "description_over_context"),
        ([done(TASK), done("```python\n```")], "chosen_empty"),
        ([done(TASK), done("x", "length")], "chosen_cut_off"),
        ([done(TASK), block("x"), done("")], "rejected_empty"),
        ([done(TASK), block("x"), block("y", "length")], "rejected_cut_off"),
        ([done(TASK), block("x  = 1"), block("x = 1\n")], "sides_equal"),
        ([done("I'm sorry, but I cannot describe it.")], "description_refusal"),
        ([done(TASK), done("I cannot help with that.")], "chosen_refusal"),
        ([done(TASK), done("Use a loop.")], "chosen_no_code"),
        ([done(TASK), block("x"), block("def f(:")], "rejected_parse_error"),
        ([done(TASK), block("a\0b")], "chosen_not_text"),
        ([done(TASK), block("x"), block("'\ud800'")], "rejected_not_text"),
        ([done(TASK), block("x = x + 1\n" * 10_000)], "chosen_repetitive"),
        ([done(TASK), block("ab = 1"), block("abc = 1;" + " c = 2;" * 9)], "length_ratio"),
        ([done(TASK), block(NUMBERS), block(NUMBERS.replace("17", "18"))], "sides_near_equal"),
        ([done(TASK), EngineError("boom")], "engine_error"),
    ],
)
def test_bad_answers_are_typed_rejects_and_stop_the_hops(answers: list, reason: str) -> None:
    row = process(*answers)  # a further question would find the script empty and raise
    table, rejected = only_row(row)
    assert table == "rejected" and rejected["reason"] == reason
    assert rejected["row_id"] == "s1" and rejected["path"] == "a.py"


def test_description_clip_shows_the_weak_side_less() -> None:
    config = SynthesisConfig(construction="description_clip", clip_fraction=0.1)
    text = " ".join(f"the {i}" for i in range(10))
    assert clip(text, 0.1) == " ".join(f"the {i}" for i in range(9))
    assert clip("one two", 0.1) == "one"
    assert clip("one", 0.1) == "one"
    engine = ScriptedEngine(done(text), block("a"), block("b"))
    asyncio.run(RowProcessor(config, HOPS)(dict(SNIPPET), engine))
    assert text in engine.questions[1] and text not in engine.questions[2]


def test_no_weights_are_loaded_twice_whoever_describes() -> None:
    engines = EnginesConfig()
    strong, weak = plan_pools(SynthesisConfig(describer="strong"), engines)
    assert (strong.hops, weak.hops) == (("describe", "chosen"), ("rejected",))
    weak, strong = plan_pools(SynthesisConfig(describer="weak"), engines)
    assert (weak.hops, strong.hops) == (("describe", "rejected"), ("chosen",))
    same = EngineConfig(model_name_or_path="builtin:x")
    other_pool_size = same.model_copy(update={"max_actors": 4})
    (only,) = plan_pools(CONFIG, EnginesConfig(strong=same, weak=other_pool_size))
    assert only.hops == HOPS


def test_an_answer_as_long_as_the_context_is_refused_before_any_engine_starts() -> None:
    engines = EnginesConfig.model_validate({"weak": {"max_model_len": 1024}})
    with pytest.raises(ConfigError, match=r"rejected\.max_tokens=1024 .*weak\.max_model_len=1024"):
        plan_pools(CONFIG, engines)
    config = SynthesisConfig(construction="source_model", source_opponent="strong")
    assert plan_pools(config, engines)  # nobody asks the weak one


@pytest.mark.parametrize(
    ("describer", "opponent", "pools"),
    [
        ("strong", "weak", [("strong", ("describe",)), ("weak", ("rejected",))]),
        ("weak", "weak", [("weak", ("describe", "rejected"))]),
        ("strong", "strong", [("strong", ("describe", "rejected"))]),
    ],
)
def test_source_model_asks_only_for_what_it_needs(describer, opponent, pools) -> None:
    config = SynthesisConfig(
        construction="source_model", describer=describer, source_opponent=opponent
    )
    planned = plan_pools(config, EnginesConfig())
    assert [(pool.name, pool.hops) for pool in planned] == pools


def test_source_model_pairs_the_snippet_with_an_answer() -> None:
    config = SynthesisConfig(construction="source_model")
    engine = ScriptedEngine(done("Return the input."), block("def g(y): return 2 * y"))
    row = dict(SNIPPET)
    for pool in plan_pools(config, EnginesConfig()):
        row = asyncio.run(RowProcessor(config, pool.hops)(row, engine))
    table, pair = only_row(row, config)
    assert table == "pairs" and engine.answers == []
    assert pair["chosen"] == f"```python\n{SNIPPET['code']}\n```"
    assert (pair["strong_model"], pair["chosen_num_tokens"]) == (None, None)
    assert pair["weak_model"].endswith("0.5B-Instruct") and pair["rejected_num_tokens"] > 0
    assert pair["prompt"] == engine.questions[1]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("engineering 0.9", ("engineering", 0.9)),
        ("Label: Non-Engineering, confidence: 1", ("non-engineering", 1.0)),
        ("non engineering (0.75)", ("non-engineering", 0.75)),
        ("engineering", None),
        ("engineering 7", None),
        ("engineering 90%", None),
        ("0.9", None),
        ("engineering " + "9" * 400, None),
    ],
)
def test_labels_are_parsed_or_absent(text: str, label: tuple[str, float] | None) -> None:
    assert parse_label(text) == label


@pytest.mark.parametrize(
    ("answer", "columns"),
    [
        (done("engineering 0.8"), ("engineering", 0.8)),
        (done("no idea \ud800"), (None, None)),
        (EngineError("boom"), (None, None)),
    ],
)
def test_a_label_is_an_extra_that_never_costs_the_row(answer: Any, columns: tuple) -> None:
    config = SynthesisConfig(label_domain=True)
    strong, weak = plan_pools(config, EnginesConfig())
    assert strong.hops == ("describe", "chosen", "label") and weak.hops == ("rejected",)
    engine = ScriptedEngine(done(TASK), block("alpha()"), answer, block("beta()"))
    row = dict(SNIPPET)
    for pool in (strong, weak):
        row = asyncio.run(RowProcessor(config, pool.hops)(row, engine))
    table, pair = only_row(row, config)
    assert table == "pairs" and (pair["domain"], pair["domain_confidence"]) == columns


def test_no_label_is_asked_for_by_default() -> None:
    row = process(done(TASK), block("alpha()"), block("beta()"))
    assert only_row(row)[1]["domain"] is None


class Leaks:
    """Texts of HumanEval/2 (truncate_number)."""

    DESCRIPTION = (
        "Given a positive floating point number, it can be decomposed into an integer part."
    )
    NAMED = "Write `truncate_number(x)`."
    CODE = "def truncate_number(x):\n    return x % 1"


@pytest.mark.parametrize(
    ("answers", "side", "num_asked"),
    [
        ([done(Leaks.DESCRIPTION)], "description", 1),
        ([done(Leaks.NAMED)], "description", 1),
        ([done(TASK), block(Leaks.CODE)], "chosen", 2),
        ([done(TASK), block("x = 1"), block(Leaks.CODE)], "rejected", 3),
    ],
)
def test_contaminated_texts_cost_no_further_tokens_and_are_counted(
    answers: list[Completion], side: str, num_asked: int
) -> None:
    engine = ScriptedEngine(*answers)
    processor = RowProcessor(CONFIG, HOPS, DecontaminationConfig())
    row = asyncio.run(processor(dict(SNIPPET), engine))
    assert len(engine.questions) == num_asked
    table, rejected = only_row(row)
    assert (table, rejected["reason"]) == ("rejected", "contaminated")
    assert rejected["detail"].startswith(f"humaneval: {side}: ")
    stats = shard_stats(split_rows([row, row], CONFIG, EnginesConfig()))
    assert stats[f"contaminated.humaneval.{side}"] == stats["rejected_by_reason.contaminated"] == 2
    hits = contamination_hits(Totals(stats=Counter(stats)), ["humaneval", "mbpp"])
    assert hits == {"humaneval": {side: 2}, "mbpp": {}}


def test_a_clean_row_passes_the_screen_and_off_is_off() -> None:
    clean = (done(TASK), block("def f(x): return x"), block("def f(x): 1"))
    leaky = (done(Leaks.NAMED), block(Leaks.CODE), block("x = 1 + 2"))
    off = DecontaminationConfig(enabled=False)
    for settings, answers in ((DecontaminationConfig(), clean), (off, leaky)):
        engine = ScriptedEngine(*answers)
        row = asyncio.run(RowProcessor(CONFIG, HOPS, settings)(dict(SNIPPET), engine))
        assert only_row(row)[0] == "pairs"


@pytest.mark.parametrize("language", LANGUAGES)
def test_prompts_write_a_language_as_people_do(language: str) -> None:
    names = {
        "cpp": "C++",
        "cuda": "CUDA C++",
        "javascript": "JavaScript",
        "tsx": "TSX",
        "typescript": "TypeScript",
    }
    name = names.get(language, language.capitalize())
    assert f" {name} code" in answer_prompt("D.", language)
    assert f"```{language}\n" in describe_prompt("x", language)
