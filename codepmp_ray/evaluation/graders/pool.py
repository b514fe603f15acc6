"""Answers graded in a pool of processes: one that hangs or crashes costs itself only.

Answers travel in parts. When a process dies, the parts that may have been in it are graded again
one by one in a fresh pool, where the answer at fault can be named; it is "killed", the others are
graded as if nothing had been.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from typing import Any

from codepmp_ray.config.evaluation import GraderConfig
from codepmp_ray.evaluation.graders import GRADERS, LIBRARIES
from codepmp_ray.evaluation.graders.base import GraderName, Reference, Verdict
from codepmp_ray.evaluation.graders.limits import AnswerTimeout, answer_limits, prepare_process
from codepmp_ray.records import Outcome

# (grader, what is right, the text to be graded)
Job = tuple[GraderName, Reference, str]
# A part costs the caller a millisecond; a process should not wait for the last one for long.
_MAX_JOBS_PER_PART, _PARTS_OF_EACH = 512, 8
_PARTS_PER_PROCESS = 3  # in flight: the next one is there when a process is done
# Of a grading process, set when it begins.
_config = GraderConfig()
_progress: Any = None


class GradingPool:
    """A few processes that grade. They start with the first answer and stay until `close`."""

    def __init__(self, config: GraderConfig) -> None:
        self._config = config
        self._num_processes = config.num_parallel or os.cpu_count() or 1
        # fork would copy the locks of the caller's threads, Ray's among them.
        self._context = multiprocessing.get_context("spawn")
        self._progress = self._context.RawValue("l", 0)
        self._executor = self._start()

    def grade(self, jobs: Sequence[Job]) -> list[Verdict]:
        """Verdicts in the order of `jobs`, one for each whatever it does."""
        verdicts: dict[int, Verdict] = {}
        size = math.ceil(len(jobs) / (_PARTS_OF_EACH * self._num_processes))
        size = min(_MAX_JOBS_PER_PART, max(1, size))
        waiting = deque(
            list(range(start, min(start + size, len(jobs)))) for start in range(0, len(jobs), size)
        )
        while waiting:
            for part in self._run(jobs, waiting, verdicts):
                self._grade_suspects(jobs, part, verdicts)
        return [verdicts[index] for index in range(len(jobs))]

    def close(self) -> None:
        self._executor.shutdown(cancel_futures=True)

    def _start(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self._num_processes, self._context, _begin, (self._config, self._progress)
        )

    def _submit(self, jobs: Sequence[Job], part: list[int]) -> Future[list[Verdict]]:
        return self._executor.submit(_grade_part, [jobs[i] for i in part])

    def _run(
        self, jobs: Sequence[Job], waiting: deque[list[int]], verdicts: dict[int, Verdict]
    ) -> Iterator[list[int]]:
        """Take parts from `waiting` until none is left, or a process died: then the suspects."""
        running: dict[Future[list[Verdict]], list[int]] = {}
        suspects: list[list[int]] = []
        while (waiting or running) and not suspects:
            while waiting and len(running) < _PARTS_PER_PROCESS * self._num_processes:
                part = waiting.popleft()
                try:
                    running[self._submit(jobs, part)] = part
                except BrokenProcessPool:  # a process died since
                    waiting.appendleft(part)
                    break
            if not running:
                self._restart()  # it died idle: no answer is to blame
                continue
            wait(running, return_when=FIRST_COMPLETED)
            suspects = self._collect(running, verdicts)
        if suspects:
            self._restart()
        yield from suspects

    def _collect(
        self, running: dict[Future[list[Verdict]], list[int]], verdicts: dict[int, Verdict]
    ) -> list[list[int]]:
        """Move what is done from `running` to `verdicts`; after a death the parts that were not."""
        suspects = []
        for future in [future for future in running if future.done()]:
            part = running.pop(future)
            try:
                verdicts.update(zip(part, future.result(), strict=True))
            except BrokenProcessPool:
                suspects.append(part)
        if suspects:
            wait(running)  # the executor fails them all
            suspects += self._collect(running, verdicts) if running else []
        return suspects

    def _grade_suspects(
        self, jobs: Sequence[Job], part: list[int], verdicts: dict[int, Verdict]
    ) -> None:
        """Grade one part with nothing beside it, so that `_progress` tells who killed a process."""
        while part:
            self._progress.value = 0
            start_s = time.monotonic()
            try:
                verdicts.update(zip(part, self._submit(jobs, part).result(), strict=True))
                return
            except BrokenProcessPool:
                self._restart()
                culprit = part.pop(min(self._progress.value, len(part) - 1))
                detail = (
                    f"the grading process died: over time_limit_s={self._config.time_limit_s:g} "
                    f"of processor time or memory_mb={self._config.memory_mb}, or it crashed"
                )
                duration_s = time.monotonic() - start_s
                verdicts[culprit] = Verdict(False, Outcome.KILLED, detail, None, duration_s)

    def _restart(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._executor = self._start()


def shared_pool(config: GraderConfig) -> GradingPool:
    """This process's pool for `config`: shards come one after another, processes start once."""
    return _shared_pool(config.model_dump_json())


@cache
def _shared_pool(config_json: str) -> GradingPool:
    return GradingPool(GraderConfig.model_validate_json(config_json))


def grade_one(job: Job, config: GraderConfig) -> Verdict:
    """The verdict on one answer, in this process: an error is a verdict, a crash is not."""
    name, reference, completion = job
    if name in LIBRARIES:
        LIBRARIES[name]()
    start_s = time.perf_counter()
    try:
        with answer_limits(config.time_limit_s):
            verdict = GRADERS[name](reference, completion)
    except AnswerTimeout:
        detail = f"time_limit_s={config.time_limit_s:g} of processor time"
        verdict = Verdict(False, Outcome.TIMEOUT, detail)
    except MemoryError:
        verdict = Verdict(False, Outcome.KILLED, f"memory_mb={config.memory_mb}")
    except Exception as error:  # noqa: BLE001
        # Whatever a parser raises over a model's text, recursion included.
        detail = f"{type(error).__name__}: {error}"[:300]
        verdict = Verdict(False, Outcome.ERROR, detail)
    return verdict._replace(duration_s=time.perf_counter() - start_s)


def _begin(config: GraderConfig, progress: Any) -> None:
    global _config, _progress
    _config, _progress = config, progress
    prepare_process(config)


def _grade_part(jobs: list[Job]) -> list[Verdict]:
    verdicts = []
    for index, job in enumerate(jobs):
        _progress.value = index
        verdicts.append(grade_one(job, _config))
    return verdicts
