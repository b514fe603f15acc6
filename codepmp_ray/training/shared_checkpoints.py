"""Checkpoints at branch points, in a folder that the runs of one family share.

    checkpoints/step-00000090.<attempt>/  and its marker, as in a stage
    metrics-00000090.jsonl                what had been logged until then

Whichever run passes a branch point first leaves its state there; a run that starts later begins at
the newest one that its own stable phase covers. They stay until the branch that leaves there is
done.
"""

from __future__ import annotations

import torch.distributed as dist

from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.modeling.collectives import agree
from codepmp_ray.storage import Store, open_store
from codepmp_ray.training.checkpoint_folders import remove_step, whole_steps
from codepmp_ray.training.metrics import Row, read_metrics, write_metrics
from codepmp_ray.training.task import Trunk


class SharedCheckpoints:
    """As one run sees them; without a trunk there are none.

    Attributes:
        store: None without a trunk.
        leaves_at: steps of this run before its decay; up to there it is the trunk.
    """

    def __init__(self, trunk: Trunk | None, config: TrainingConfig, total_steps: int) -> None:
        self.store: Store | None = None
        self.leaves_at = 0
        self._due: set[int] = set()
        self._total_steps = total_steps
        if trunk is not None:
            self.store = open_store(trunk.folder)
            self.leaves_at = total_steps - config.num_decay_steps(total_steps)
            steps = trunk.leaving_steps(config.trunk_steps or total_steps)
            there = agree(whole_steps(self.store))
            self._due = {step for step in steps if step <= self.leaves_at} - set(there)

    def is_due(self, step: int) -> bool:
        """Whether a run leaves the trunk after `step` steps and has no checkpoint there yet."""
        return step in self._due

    def put_metrics(self, step: int, own: Store) -> None:
        """Leave this run's rows up to `step` for the branches; before the checkpoint's marker."""
        if dist.get_rank() == 0 and self.store is not None:
            rows = [row for row in read_metrics(own) if row["step"] <= step]
            write_metrics(self.store, _metrics_name(step), rows)

    def metrics(self, step: int, own: Store) -> list[Row] | None:
        """The trunk's rows if a run begins at its checkpoint after `step`; None otherwise."""
        if self.store is None or not agree(self._begins_at(step, own)):
            return None
        rows = read_metrics(self.store, _metrics_name(step))
        return [row | {"total_steps": self._total_steps} for row in rows]

    def _begins_at(self, step: int, own: Store) -> bool:
        assert self.store is not None
        return step in whole_steps(self.store) and step not in whole_steps(own)


def remove_shared(store: Store, step: int) -> None:
    """Delete the checkpoint after `step` steps, once nothing will start from it."""
    remove_step(store, step)
    store.delete(_metrics_name(step))


def _metrics_name(step: int) -> str:
    return f"metrics-{step:08d}.jsonl"
