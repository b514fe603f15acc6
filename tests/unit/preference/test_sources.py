"""Rows of each kind of set become pairs, or leave with a reason."""

from __future__ import annotations

from typing import Any

import pytest

from codepmp_ray.config.data import DataSourceConfig, Kind
from codepmp_ray.preference.sources import SOURCES
from codepmp_ray.preference.sources.rows import Reject, pair_up

Row = dict[str, Any]


def build(kind: Kind, *rows: Row, **settings: Any) -> tuple[list[Row], list[tuple[int, str]]]:
    """(pairs, (row number, reason) of the rejects)."""
    config = DataSourceConfig(kind=kind, path="unused", **settings)
    built = list(SOURCES[kind].build(enumerate(rows), config))
    pairs = [item for item in built if not isinstance(item, Reject)]
    return pairs, [(item.index, str(item.reason)) for item in built if isinstance(item, Reject)]


def texts(pair: Row) -> tuple[Any, str, str]:
    return pair["messages"] or pair["prompt"], pair["chosen"], pair["rejected"]


def user(text: str) -> Row:
    return {"role": "user", "content": text}


def assistant(text: str) -> Row:
    return {"role": "assistant", "content": text}


# --- TRL's preference format ---

TALK = [user("hi"), assistant("hello"), user("how?")]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "p", "chosen": "a", "rejected": "b"}, ("p", "a", "b")),
        (
            {"prompt": [user("p")], "chosen": [assistant("a")], "rejected": [assistant("b")]},
            ("p", "a", "b"),
        ),
        (
            {"prompt": TALK, "chosen": [assistant("a")], "rejected": [assistant("b")]},
            (TALK, "a", "b"),
        ),
        (  # UltraFeedback: the prompt is a string and stands in both sides too
            {
                "prompt": "p",
                "chosen": [user("p"), assistant("a")],
                "rejected": [user("p"), assistant("b")],
            },
            ("p", "a", "b"),
        ),
        (
            {"chosen": [*TALK, assistant("a")], "rejected": [*TALK, assistant("b")]},
            (TALK, "a", "b"),
        ),
        (
            {"chosen": "The sky is blue.", "rejected": "The sky is black."},
            ("The sky is", " blue.", " black."),
        ),
        (  # parts of text, and a part of a conversation that templates may show
            {
                "prompt": [
                    {"role": "user", "content": [{"type": "text", "text": t} for t in "pq"]}
                ],
                "chosen": [assistant("a")],
                "rejected": [assistant("b")],
            },
            ("p\nq", "a", "b"),
        ),
        (
            {"prompt": "p", "system": "be kind", "chosen": "a", "rejected": "b"},
            ([{"role": "system", "content": "be kind"}, user("p")], "a", "b"),
        ),
    ],
)
def test_every_form_of_trl_is_read(row: Row, expected: tuple[Any, str, str]) -> None:
    pairs, rejects = build("preference", row)
    assert rejects == []
    assert [texts(pair) for pair in pairs] == [expected]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": 7, "chosen": "a", "rejected": "b"}, "not_text"),
        ({"prompt": "p", "chosen": {"a": 1}, "rejected": "b"}, "not_text"),
        ({"prompt": "p", "chosen": "a", "rejected": "half \ud83d"}, "not_text"),
        ({"prompt": "p", "chosen": [assistant("a")], "rejected": "b"}, "bad_conversation"),
        ({"prompt": "p", "chosen": [{"text": "a"}], "rejected": []}, "bad_conversation"),
        ({"prompt": TALK[:2], "chosen": "a", "rejected": "b"}, "bad_conversation"),
        (
            {"chosen": [user("p"), assistant("a")], "rejected": [user("q"), assistant("b")]},
            "bad_conversation",
        ),
        ({"chosen": [assistant("a")], "rejected": [assistant("b")]}, "bad_conversation"),
        (
            {"prompt": [user("p")], "chosen": [user("x")], "rejected": [assistant("b")]},
            "bad_conversation",
        ),
        (
            {
                "chosen": [user("p"), assistant("a"), assistant("c")],
                "rejected": [user("p"), assistant("b")],
            },
            "bad_conversation",
        ),
        ({"chosen": "one", "rejected": "other"}, "bad_conversation"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "margin": "big"}, "bad_margin"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "margin": True}, "bad_margin"),
    ],
)
def test_what_is_no_pair_says_why(row: Row, reason: str) -> None:
    good = {"prompt": "p", "chosen": "a", "rejected": "b"}
    pairs, rejects = build("preference", good, row)
    assert len(pairs) == 1 and rejects == [(1, reason)]


