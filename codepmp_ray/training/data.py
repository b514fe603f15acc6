"""Rows in, encoded items out: the same on every rank, with every unusable row accounted for.

Rows are tokenised once. Each rank encodes every n-th input shard into a token file of the stage's
folder; then all ranks read all files through memory maps. A file that is damaged, half written or
made of other rows is made anew, so it does not matter when a run was killed or with how many ranks
it goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import overload

import numpy as np
import pyarrow as pa
import torch.distributed as dist

from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.errors import InputError
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.modeling.collectives import Gather, failing_together, gather_objects
from codepmp_ray.modeling.objectives import make_objective
from codepmp_ray.preference.items import EncodedItem, Sides
from codepmp_ray.preference.mixing import Mixture
from codepmp_ray.preference.token_files import TokenFiles, is_whole, read_record
from codepmp_ray.preference.tokenization import Encoder
from codepmp_ray.storage import Store, open_store
from codepmp_ray.training.task import InputShard, TrainingTask
from codepmp_ray.training.token_shards import encoding_key, make_token_file


class ItemView(Sequence[EncodedItem]):
    """Some of the encoded items, made when they are asked for. `references` as in EncodedItem."""

    def __init__(
        self, files: TokenFiles, numbers: np.ndarray, references: pa.ChunkedArray | None = None
    ) -> None:
        self._files, self._numbers, self._references = files, numbers, references

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> EncodedItem: ...
    @overload
    def __getitem__(self, index: slice) -> list[EncodedItem]: ...
    def __getitem__(self, index: int | slice) -> EncodedItem | list[EncodedItem]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        item = self._files.item(self._numbers[index])
        if self._references is None:
            return item
        return replace(item, references=self._references[int(index)].as_py())

    def packed_lengths(self, sides: Sides) -> np.ndarray:
        """int64 [number of items]: tokens that `pack` makes of each; no item is made for it."""
        return self._files.packed_lengths(sides)[self._numbers]

    def pair_counts(self) -> np.ndarray:
        """int64 [number of items]: pairs of each; no item is made for it."""
        return self._files.pair_counts()[self._numbers]

    def with_references(self, references: pa.ChunkedArray) -> ItemView:
        """The same items with log-likelihoods: a list of float64 for each item."""
        return ItemView(self._files, self._numbers, references)


@dataclass(frozen=True)
class TrainingData:
    """Encoded items of both splits, and how the sources of `train` are mixed."""

    train: ItemView
    held_out: ItemView
    mixture: Mixture
    evaluations: Mapping[str, ItemView] = field(default_factory=dict)


def load_training_data(task: TrainingTask, encoder: Encoder) -> TrainingData:
    """The items of the task; collective, and the same on every rank.

    Raises InputError on every rank when columns are missing or no pair is left to train on.
    """
    return load_items(task, encoder, dist.get_rank(), dist.get_world_size(), gather_objects)


def load_items(
    task: TrainingTask, encoder: Encoder, rank: int, num_ranks: int, gather: Gather
) -> TrainingData:
    """`load_training_data` for a rank that is told who it is."""
    store, config = open_store(task.out_dir), task.config
    folder = f"tokens/{encoding_key(encoder, config)}"
    names = [f"{folder}/{number:05d}" for number in range(len(task.inputs))]

    with failing_together(gather):
        accounted, there = ShardLedger(store).committed_ids(), store.files(folder)
        for number in range(rank, len(task.inputs), num_ranks):
            facts, is_accounted = there.get(f"{number:05d}.arrow"), number in accounted
            digest = task.inputs[number].digest
            if not (is_accounted and is_whole(store, names[number], digest, facts)):
                make_token_file(store, names[number], number, task, encoder, is_accounted)
    with failing_together(gather):
        files = TokenFiles(store, names)
    files.forget_copies()  # every rank has them open
    held_out, pair_counts = files.held_out(), files.pair_counts()
    lengths = files.packed_lengths(make_objective(config.objective).sides)
    parts = _of_sources(task.inputs, files.num_items_of_file)
    sets = {
        name: parts.pop(name)
        for name in dict.fromkeys(shard.source for shard in task.inputs if shard.is_evaluation)
    }
    is_usable, is_of_set = lengths > 0, np.zeros(len(lengths), dtype=bool)
    for part in sets.values():
        is_of_set[part] = True
    trains, tests = ~held_out & is_usable, held_out & is_usable & ~is_of_set
    if not trains.any():
        num_rejected = sum(_counted(store, names, "num_rejected"))
        raise InputError(
            f"No pair is left to train on: {int(pair_counts.sum()) + num_rejected} rows, "
            f"{num_rejected} rejected, {int(pair_counts[tests].sum())} held out, "
            f"{int(pair_counts[is_of_set].sum())} of eval_data.",
            "Make more pairs, raise max_length or lower eval_fraction.",
        )
    _require_room(int(lengths.max()), config)
    if config.ranking_loss == "listwise" and (num_cut := sum(_counted(store, names, "num_cut"))):
        raise InputError(
            f"ranking_loss=listwise compares an answer with all that it is preferred to at once; "
            f"{num_cut} such lists are longer than max_tokens_per_item={config.item_tokens}.",
            "Raise max_tokens_per_item, or set ranking_loss=pairwise, which gives the same result "
            "however the pairs of a prompt are split.",
        )
    mixture = Mixture(
        [int(trains[part].sum()) for part in parts.values()],
        [task.weight_of(source) for source in parts],
        config.seed,
        [int(pair_counts[part][trains[part]].sum()) for part in parts.values()],
    )
    evaluations = {}
    for name, part in sets.items():
        numbers = part.start + np.flatnonzero(is_usable[part])
        if not numbers.size:
            raise InputError(
                f"No pair of the evaluation set {name!r} can be evaluated.",
                "The stage's folder rejected/ has its rows with their reasons.",
            )
        evaluations[name] = ItemView(files, numbers)
    return TrainingData(
        ItemView(files, np.flatnonzero(trains)),
        ItemView(files, np.flatnonzero(tests)),
        mixture,
        evaluations,
    )


def _counted(store: Store, names: Sequence[str], count: str) -> list[int]:
    return [(read_record(store, name) or {})[count] for name in names]


def _require_room(longest: int, config: TrainingConfig) -> None:
    """Raise InputError when an item is longer than a micro-batch: before the first step, not then.

    A prompt and its answers lie in one sequence.
    """
    if longest > config.max_tokens_per_micro_batch:
        raise InputError(
            f"The longest packed item has {longest} tokens; "
            f"max_tokens_per_micro_batch={config.max_tokens_per_micro_batch}.",
            f"Set max_tokens_per_micro_batch={longest} or more (the result stays the same, and a "
            "training that has begun goes on), or lower max_tokens_per_item or max_length.",
        )


def _of_sources(inputs: Sequence[InputShard], sizes: Sequence[int]) -> dict[str, slice]:
    """Where the items of each source lie; sources lie one after the other."""
    parts: dict[str, slice] = {}
    start = 0
    for shard, size in zip(inputs, sizes, strict=True):
        before = parts.get(shard.source)
        parts[shard.source] = slice(before.start if before else start, start := start + size)
    return parts
