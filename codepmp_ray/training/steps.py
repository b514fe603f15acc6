"""The steps of one training on one rank: resume, step, log, evaluate, checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from codepmp_ray.errors import StorageError
from codepmp_ray.modeling.collectives import agree
from codepmp_ray.storage import open_store
from codepmp_ray.training.checkpoint import Checkpointer
from codepmp_ray.training.data import TrainingData
from codepmp_ray.training.evaluation import evaluate, is_due
from codepmp_ray.training.failed_runs import (
    MOST_SKIPPED_IN_A_ROW,
    first_evaluation_failed,
    nothing_learned,
    too_many_skipped,
)
from codepmp_ray.training.metrics import evaluation_losses
from codepmp_ray.training.run_log import Counts, RunLog, step_row
from codepmp_ray.training.schedule import learning_rate
from codepmp_ray.training.shared_checkpoints import SharedCheckpoints
from codepmp_ray.training.step import StepRunner
from codepmp_ray.training.stopping import PreemptionNotice, StopRequests
from codepmp_ray.training.task import TrainingTask
from codepmp_ray.training.throughput import Utilisation


class Run:
    """The steps of one training, from where its checkpoints end."""

    def __init__(
        self,
        task: TrainingTask,
        data: TrainingData,
        runner: StepRunner,
        optimizer: torch.optim.Optimizer,
        report: Callable[[dict[str, Any]], None],
        preemption: PreemptionNotice,
    ) -> None:
        self.config, self.data, self.runner = task.config, data, runner
        self.optimizer, self.preemption = optimizer, preemption
        self.store = open_store(task.out_dir)
        self.stop_requests = StopRequests(self.store)
        config = task.config
        self.total = data.mixture.num_steps(
            config.batch_size, config.num_train_epochs, config.max_steps
        )
        self.end = self.total  # early stopping brings it forward
        self.shared = SharedCheckpoints(task.trunk, task.config, self.total)
        self.checkpointer = Checkpointer(
            self.store,
            task.config.save_total_limit,
            command=task.command,
            asynchronous=task.config.async_checkpoints,
            timeout_s=task.config.process_group_timeout_s,
            protected=lambda step: self.log.best_step(step),
        )
        self.first_step = self.checkpointer.restore(
            runner.model,
            optimizer,
            other=self.shared.store,
            other_up_to=self.shared.leaves_at,
        )
        inherited = self.shared.metrics(self.first_step, self.store)
        self.log = RunLog(self.store, task, self.first_step, report, inherited)
        self.counts = Counts(data, task.config, runner.objective.sides)
        self.utilisation = Utilisation(runner.model, runner.device, task.config.bf16)

    def steps(self) -> bool:
        """Run the steps that are missing; False if it was asked to stop before the last."""
        config, checkpointer = self.config, self.checkpointer
        done = self.first_step
        self._evaluate(done)
        while done < self.end:
            row = self._step(done)
            done += 1
            is_logged = done % config.logging_steps == 0 or done == self.total or row["skipped"]
            if is_logged:
                self.log.record(row)
            if row["skipped"]:
                self._require_progress(row)
            is_best = self._evaluate(done)
            if done == self.end and not is_logged:
                self.log.record(row)
            stop, ask = agree(
                (self.stop_requests.is_there(), self.preemption.is_due())
                if dist.get_rank() == 0
                else (False, False)
            )
            notice = ask and self.preemption.is_new()
            if self.shared.is_due(done):
                self.log.flush()
                self.shared.put_metrics(done, self.store)
                checkpointer.save(self.runner.model, self.optimizer, done, self.shared.store)
            elif done % config.save_steps == 0 or done == self.end or notice or stop or is_best:
                self.log.flush()
                checkpointer.save(self.runner.model, self.optimizer, done)
            if notice or stop or done == self.end:
                checkpointer.finish()
            checkpointer.poll(self.runner.device)
            if stop and done < self.end:
                self.log.close()
                return False
        self.log.close()
        # Of fewer steps than are too many in a row; also when the last attempt ended here.
        if 0 < self.end <= self.log.num_skipped():
            raise nothing_learned(self.end, self.store.uri)
        return True

    def choose_best(self) -> None:
        """Go back to the weights of the best evaluation, if a metric was named. Collective."""
        best = agree(self.log.best_step())
        if best is None or best == self.end:
            return
        if self.checkpointer.restore(self.runner.model, self.optimizer, step=best) != best:
            raise StorageError(
                f"The checkpoint of step {best}, the best by {self.config.best_metric}, is gone.",
                "Delete the stage's folder and run the same command.",
            )

    def _step(self, step: int) -> dict[str, Any]:
        """One optimizer step (0-based); its row."""
        config, model = self.config, self.runner.model
        start_s = time.perf_counter()
        rate = learning_rate(config, step, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        indices = self.data.mixture.step_indices(config.batch_size, step)
        items = [self.data.train[index] for index in indices]
        result = self.runner.train(items)
        # Without a limit nothing is scaled, and the norm is measured all the same.
        limit = config.max_grad_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
        norm_value = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        self.checkpointer.wait_until_copied()
        if math.isfinite(norm_value):
            self.optimizer.step()
        self.optimizer.zero_grad()
        elapsed_s = time.perf_counter() - start_s
        measured = {
            "grad_norm": norm_value,
            "skipped": not math.isfinite(norm_value),
            "learning_rate": rate,
            "step_s": elapsed_s,
            "tokens_per_second": result.num_tokens / elapsed_s,
            "num_workers": dist.get_world_size(),
            "mfu": self.utilisation.mfu(items, elapsed_s, dist.get_world_size()),
        }
        return step_row(result, step + 1, self.total, self.counts.row(step + 1), measured)

    def _require_progress(self, row: dict[str, Any]) -> None:
        """Raise TrainingError when this skipped step is one too many in a row. Collective."""
        if self.log.num_skipped_in_a_row(row["step"]) >= MOST_SKIPPED_IN_A_ROW:
            self._end_log()
            raise too_many_skipped(row, self.store.uri)

    def _end_log(self) -> None:
        """Close the log on every rank before one fails: then Ray ends them all."""
        self.log.close()
        dist.barrier()

    def _evaluate(self, step: int) -> bool:
        """Evaluate after `step` steps if that is due and not done; whether it was the best yet.

        What was measured may be the end of the training.
        """
        views = {"eval_": self.data.held_out}
        views |= {f"eval/{name}/": view for name, view in self.data.evaluations.items()}
        views = {prefix: view for prefix, view in views.items() if view}
        if not views or not is_due(self.config, step, self.total):
            return False
        if not self.log.has_evaluation(step):
            row = {"step": step, "total_steps": self.total, **self.counts.row(step)}
            row["num_skipped_steps"] = self.log.num_skipped()
            for prefix, view in views.items():
                row |= evaluate(self.runner, view, prefix)
            self.log.record(row)
            if step == 0 and not all(map(math.isfinite, evaluation_losses(row).values())):
                self._end_log()
                raise first_evaluation_failed(row, self.store.uri)
        is_best, is_end = agree((self.log.best_step() == step, self.log.stops_early()))
        if is_end:
            self.end = step
        return is_best