@pytest.mark.parametrize("named", [True, False])
def test_sides_that_part_before_their_last_turn_keep_what_leads_to_it(named: bool) -> None:
    """Arena's kind (the user goes on otherwise) and agents' (several messages answer)."""
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "add"}}]}
    tool = {"role": "tool", "content": "2", "tool_call_id": None}
    long, short = [call, tool, assistant("It is 2.")], [assistant("No idea.")]
    prompt = {"prompt": [user("1 + 1?")]} if named else {}
    head = [] if named else [user("1 + 1?")]
    (pair,), rejects = build(
        "preference", {**prompt, "chosen": [*head, *long], "rejected": [*head, *short]}
    )
    assert rejects == []
    assert pair["messages"] == [user("1 + 1?")] and pair["prompt"] is None
    assert (pair["chosen"], pair["rejected"]) == ("It is 2.", "No idea.")
    kept = [{**call, "content": ""}, {"role": "tool", "content": "2"}]
    assert (pair["chosen_context"], pair["rejected_context"]) == (kept, None)
    if not named:
        sides = [[*TALK[:2], user(word), assistant(word)] for word in ("a", "b")]
        (parted,), _ = build("preference", {"chosen": sides[0], "rejected": sides[1]})
        assert parted["messages"] == TALK[:2]
        assert (parted["chosen_context"], parted["chosen"]) == ([user("a")], "a")
        assert parted["pair_id"] != pair["pair_id"]


def test_scores_become_margins_only_when_asked_and_never_over_a_margin() -> None:
    scored = {"prompt": "p", "chosen": "a", "rejected": "b", "score_chosen": 8, "score_rejected": 5}
    both = {**scored, "margin": 0.5}
    assert [pair["margin"] for pair in build("preference", scored, both)[0]] == [None, 0.5]
    asked = build("preference", scored, both, scores_as_margin=True)[0]
    assert [pair["margin"] for pair in asked] == [3.0, 0.5]


def test_the_origin_is_the_prompt_unless_the_row_names_one() -> None:
    one, other, named = build(
        "preference",
        {"prompt": "p", "chosen": "a", "rejected": "b"},
        {"prompt": "p", "chosen": "c", "rejected": "d"},
        {"prompt": "p", "chosen": "a", "rejected": "b", "source_id": "file", "pair_id": "x"},
    )[0]
    assert one["problem_id"] == other["problem_id"] and one["pair_id"] != other["pair_id"]
    assert (named["problem_id"], named["source_id"], named["pair_id"]) == (None, "file", "x")


def test_the_prompt_format_surrounds_single_prompts_only() -> None:
    row = {"prompt": "a {b}", "chosen": "a", "rejected": "b"}
    talk = {"prompt": TALK, "chosen": [assistant("a")], "rejected": [assistant("b")]}
    pairs, rejects = build("preference", row, talk, prompt_format="Q: {prompt} A:")
    assert [pair["prompt"] for pair in pairs] == ["Q: a {b} A:"]
    assert rejects == [(1, "bad_conversation")]


# --- HH-RLHF ---


def test_transcripts_are_split_at_the_last_assistant_turn() -> None:
    head = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: how?\n\nAssistant:"
    pairs, rejects = build(
        "hh_rlhf",
        {"chosen": f"{head} good", "rejected": f"{head} bad"},
        {"chosen": "\n\nHuman: x\n\nAssistant: a", "rejected": "\n\nHuman: x\n\nAssistant: b"},
        {"chosen": [user("p"), assistant("a")], "rejected": [user("p"), assistant("b")]},
    )
    assert rejects == []
    assert [texts(pair) for pair in pairs] == [
        (TALK, "good", "bad"),
        ("x", "a", "b"),
        ("p", "a", "b"),
    ]


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [
        ("\n\nHuman: x\n\nAssistant: a", "\n\nHuman: y\n\nAssistant: a"),
        ("\n\nHuman: x", "\n\nHuman: x"),
        ("\n\nHuman: x\n\nAssistant: a\n\nHuman: y", "\n\nHuman: x\n\nAssistant: b"),
        ("\n\nAssistant: a", "\n\nAssistant: b"),
        (
            "\n\nHuman: x\n\nAssistant: a\n\nAssistant: b",
            "\n\nHuman: x\n\nAssistant: a\n\nAssistant: c",
        ),
    ],
)
def test_other_transcripts_are_rejected(chosen: str, rejected: str) -> None:
    pairs, rejects = build("hh_rlhf", {"chosen": chosen, "rejected": rejected})
    assert (pairs, rejects) == ([], [(0, "bad_conversation")])


