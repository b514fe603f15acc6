"""Rows of one prompt become items: the same whoever reads them, with each pair accounted for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from codepmp_ray.config.data import DataSourceConfig, Kind
from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.errors import InputError
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.preference.encoding import encode_pair
from codepmp_ray.preference.items import EncodedItem, join_pairs
from codepmp_ray.preference.mixing import Mixture
from codepmp_ray.preference.sources import SOURCES
from codepmp_ray.preference.token_files import TokenFiles, TokenFileWriter
from codepmp_ray.storage import LocalStore
from codepmp_ray.training.run_log import Counts
from tests.unit.training.test_training_data import ENCODER, Row, load, make_task, table


def pool(number: int, num_right: int = 2, num_wrong: int = 3) -> list[Row]:
    """All right against all wrong answers to one problem."""
    return [
        {
            "pair_id": f"{number}:{i}/{j}",
            "problem_id": f"problem {number}",
            "prompt": f"What is {number}?",
            "chosen": f"right {i}",
            "rejected": f"wrong {j}" * 3,
            "margin": 0.25 * j,
        }
        for i in range(num_right)
        for j in range(num_wrong)
    ]


def pairs_of(items: Any) -> Counter[str]:
    return Counter(
        repr((item.prompt + item.answers[one], item.prompt + item.answers[other], margin))
        for item in items
        for (one, other), margin in zip(item.pairs, item.margins, strict=True)
    )


def encoded(rows: list[Row]) -> list[EncodedItem]:
    found = [encode_pair(row, ENCODER, 256, "reject") for row in rows]
    assert all(isinstance(item, EncodedItem) for item in found)
    return found  # pyright: ignore[reportReturnType]


def stats_of(task: Any) -> dict[str, int]:
    found = ShardLedger(LocalStore(task.out_dir)).totals().stats
    return {name.rpartition("/")[2]: count for name, count in found.items()}


def test_rows_of_one_prompt_that_follow_each_other_are_one_item(tmp_path: Path) -> None:
    rows = [*pool(1), *pool(2, 1, 1), *pool(3, 3, 1)]
    task = make_task(tmp_path, rows, per_shard=100, eval_fraction=0)
    items = list(load(task).train)
    assert items == [join_pairs(encoded(some)) for some in (rows[:6], rows[6:7], rows[7:])]
    assert [(len(item.answers), len(item.pairs)) for item in items] == [(5, 6), (2, 1), (4, 3)]
    assert pairs_of(items) == pairs_of(encoded(rows))
    # Each row is accounted for as before.
    assert [row["pair_id"] for row in table(task, "used")] == [row["pair_id"] for row in rows]
    assert stats_of(task) == {"num_pairs": 10, "num_items": 3}


def _shepherd(answer: str, sign: str) -> Row:
    step = f"How much is 1 + 1? Step 1: The answer is: {answer} "
    return {"input": f"{step}ки", "label": f"{step}{sign}"}


SETS: dict[Kind, list[Row]] = {
    "reclor": [{"context": "c", "question": "q?", "answers": [*"abcd"], "label": 2}],
    "logiqa2": [{"text": "t", "question": "q?", "options": [*"abcd"], "answer": 0}],
    "math_shepherd": [_shepherd(one, "+" if one in "12" else "-") for one in "1234"],
    "gsm8k_solutions": [
        {"question": "q?", "outputs": [{"response": r, "label": r < "c"} for r in "abcd"]}
    ],
    # A best-of-four set, as rows of pairs.
    "preference": [{"prompt": "q?", "chosen": "a", "rejected": r} for r in "bcd"],
}


@pytest.mark.parametrize("kind", SETS)
def test_sets_with_several_pairs_of_a_prompt_give_one_item(tmp_path: Path, kind: Kind) -> None:
    source = DataSourceConfig(kind=kind, path="x")
    rows = list(SOURCES[kind].build(enumerate(SETS[kind]), source))
    task = make_task(tmp_path, rows, eval_fraction=0)  # pyright: ignore[reportArgumentType]
    (item,) = load(task).train
    assert len(item.answers) == 4
    assert len(item.pairs) == len(rows) == (4 if len(item.best) == 2 else 3)


def test_what_is_not_one_prompt_of_one_origin_stays_apart(tmp_path: Path) -> None:
    first, second = pool(1, 1, 2)
    cases = {
        "the same": (second, 1),
        "another problem": ({**second, "problem_id": "other"}, 2),
        "another prompt of the problem": ({**second, "prompt": "And else?"}, 2),
        "messages": ({**second, "messages": [{"role": "user", "content": first["prompt"]}]}, 2),
        "no origin": ({**second, "problem_id": None}, 2),
    }
    for number, (name, (row, expected)) in enumerate(cases.items()):
        task = make_task(tmp_path / str(number), [first, row], eval_fraction=0)
        assert len(load(task).train) == expected, name
    apart = [{**row, "problem_id": None} for row in (first, second)]
    assert len(load(make_task(tmp_path / "apart", apart, eval_fraction=0)).train) == 2


def test_prompts_whose_rows_contradict_each_other_are_counted(tmp_path: Path) -> None:
    """Each answer is preferred to the other: no text of theirs is a target, and of sft nothing."""
    first = pool(1, 1, 1)[0]
    turned = {**first, "chosen": first["rejected"], "rejected": first["chosen"], "pair_id": "t"}
    rows = [first, turned, *pool(2, 1, 1)]
    for objective, num_items in (("pmp", 2), ("sft", 1)):
        task = make_task(tmp_path / objective, rows, eval_fraction=0, objective=objective)
        assert len(load(task).train) == num_items
        counts = {"num_pairs": 3, "num_items": 2, "num_prompts_without_best": 1}
        assert stats_of(task) == counts


@pytest.mark.parametrize("per_shard", [4, 7, 100])
def test_borders_of_files_and_rejected_rows_lose_no_pair(tmp_path: Path, per_shard: int) -> None:
    rows = [row for number in range(60) for row in pool(number)]
    rows[3] = {**rows[3], "chosen": "x" * 400}
    task = make_task(tmp_path, rows, per_shard=per_shard)
    data = load(task)
    kept = encoded([*rows[:3], *rows[4:]])
    assert pairs_of([*data.train, *data.held_out]) == pairs_of(kept)
    assert [row["reason"] for row in table(task, "rejected")] == ["over_max_length"]
    assert len(data.held_out) > 0
    on_both = pairs_of(data.train).keys() & pairs_of(data.held_out).keys()
    assert not on_both
    train, held_out = (
        {tuple(item.prompt) for item in view} for view in (data.train, data.held_out)
    )
    assert not train & held_out


def test_an_item_above_the_limit_is_split_and_counted(tmp_path: Path) -> None:
    rows = [*pool(1, 6, 6), *pool(2, 1, 1)]
    limits = {"max_length": 64, "eval_fraction": 0, "max_tokens_per_micro_batch": 512}
    task = make_task(tmp_path / "small", rows, per_shard=100, **limits)
    items = list(load(task).train)
    assert len(items) > 2 and max(item.num_tokens for item in items) <= 128
    assert pairs_of(items) == pairs_of(encoded(rows))
    assert stats_of(task) == {"num_pairs": 37, "num_items": len(items), "num_prompts_split": 1}
    whole = make_task(tmp_path / "large", rows, per_shard=100, max_tokens_per_item=512, **limits)
    assert [len(item.pairs) for item in load(whole).train] == [36, 1]
    with pytest.raises(InputError, match=r"listwise compares .*; \d+ such lists .*item=128"):
        load(make_task(tmp_path / "small", rows, 100, ranking_loss="listwise", **limits))
    enough = limits | {"max_tokens_per_item": 512, "ranking_loss": "listwise"}
    assert len(load(make_task(tmp_path / "large", rows, 100, **enough)).train) == 2


def test_token_files_give_back_what_was_written_and_know_its_lengths(tmp_path: Path) -> None:
    cycle = [("a", "b"), ("b", "a")]
    rows = [{"prompt": "p", "chosen": one, "rejected": other} for one, other in cycle]
    items = [join_pairs(encoded(pool(1))), join_pairs(encoded(rows)), *encoded(pool(2, 1, 1))]
    store = LocalStore(tmp_path)
    for name, some in (("a", items[:2]), ("b", items[2:]), ("c", [])):
        writer = TokenFileWriter()
        for item in some:
            writer.add(item, item is items[1])
        writer.write(store, name, "digest", {})
    files = TokenFiles(store, ["a", "b", "c"])
    assert [files.item(number) for number in range(len(files))] == items
    assert files.num_items_of_file == [2, 1, 0]
    assert files.held_out().tolist() == [False, True, False]
    assert files.pair_counts().tolist() == [6, 2, 1]
    for sides in ("best", "all"):
        expected = [item.packed_length(sides) for item in items]
        assert files.packed_lengths(sides).tolist() == expected
    alone = files.packed_lengths("best_alone").tolist()
    assert alone == [items[0].packed_length("best_alone"), 0, items[2].packed_length("best_alone")]
    assert items[1].best == []  # each is preferred to the other: nothing to learn by heart


def test_sft_leaves_out_items_without_a_best_answer(tmp_path: Path) -> None:
    rows = pool(1, 1, 2)
    back = {**rows[0], "chosen": rows[0]["rejected"], "rejected": rows[0]["chosen"]}
    task = make_task(tmp_path / "sft", [*rows, back, *pool(2)], 100, eval_fraction=0,
                     objective="sft")  # fmt: skip
    (item,) = load(task).train
    assert item.prompt == join_pairs(encoded(pool(2))).prompt


def test_a_step_takes_as_many_items_as_hold_the_batchs_pairs_on_average(tmp_path: Path) -> None:
    rows = [row for number in range(20) for row in pool(number)]
    data = load(make_task(tmp_path, rows, per_shard=60, eval_fraction=0, batch_size=24))
    assert data.mixture.num_steps(24, 1, None) == len(rows) / 24
    assert [len(data.mixture.step_indices(24, step)) for step in range(5)] == [4] * 5
    assert data.mixture.num_steps(1, 1, None) == 20  # no step without an item
    config = TrainingConfig(batch_size=24)
    counts = Counts(data, config, "best")
    lengths = data.train.packed_lengths("best")
    for step in (0, 3, 5, 7):
        seen = [i for s in range(step) for i in data.mixture.step_indices(24, s)]
        assert counts.row(step) == {
            "epoch": round(step / 5, 4),
            "num_tokens": int(lengths[seen].sum()),
            "num_pairs_seen": 6 * len(seen),
        }
    # Sources of other sizes: weights count, 10 x 1 x 2 pairs and 10 x 3 x 1.
    assert Mixture([10, 10], [2.0, 1.0], 0, [10, 30]).num_steps(10, 1, None) == 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_tokens_per_item": 500}, "may not hold a pair at max_length=256.*at least 512"),
        ({"ranking_loss": "listwise", "objective": "dpo"}, "which objective=dpo does not train"),
        ({"pair_weight": "two"}, "pair_weight"),
    ],
)
def test_settings_of_items_that_cannot_be_are_refused(settings: Row, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingConfig.model_validate({"max_length": 256, **settings})
