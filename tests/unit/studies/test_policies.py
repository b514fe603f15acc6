"""Prompts of the test part and their filter, and the best and worst of sampled answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from codepmp_ray.errors import InputError
from codepmp_ray.studies.policies import best_and_worst, how_filtered, num_turns
from codepmp_ray.studies.policies import test_prompts as prompts_of  # pytest would run it
from codepmp_ray.studies.scores import ScoreBook, Trained
from codepmp_ray.studies.sets import as_transcript
from codepmp_ray.studies.study import Context
from tests.unit.studies.conftest import MakeBench, write_rows

JUDGE = Trained("key", "judge", Path(), "trend")


class LengthBook:
    """Rewards are lengths, and what was asked is kept."""

    def rewards(self, model: Trained, prompts: Any, texts: Any) -> np.ndarray:
        self.asked = list(zip(prompts, texts, strict=True))
        return np.array([float(len(text)) for text in texts])


def test_the_best_and_the_worst_answer_to_each_prompt_make_a_pair() -> None:
    book = LengthBook()
    sampled = [["aa", "a", "aaa", "aa"], ["same", "same"], ["b", " ", ""], ["", "long one", "c"]]
    found = best_and_worst(cast(ScoreBook, book), JUDGE, ["p0", "p1", "p2", "p3"], sampled)
    assert found == [
        {"prompt": "p0", "chosen": "aaa", "rejected": "a"},
        {"prompt": "p3", "chosen": "long one", "rejected": "c"},
    ]
    # Blank and repeated answers, and prompts with one answer, are not scored.
    assert book.asked == [
        ("p0", "aa"), ("p0", "a"), ("p0", "aaa"), ("p3", "long one"), ("p3", "c"),
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"two different answers.*temperature"):
        best_and_worst(cast(ScoreBook, book), JUDGE, ["p"], [["x", "x", " "]])


def test_prompts_are_of_the_test_part_and_each_comes_once(
    make_bench: MakeBench, tmp_path: Path
) -> None:
    bench = make_bench()
    rows = [
        {"prompt": f"p{i // 3}", "chosen": f"yes {i}", "rejected": f"no {i}", "pair_id": str(i)}
        for i in range(90)
    ]
    write_rows(tmp_path / "sums.jsonl", rows)
    context = Context("seed004", bench, bench.config.options("seed004"))
    tested = {row["prompt"] for row in bench.set("sums").test}
    found = prompts_of(context, "sums", 5)
    assert len(found) == len(set(map(str, found))) == 5 and set(map(str, found)) <= tested
    every = prompts_of(context, "sums", 1000)
    assert set(map(str, every)) == tested and every[:5] == found


TALK = [
    {"prompt": [{"role": "user", "content": f"ask {i}"}] + [
        {"role": role, "content": f"{role} {n}"}
        for n in range(i % 3) for role in ("assistant", "user")
    ], "chosen": f"yes {i}", "rejected": f"no {i}"}
    for i in range(60)
]  # fmt: skip


def test_a_filter_of_prompts_is_counted_and_leaves_the_order(
    make_bench: MakeBench, tmp_path: Path
) -> None:
    def context(prompt_filter: dict[str, Any] | None = None) -> Context:
        found = {"prompt_filter": {"sums": prompt_filter}} if prompt_filter else {}
        bench = make_bench(studies={"seed004": found})
        write_rows(tmp_path / "sums.jsonl", TALK)
        return Context("seed004", bench, bench.config.options("seed004"))

    plain = context()
    every = prompts_of(plain, "sums", 1000)
    assert {num_turns(prompt) for prompt in every} == {1, 2, 3}
    assert how_filtered(plain, "sums", 5) == "sums: 5 prompts, unfiltered."

    first = context({"max_turns": 1})
    single = [prompt for prompt in every if num_turns(prompt) == 1]
    assert prompts_of(first, "sums", 5) == single[:5] and len(single) > 5
    assert how_filtered(first, "sums", 5) == (
        f"sums: 5 of the {len(single)} prompts with at most 1 turns, of {len(every)} in the test "
        "part: a filter of ours, the protocol's not being known."
    )

    encoder = plain.bench.pairs.encoder("trend")
    limit = len(encoder.prompt_ids("ask 7"))
    found = prompts_of(context({"max_tokens": limit}), "sums", 1000)
    assert found and all(len(encoder.prompt_ids(prompt)) <= limit for prompt in found)
    with pytest.raises(InputError, match=r"none of the \d+ test prompts of 'sums'.*max_tokens=1\."):
        prompts_of(context({"max_tokens": 1}), "sums", 5)
    with pytest.raises(ValueError, match="the set 'nowhere' is not among sets"):
        make_bench(studies={"seed004": {"prompt_filter": {"nowhere": {"max_turns": 1}}}})


def test_turns_of_a_transcript_are_counted_in_its_text() -> None:
    row = {"messages": TALK[2]["prompt"], "prompt": None, "chosen": "a", "rejected": "b"}
    text = as_transcript(row)["prompt"]
    assert text == (
        "\n\nHuman: ask 2\n\nAssistant: assistant 0\n\nHuman: user 0\n\nAssistant: assistant 1"
        "\n\nHuman: user 1\n\nAssistant:"
    )
    assert num_turns(text) == 3 and num_turns("a question") == 1
    assert as_transcript({"messages": None, "prompt": "why?"})["prompt"] == (
        "\n\nHuman: why?\n\nAssistant:"
    )