# --- ReClor and LogiQA 2.0 ---

RECLOR = {
    "context": "All trams are late.",
    "question": "Which follows?",
    "answers": ["This one is early.", "This one is late.", "There are no trams."],
    "label": 1,
    "id_string": "train_0",
}
LOGIQA2 = {
    "id": 3,
    "text": RECLOR["context"],
    "question": RECLOR["question"],
    "options": RECLOR["answers"],
    "answer": 1,
    "type": {"Categorical Reasoning": True},
}


@pytest.mark.parametrize(("kind", "row"), [("reclor", RECLOR), ("logiqa2", LOGIQA2)])
def test_the_right_option_meets_every_wrong_one(kind: Kind, row: Row) -> None:
    pairs, rejects = build(kind, row)
    prompt = "Passage: All trams are late.\nQuestion: Which follows?"
    assert rejects == []
    assert [texts(pair) for pair in pairs] == [
        (prompt, "This one is late.", "This one is early."),
        (prompt, "This one is late.", "There are no trams."),
    ]
    assert len({pair["problem_id"] for pair in pairs}) == 1
    assert len(build(kind, row, max_pairs_per_problem=1)[0]) == 1
    shown = build(kind, row, show_options=True)[0][0]["prompt"]
    assert shown.startswith(prompt) and shown.endswith("\nC. There are no trams.")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"label": 3}, "bad_label"),
        ({"label": -1}, "bad_label"),
        ({"label": None}, "bad_label"),
        ({"label": True}, "bad_label"),
        ({"answers": "abc"}, "not_text"),
        ({"answers": ["a", 2, "c"]}, "not_text"),
        ({"question": None}, "prompt_empty"),
        ({"answers": ["same", "same"]}, "no_contrast"),
    ],
)
def test_damaged_questions_are_rejected(change: Row, reason: str) -> None:
    assert build("reclor", {**RECLOR, **change}) == ([], [(0, reason)])


# --- labelled solutions ---


def test_right_solutions_meet_wrong_ones_of_the_same_question() -> None:
    first = {
        "question": "1 + 1?",
        "outputs": [
            {"response": "two", "label": True},
            {"response": "three", "label": False},
            {"response": "four", "label": 0},
            {"response": "two", "label": True},
        ],
    }
    second = {"question": "2 + 2?", "candidates": [{"text": "4", "correct": True}]}
    pairs, rejects = build("gsm8k_solutions", first, second)
    assert [texts(pair) for pair in pairs] == [
        ("1 + 1?", "two", "three"),
        ("1 + 1?", "two", "four"),
    ]
    assert len({pair["problem_id"] for pair in pairs}) == 1
    assert rejects == [(1, "no_contrast")]
    assert len(build("gsm8k_solutions", first, max_pairs_per_problem=1)[0]) == 1


def _solved(*answers: tuple[str, bool, str], question: str = "1 + 1?") -> Row:
    found = [{"text": text, "correct": right, "model": model} for text, right, model in answers]
    return {"question": question, "candidates": found}


def test_pairs_of_several_models_are_balanced_by_who_wrote_them_and_in_which_form() -> None:
    rows = [
        _solved(("a. The answer is 2", True, "good"), ("b. The answer is 3", False, "bad"),
                ("c. The answer is 2", True, "bad"), ("d. The answer is 4", False, "good"),
                ('{"answer": 7}', False, "bad")),
        _solved(("e. The answer is 1", True, "good"), ("f. The answer is 0", False, "bad"),
                question="2 - 1?"),
    ]  # fmt: skip
    pairs, rejects = build("gsm8k_solutions", *rows)
    assert sorted((pair["models"], pair["chosen"][0], pair["rejected"][0]) for pair in pairs) == [
        (["bad", "bad"], "c", "b"), (["bad", "good"], "c", "d"), (["good", "bad"], "a", "b"),
        (["good", "good"], "a", "d"),
    ]  # fmt: skip
    (rates,) = [pair["model_rates"] for pair in pairs if pair["models"] == ["good", "bad"]]
    assert rates == [2 / 3, 1 / 4]
    assert rejects == [(1, "no_contrast")]  # right only where the better model is
    every, _ = build("gsm8k_solutions", *rows, balance=False)
    assert len(every) == 2 * 3 + 1 and ["good", "bad"] in [pair["models"] for pair in every]
    one, _ = build("gsm8k_solutions", rows[0], max_pairs_per_problem=1)
    assert len(one) == 1


