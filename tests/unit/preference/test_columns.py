"""Columns of sets: names are mapped, what is not used is named, and no prompt is a guess."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from codepmp_ray.config.accuracy import AccuracyConfig
from codepmp_ray.config.base import fingerprint
from codepmp_ray.config.data import KIND_COLUMNS, DataSourceConfig, Kind
from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.pairwise.pairs import load_pairs
from codepmp_ray.preference.sources import SOURCES
from codepmp_ray.preference.sources.columns import ColumnUse
from codepmp_ray.preference.sources.reading import column_use
from codepmp_ray.preference.sources.rows import Reject
from codepmp_ray.storage import LocalStore
from codepmp_ray.training.inputs import prepare_sources

Row = dict[str, Any]
TEXTS = {"chosen": "The answer is 4.", "rejected": "The answer is 5."}
ASK = [{"role": "user", "content": "What is 2 + 2?"}]
SHAREGPT = [{"from": "human", "value": "What is 2 + 2?"}]


def answer(text: str, **more: Any) -> Row:
    return {"role": "assistant", "content": text, **more}


TURNS = {"chosen": [answer("4")], "rejected": [answer("5")]}
TALKS = {"chosen": [*ASK, answer("4")], "rejected": [*ASK, answer("5")]}


def read(
    *rows: Row, kind: Kind = "preference", template: str | None = None, **settings: Any
) -> tuple[list[Any], list[Reject], ColumnUse]:
    source = DataSourceConfig(kind=kind, path="unused", **settings)
    use = column_use(source, template)
    built = list(SOURCES[kind].build(use.rows(enumerate(rows)), source))
    pairs = [item for item in built if not isinstance(item, Reject)]
    prompts = [(pair["messages"] or pair["prompt"], pair["chosen"]) for pair in pairs]
    return prompts, [item for item in built if isinstance(item, Reject)], use


# What sets of others call their prompt: (columns beside the two sides, the one that is the prompt).
PROMPTS = [
    ({"question": "What is 2 + 2?"}, "question"),
    ({"question": "Why?"}, "question"),
    ({"instruction": "What is 2 + 2?", "input": ""}, "instruction"),  # Alpaca's ranking form
    ({"input": "the numbers 2 and 2", "instruction": "Add them."}, "instruction"),
    ({"system": "Be brief.", "question": "What is 2 + 2?"}, "question"),  # orca_dpo_pairs
    ({"query": "What is 2 + 2?"}, "query"),
    ({"input": "What is 2 + 2?"}, "input"),
    ({"inputs": "What is 2 + 2?"}, "inputs"),
    ({"context": ASK}, "context"),
    ({"messages": ASK}, "messages"),
    ({"conversations": SHAREGPT}, "conversations"),
    ({"history": ["What is 2 + 2?"]}, "history"),  # SHP
    ({"post": "What is 2 + 2?"}, "post"),  # summaries
    ({"problem": "What is 2 + 2?"}, "problem"),
    ({"user_prompt": "What is 2 + 2?"}, "user_prompt"),
    ({"Prompt": "What is 2 + 2?"}, "Prompt"),
    ({"promptText": "What is 2 + 2?"}, "promptText"),
    ({"system": "Be brief."}, "system"),
    ({"body": "Please add two and two."}, "body"),  # no name that says anything
    ({"turns": ASK}, "turns"),
]


@pytest.mark.parametrize("template", ["chat", "plain", None])
@pytest.mark.parametrize(("beside", "prompt"), PROMPTS)
def test_text_beside_the_sides_is_no_reason_to_guess(
    beside: Row, prompt: str, template: str | None
) -> None:
    with pytest.raises(InputError, match=r"prompt would be a guess") as error:
        read({**beside, **TEXTS, "id": "7"}, template=template)
    assert f"columns: {{prompt: {prompt}}}" in str(error.value)
    assert all(name in str(error.value) for name, value in beside.items() if value)
    # Where `null` would be refused too, nobody is sent there.
    assert ("{prompt: null}" in str(error.value)) == (template != "chat")
    rest = [name for name, value in beside.items() if value and name not in (prompt, "system")]
    assert (f"; {', '.join(rest)} would not be in it" in str(error.value)) == bool(rest)


@pytest.mark.parametrize(("beside", "prompt"), PROMPTS)
def test_a_side_that_is_one_turn_does_not_hold_its_prompt(beside: Row, prompt: str) -> None:
    with pytest.raises(InputError, match=rf"columns: {{prompt: {prompt}}}"):
        read({**beside, **TURNS})


@pytest.mark.parametrize(
    "beside", [{"question": "What is 2 + 2?"}, {"query": "What is 2 + 2?"}, {"messages": ASK}]
)
def test_a_mapped_prompt_is_the_prompt(beside: Row) -> None:
    (name,) = beside
    for sides, text in ((TEXTS, "The answer is 4."), (TURNS, "4")):
        if not (sides is TURNS and name == "messages"):
            prompts, rejects, use = read({**beside, **sides}, columns={"prompt": name})
            assert (prompts, rejects) == ([("What is 2 + 2?", text)], [])
            assert not use.unused and use.line() is None


def test_all_columns_can_be_mapped_at_once_even_in_a_circle() -> None:
    columns = {"prompt": "ask", "chosen": "rejected", "rejected": "chosen", "margin": "gap"}
    row = {"ask": "2 + 2?", "chosen": "5", "rejected": "4", "gap": 1.5, "prompt": "old"}
    prompts, _, use = read(row, columns=columns)
    assert prompts == [("2 + 2?", "4")]
    assert list(use.unused) == ["prompt (not the mapped one)"]
    solved = {
        "problem": "1 + 1?",
        "outputs": [{"text": "2", "label": 1}, {"text": "3", "label": 0}],
    }
    prompts, _, _ = read(solved, kind="gsm8k_solutions", columns={"question": "problem"})
    assert prompts == [("1 + 1?", "2")]


def test_names_that_are_not_there_are_refused_with_those_that_are() -> None:
    row = {"question": "2 + 2?", **TEXTS}
    for name in ("prompt", "chosen"):
        with pytest.raises(InputError, match=r"no column 'ask'; it has question, chosen, rejected"):
            read(row, columns={name: "ask"})
    # Lines may lack what others have, so that the whole set is looked at.
    late = {**row, "gap": 2.0}
    mapped = {"prompt": "question", "margin": "gap"}
    assert len(read(row, late, columns=mapped)[0]) == 2
    with pytest.raises(InputError, match=r"no column 'gap'"):
        read(row, row, columns=mapped)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"promt": "question"}, "'promt'; rows of kind=preference are read for prompt, chosen"),
        ({"chosen": None}, "chosen=null"),
        ({"chosen": "a", "rejected": "a"}, "'a' as two columns"),
    ],
)
def test_mappings_that_mean_nothing_are_refused_with_the_recipe(columns: Row, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DataSourceConfig(path="x", columns=columns)


def test_metadata_is_no_prompt_and_is_named_once() -> None:
    """Skywork, UltraFeedback and HH as TRL has them, with what else they carry."""
    metadata = {
        "id": "a b c d e f",
        "prompt_id": "0",
        "question_id": 3,
        "source": "a web page of somebody",
        "dataset": "helpful base, first part",
        "chosen_model": "the first of four models",
        "conversation_id": "c c c c c",
        "score_chosen": 8.0,
        "num_turns": 2,
        "language": "en",
        "label": "yes",
        "extra": {"x": 1},
        "empty": None,
        "turn": "2",
    }
    expected = [name for name in metadata if name != "empty"]
    for sides in (TALKS, {**TEXTS, "prompt": "What is 2 + 2?"}, TEXTS):
        row = {**sides, **metadata}
        prompts, rejects, use = read(row, row, template="plain")
        assert len(prompts) == 2 and rejects == []
        assert list(use.unused) == expected
        assert (use.line() or "").startswith("preference: columns not used: id, prompt_id, ")
    assert "score_chosen" not in read({**TALKS, **metadata}, scores_as_margin=True)[2].unused


def test_messages_that_both_sides_begin_with_are_a_prompt() -> None:
    beside = {"messages": [*ASK, answer("4")], "question": "What is 2 + 2?"}
    prompts, rejects, use = read({**TALKS, **beside}, template="chat")
    assert (prompts, rejects) == ([("What is 2 + 2?", "4")], [])
    assert list(use.unused) == ["messages", "question"] and use.num_shared == 0


def test_text_that_both_sides_begin_with_is_no_users_turn() -> None:
    with pytest.raises(InputError, match=r"row 1 has plain text: under template=chat"):
        read(TALKS, TEXTS, template="chat")
    prompts, _, use = read(TEXTS, template="plain")
    assert prompts == [("The answer is", " 4.")]
    assert use.line() == "preference: 1 prompts are what both texts begin with"
    # `null` says that the other text is none, and no more.
    asked = {**TEXTS, "note": "some words about this row"}
    assert read(asked, template="plain", columns={"prompt": None})[0] == prompts
    with pytest.raises(InputError, match="under template=chat"):
        read(asked, template="chat", columns={"prompt": None})


def test_a_hole_in_the_prompts_is_a_reject() -> None:
    prompts, _, use = read({"prompt": "2 + 2?", **TEXTS}, TEXTS, template="plain")
    assert prompts == [("2 + 2?", "The answer is 4."), ("", "The answer is 4.")]  # blank: rejected
    assert use.num_shared == 0
    prompts, _, _ = read({"q": "2 + 2?", **TEXTS}, TEXTS, columns={"prompt": "q"})
    assert prompts[1][0] == ""


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (answer("", tool_calls=[{"id": "1"}]), "tool_calls"),
        ({"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}, "tool_calls"),
        ({"role": "assistant", "tool_calls": [{"id": "1"}]}, "tool_calls"),
        (answer("4", reasoning_content="think"), "reasoning_content"),
        (answer("4", name="Ann"), "name"),
        (answer("4", function_call={"name": "add"}), "function_call"),
        (answer("4") | {"content": [{"type": "image", "image": "x"}]}, "image"),
        (answer("4", images=["x"]), "images"),
    ],
)
def test_what_no_reward_is_read_after_rejects_its_row(message: Row, field: str) -> None:
    """In an answer. In earlier messages the template decides, but for what is no text."""
    good = {"prompt": ASK, **TURNS}
    in_prompt = {"prompt": [*ASK, message, *ASK], **TURNS}
    for row in (
        *([in_prompt] if field.startswith("image") else []),
        {"prompt": ASK, **TURNS, "chosen": [message]},
        {"prompt": ASK, **TURNS, "rejected": [message]},
    ):
        prompts, (reject,), _ = read(good, row)
        assert len(prompts) == 1
        assert (reject.index, str(reject.reason)) == (1, "field_not_shown")
        assert field in reject.detail


def test_nulls_and_notes_of_messages_cost_no_row() -> None:
    """Files whose rows share one schema have nulls where a message lacks a field."""
    filled = {"tool_calls": None, "name": None, "images": [], "timestamp": 5}
    prompt = [{"role": "user", "content": [{"type": "text", "text": "2 + 2?"}], **filled}]
    prompts, rejects, use = read({"prompt": prompt, **TURNS, "tools": None})
    assert (prompts, rejects) == ([("2 + 2?", "4")], [])
    assert list(use.unused) == ["prompt[].timestamp"]
    for name in ("tools", "chat_template_kwargs"):
        _, (reject,), _ = read({"prompt": "2 + 2?", **TEXTS, name: {"x": 1}})
        assert str(reject.reason) == "field_not_shown" and name in reject.detail


class Watched(dict[str, Any]):
    """A row that knows what was asked of it."""

    def __init__(self, row: Row) -> None:
        super().__init__(row)
        self.asked: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        self.asked.add(key)
        return super().__getitem__(key)


CHOICE = {"question": "Which?", "label": 0, "answer": 0, "answers": ["a", "b"]}
ROWS: dict[Kind, list[Row]] = {
    "preference": [{"prompt": "p", **TEXTS}, TALKS],
    "math_shepherd": [{"input": "Q? Step 1: 4 ки", "label": "Q? Step 1: 4 +"}],
    "reclor": [{**CHOICE, "context": "c"}],
    "logiqa2": [{**CHOICE, "text": "c", "options": ["a", "b"]}],
    "code_ultrafeedback": [{"instruction": "sort", **TEXTS, "margin": 1.0}],
    "hh_rlhf": [TALKS, {"chosen": "\n\nHuman: x\n\nAssistant: a", "rejected": "b"}],
    "gsm8k_solutions": [{"question": "q", name: []} for name in ("outputs", "candidates")],
}


@pytest.mark.parametrize("kind", get_args(Kind))
def test_every_kind_says_which_columns_it_reads(kind: Kind) -> None:
    source = DataSourceConfig(kind=kind, path="unused", scores_as_margin=True)
    rows = [Watched(row) for row in ROWS[kind]]
    list(SOURCES[kind].build(enumerate(rows), source))
    asked = set[str]().union(*(row.asked for row in rows))
    assert asked and asked <= set(KIND_COLUMNS[kind])
    assert all(columns <= set(KIND_COLUMNS[kind]) for columns in SOURCES[kind].columns)


def test_stages_of_recipes_that_map_nothing_keep_their_names() -> None:
    source = DataSourceConfig(path="x")
    assert "columns" not in source.result_fields()
    mapped = DataSourceConfig(path="x", columns={"prompt": "question"})
    one, other = (fingerprint(TrainingConfig(data=(item,))) for item in (source, mapped))
    assert one != other


def test_training_refuses_a_guess_before_it_begins_and_prints_what_is_not_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"question": "2 + 2?", "source": "web", **TEXTS}) + "\n")
    store = LocalStore(tmp_path / "out")

    def prepare(template: str = "chat", **source: Any) -> None:
        config = {"data": [{"path": str(file), **source}], "template": template}
        prepare_sources(store, TrainingConfig.model_validate(config))

    with pytest.raises(InputError, match=r"columns: {prompt: question}"):
        prepare()
    for _ in range(2):
        prepare(columns={"prompt": "question"})
    assert capsys.readouterr().err == "preference: columns not used: source\n"
    record = json.loads(store.read_bytes("sources/preference.json"))
    assert (record["unused_columns"], record["num_shared_beginnings"]) == (["source"], 0)
    # The set's kind reads other columns than those that hold the pairs.
    file.write_text(json.dumps({"prompt": None, "messages": ASK, **TEXTS, "chosen": 7}) + "\n")
    with pytest.raises(InputError, match=r"gives no pair.*columns not used: messages"):
        prepare(name="other")
    file.write_text(json.dumps(TEXTS) + "\n")
    with pytest.raises(InputError, match=r"has plain text: under template=chat"):
        prepare(name="text")
    prepare("plain", name="text")
    assert "text: 1 prompts are what both texts begin with" in capsys.readouterr().err


@pytest.mark.parametrize("section", [None, "part"])
def test_accuracy_reads_sets_by_the_same_rules(tmp_path: Path, section: str | None) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"question": "2 + 2?", "part": "web", "id": 1, **TEXTS}) + "\n")

    def load(**source: Any) -> Any:
        data = [{"path": str(file), **source}]
        return load_pairs(AccuracyConfig.model_validate({"data": data, "section_column": section}))

    with pytest.raises(InputError, match=r"columns: {prompt: question}"):
        load()
    loaded = load(columns={"prompt": "question"})
    assert [pair.prompt for pair in loaded.pairs] == ["2 + 2?"]
    unused = "id" if section else "part, id"
    assert loaded.columns == (f"preference: columns not used: {unused}",)
    with pytest.raises(InputError, match=r"no column 'gap'"):
        load(columns={"prompt": "question", "margin": "gap"}, max_rows=1)
