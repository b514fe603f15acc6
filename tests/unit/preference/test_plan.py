"""Order and packing are functions of their arguments and lose no pair."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codepmp_ray.errors import InputError
from codepmp_ray.preference.items import EncodedItem
from codepmp_ray.preference.mixing import Mixture
from codepmp_ray.preference.packing import pack
from codepmp_ray.preference.plan import epoch_order, num_steps, plan_step


@given(st.integers(1, 60), st.integers(1, 17), st.integers(0, 3))
def test_every_epoch_sees_every_pair_once(num_pairs: int, batch_size: int, seed: int) -> None:
    steps = num_steps(num_pairs, batch_size, 2, None)
    mixture = Mixture([num_pairs], [1.0], seed)
    seen = np.concatenate([mixture.step_indices(batch_size, s) for s in range(steps)])
    first, second = seen[:num_pairs], seen[num_pairs:]
    assert sorted(first) == sorted(second) == list(range(num_pairs))


@pytest.mark.parametrize(
    ("num_pairs", "epochs", "max_steps", "expected"),
    [
        (120, 1, None, 14),  # the last one is smaller
        (120, 3, None, 42),
        (120, 1, 5, 5),
        (120, 1, 100, 100),  # transformers: max_steps wins, and further epochs follow
        (120, 20, 100, 100),
        (0, 1, None, 0),
        (0, 1, 100, 0),
    ],
)
def test_max_steps_wins_over_epochs(
    num_pairs: int, epochs: int, max_steps: int | None, expected: int
) -> None:
    assert num_steps(num_pairs, 9, epochs, max_steps) == expected


def test_order_depends_on_seed_and_epoch_only() -> None:
    assert (epoch_order(50, 1, 2) == epoch_order(50, 1, 2)).all()
    assert (epoch_order(50, 1, 2) != epoch_order(50, 1, 3)).any()
    assert (epoch_order(50, 1, 2) != epoch_order(50, 2, 2)).any()


@given(st.lists(st.integers(1, 100), min_size=1, max_size=40), st.integers(1, 5))
def test_plan_places_every_pair_once_within_the_budget(lengths: list[int], ranks: int) -> None:
    plan = plan_step(lengths, ranks, 100)
    placed = [i for rank in plan.micro_batches for batch in rank for i in batch]
    assert sorted(placed) == list(range(len(lengths)))
    assert len({len(rank) for rank in plan.micro_batches}) == 1
    for rank in plan.micro_batches:
        assert all(sum(lengths[i] for i in batch) <= 100 for batch in rank)


def test_a_pair_over_the_budget_is_refused_with_the_numbers() -> None:
    with pytest.raises(InputError, match=r"101 tokens.*=100"):
        plan_step([5, 101], 2, 100)


@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 60)), min_size=1, max_size=40),
    st.integers(1, 5),
)
def test_padded_batches_stay_within_the_budget_or_are_one_pair(
    shapes: list[tuple[int, int]], ranks: int
) -> None:
    rows, lengths = (list(part) for part in zip(*shapes, strict=True))
    plan = plan_step(lengths, ranks, 100, rows=rows)
    placed = [i for rank in plan.micro_batches for batch in rank for i in batch]
    assert sorted(placed) == list(range(len(lengths)))
    assert len({len(rank) for rank in plan.micro_batches}) == 1
    for batch in (batch for rank in plan.micro_batches for batch in rank if batch):
        num_rows, width = sum(rows[i] for i in batch), max(lengths[i] for i in batch)
        assert len(batch) == 1 or num_rows * width <= 100


def test_pack_restarts_positions_and_points_at_last_tokens() -> None:
    batch = pack(
        [EncodedItem.of_pair("a", [1, 2], [3, 4], [5]), EncodedItem.of_pair("b", [6], [7], [8, 9])]
    )
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 5, 6, 7, 8, 9]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 2, 0, 1, 1, 2]]
    assert batch.input_ids[0, batch.answer_index].tolist() == [4, 5, 7, 9]
    assert batch.pairs.tolist() == [[0, 1], [2, 3]]
    assert batch.lm_targets.tolist() == [3, 4, 7]
    assert batch.input_ids[0, batch.lm_index].tolist() == [2, 3, 6]


def test_a_pair_with_an_empty_part_cannot_be_packed() -> None:
    with pytest.raises(ValueError, match="empty part"):
        pack([EncodedItem.of_pair("a", [1], [], [2])])