def test_single_solutions_are_rejected_by_themselves() -> None:
    outputs = [
        {"response": "a", "label": True},
        {"response": "b", "label": False},
        {"response": "c", "label": "[invalid]"},
        {"response": None, "label": True},
        {"response": " ", "label": True},
        "d",
        {"response": "both", "label": True},
        {"response": "both", "label": False},
    ]
    pairs, rejects = build("gsm8k_solutions", {"question": "?", "outputs": outputs})
    assert [texts(pair) for pair in pairs] == [("?", "a", "b")]
    assert [reason for _, reason in rejects] == ["bad_label", "not_text", "empty", "not_text"]
    assert build("gsm8k_solutions", {"question": "?", "outputs": 3})[1] == [(0, "not_text")]
    assert build("gsm8k_solutions", {"question": "", "outputs": []})[1] == [(0, "prompt_empty")]


@pytest.mark.parametrize(("num_right", "num_wrong"), [(1, 4), (3, 5), (5, 3), (4, 4), (2, 2)])
def test_all_right_answers_meet_all_wrong_ones_each_as_seldom_as_the_limit_allows(
    num_right: int, num_wrong: int
) -> None:
    right, wrong = range(num_right), range(num_wrong)
    every = pair_up(right, wrong)
    assert sorted(every) == [(i, j) for i in right for j in wrong]
    for limit in range(1, len(every) + 1):
        some = pair_up(right, wrong, limit)
        assert some == every[:limit]
        for side, number in enumerate((num_right, num_wrong)):
            counts = [[pair[side] for pair in some].count(i) for i in range(number)]
            assert max(counts) - min(counts) <= 1


# --- MathShepherd ---


def shepherd(question: str, answer: str, signs: str) -> Row:
    """A solution whose last step is `answer`, with one step for each sign."""
    steps = [f"Step {i}: think. " for i in range(1, len(signs))]
    steps.append(f"Step {len(signs)}: The answer is: {answer} ")
    tagged = question + " " + "\n".join(f"{step}ки" for step in steps)
    labels = question + " " + "\n".join(map("{}{}".format, steps, signs))
    return {"input": tagged, "label": labels, "task": "GSM8K"}


def test_solutions_without_a_wrong_step_meet_failed_ones() -> None:
    rows = [
        shepherd("1 + 1?", "2", "++"),
        shepherd("1 + 1?", "3", "+-"),
        shepherd("1 + 1?", "2", "-+"),  # right after a wrong step
        shepherd("1 + 1?", "3", "--"),  # the same text again
        shepherd("2 + 2?", "4", "+"),
    ]
    pairs, rejects = build("math_shepherd", *rows)
    assert [texts(pair) for pair in pairs] == [
        (
            "1 + 1?",
            "Step 1: think.\nStep 2: The answer is: 2",
            "Step 1: think.\nStep 2: The answer is: 3",
        )
    ]
    assert sorted(rejects) == [(2, "unclear_label"), (3, "exact_duplicate"), (4, "no_contrast")]


def test_solutions_beyond_the_cap_are_accounted_for() -> None:
    rows = [shepherd("1 + 1?", str(answer), "-") for answer in range(5)]
    rows.append(shepherd("1 + 1?", "two", "+"))
    pairs, rejects = build("math_shepherd", *rows, max_pairs_per_problem=2)
    assert len(pairs) == 2
    assert rejects == [(2, "over_max_pairs"), (3, "over_max_pairs"), (4, "over_max_pairs")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"input": "no steps", "label": "no steps"}, "prompt_empty"),
        ({"input": "Q? Step 1: x", "label": "Q? Step 1: x"}, "bad_label"),
        ({"input": "Q? Step 1: x ки", "label": "Q? Step 1: x ?"}, "bad_label"),
        ({"input": "Q? Step 1: x ки", "label": "Q? Step 1: x"}, "bad_label"),
        ({"input": "Q? Step 1: x ки left", "label": "Q? Step 1: x + left"}, "bad_label"),
        ({"input": 5, "label": "x"}, "not_text"),
    ],
)
def test_solutions_without_labels_in_place_are_rejected(row: Row, reason: str) -> None:
    assert build("math_shepherd", row) == ([], [(0, reason)])


# --- CodeUltraFeedback ---


def test_instructions_are_prompts() -> None:
    row = {"instruction": "sort", "chosen": "sorted(x)", "rejected": "x", "chosen_score": 9}
    row["rejected_score"] = 4.5
    pairs, _ = build("code_ultrafeedback", row, scores_as_margin=True)
    assert [texts(pair) for pair in pairs] == [("sort", "sorted(x)", "x")]
    assert pairs[0]["margin"] == 4.5
