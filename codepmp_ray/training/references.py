"""DPO's reference: what the initial weights make of every answer, computed once and stored.

The reference model never changes, so its log-likelihoods are a table and not a second model in
memory. Stored, a resumed run compares with the same numbers; rows that changed meanwhile (a purge)
have a table of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa
import torch.distributed as dist

from codepmp_ray.config.base import fingerprint
from codepmp_ray.storage import Store
from codepmp_ray.training.data import ItemView, TrainingData
from codepmp_ray.training.step import StepRunner
from codepmp_ray.training.task import InputShard

_ITEMS_AT_ONCE = 256


def with_references(
    data: TrainingData, runner: StepRunner, store: Store, inputs: Sequence[InputShard]
) -> TrainingData:
    """`data`, made of `inputs`, whose items carry their references.

    Collective; to be called at initial weights.
    """
    name = references_file(inputs)
    box = [store.exists(name)]
    dist.broadcast_object_list(box, src=0)
    if not box[0]:
        _compute([data.train, data.held_out, *data.evaluations.values()], runner, store, name)
        dist.barrier()
    found = store.read_table(name, ["log_likelihoods"]).column(0)
    views = {"": data.train, "eval_": data.held_out, **data.evaluations}
    start = 0
    for place, view in views.items():
        views[place] = view.with_references(found.slice(start, len(view)))
        start += len(view)
    train, held_out = views.pop(""), views.pop("eval_")
    return replace(data, train=train, held_out=held_out, evaluations=views)


def references_file(inputs: Sequence[InputShard]) -> str:
    """Where the references of these rows lie in the stage's folder."""
    # "answers": tables of before had the two sides of pairs.
    return f"references-{fingerprint('answers', *(shard.digest for shard in inputs))}.parquet"


def _compute(views: list[ItemView], runner: StepRunner, store: Store, name: str) -> None:
    ids: list[str] = []
    found: list[list[float]] = []
    for view in views:
        for start in range(0, len(view), _ITEMS_AT_ONCE):
            items = view[start : start + _ITEMS_AT_ONCE]
            found += runner.log_likelihoods(items)
            ids += [item.item_id for item in items]
    if dist.get_rank() == 0:
        store.put_table(name, pa.table({"item_id": ids, "log_likelihoods": found}))
