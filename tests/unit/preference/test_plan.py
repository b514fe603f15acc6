"""Order and packing are functions of their arguments and lose no pair."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
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


def epoch(mixture: Mixture, number: int, batch_size: int = 7) -> list[int]:
    steps = -(-mixture.num_per_epoch // batch_size)
    found = [mixture.step_indices(batch_size, number * steps + step) for step in range(steps)]
    return np.concatenate(found).tolist()


@given(st.lists(st.integers(0, 40), min_size=1, max_size=4), st.integers(0, 5), st.integers(1, 9))
@settings(max_examples=50, deadline=None)
def test_with_weights_of_one_the_order_is_that_of_a_single_set(sizes, seed, batch_size) -> None:
    total = sum(sizes)
    mixture = Mixture(sizes, [1.0] * len(sizes), seed)
    for step in range(2 * -(-total // batch_size)):
        number, offset = divmod(step, -(-total // batch_size))
        order = epoch_order(total, seed, number)
        expected = order[offset * batch_size : (offset + 1) * batch_size]
        assert mixture.step_indices(batch_size, step).tolist() == expected.tolist()
    if total:
        assert sorted(epoch(mixture, 1)) == list(range(total))


@given(
    st.lists(
        st.tuples(st.integers(1, 30), st.sampled_from([0.25, 0.5, 1.0, 1.5, 2.0, 3.0])),
        min_size=1,
        max_size=3,
    ),
    st.integers(0, 3),
)
@settings(max_examples=50, deadline=None)
def test_after_any_number_of_epochs_pairs_of_a_source_were_seen_equally_often(parts, seed) -> None:
    sizes, weights = [size for size, _ in parts], [weight for _, weight in parts]
    mixture = Mixture(sizes, weights, seed)
    seen: Counter[int] = Counter()
    for number in range(4):
        seen.update(epoch(mixture, number))
        first = 0
        for size, weight in parts:
            counts = [seen[index] for index in range(first, first + size)]
            first += size
            assert max(counts) - min(counts) <= 1
            assert sum(counts) == (number + 1) * max(1, int(weight * size + 0.5))


def test_steps_hold_the_sources_in_proportion_to_their_weights() -> None:
    mixture = Mixture([1000, 1000], [3.0, 1.0], seed=1)
    of_first = np.array([(mixture.step_indices(100, step) < 1000).sum() for step in range(40)])
    assert of_first.sum() == 3000
    # Without replacement from 3:1: mean 75 of 100, standard deviation below 4.4.
    assert abs(of_first - 75).max() < 5 * 4.4
    assert len(set(of_first.tolist())) > 5  # shuffled together, not dealt out in blocks


def test_a_half_weight_takes_the_other_half_in_the_next_epoch() -> None:
    mixture = Mixture([10, 3], [0.5, 1.0], seed=0)
    halves = [{index for index in epoch(mixture, number) if index < 10} for number in (0, 1)]
    assert [len(half) for half in halves] == [5, 5] and halves[0] | halves[1] == set(range(10))


def test_another_process_finds_the_same_step_without_those_before_it() -> None:
    first = Mixture([20, 9], [1.5, 0.5], seed=4)
    walked = [first.step_indices(4, step).tolist() for step in range(25)]
    assert Mixture([20, 9], [1.5, 0.5], seed=4).step_indices(4, 17).tolist() == walked[17]
    assert Mixture([20, 9], [1.5, 0.5], seed=5).step_indices(4, 17).tolist() != walked[17]


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 8])
def test_a_step_is_the_same_set_of_pairs_for_any_number_of_ranks(num_ranks: int) -> None:
    mixture = Mixture([20, 9], [1.5, 0.5], seed=4)
    indices = mixture.step_indices(8, 2).tolist()
    plan = plan_step([5 + index for index in indices], num_ranks, 64)
    dealt = [place for rank in plan.micro_batches for batch in rank for place in batch]
    assert sorted(dealt) == list(range(len(indices)))


def test_no_weight_takes_a_source_out_and_empty_sources_give_nothing() -> None:
    assert Counter(index == 0 for index in epoch(Mixture([1, 50], [0.01, 1], 0), 3))[True] == 1
    assert sorted(epoch(Mixture([0, 3], [2.0, 1.0], 0), 0)) == [0, 1, 2]
