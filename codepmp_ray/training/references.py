"""DPO's reference: what the initial weights make of every pair, computed once and stored.

The reference model never changes, so its log-likelihoods are a table and not a second model in
memory. Stored, a resumed run compares with the same numbers.
"""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import torch.distributed as dist

from codepmp_ray.preference.packing import EncodedPair
from codepmp_ray.storage import LocalStore
from codepmp_ray.training.data import TrainingData
from codepmp_ray.training.step import StepRunner

REFERENCES_FILE = "references.parquet"
_PAIRS_AT_ONCE = 256


def with_references(data: TrainingData, runner: StepRunner, store: LocalStore) -> TrainingData:
    """`data` whose pairs carry their reference. Collective; to be called at initial weights."""
    pairs = [*data.train, *data.held_out]
    box = [store.exists(REFERENCES_FILE)]
    dist.broadcast_object_list(box, src=0)
    if not box[0]:
        _compute(pairs, runner, store)
        dist.barrier()
    table = store.read_table(REFERENCES_FILE)
    columns = zip(
        table.column("chosen").to_pylist(), table.column("rejected").to_pylist(), strict=True
    )
    full = [replace(pair, reference=found) for pair, found in zip(pairs, columns, strict=True)]
    num_train = len(data.train)
    return replace(data, train=full[:num_train], held_out=full[num_train:])


def _compute(pairs: list[EncodedPair], runner: StepRunner, store: LocalStore) -> None:
    found: list[tuple[float, float]] = []
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
        found += runner.log_likelihoods(pairs[start : start + _PAIRS_AT_ONCE])
    if dist.get_rank() == 0:
        chosen, rejected = zip(*found, strict=True)
        ids = [pair.pair_id for pair in pairs]
        store.put_table(
            REFERENCES_FILE, pa.table({"pair_id": ids, "chosen": chosen, "rejected": rejected})
        )
