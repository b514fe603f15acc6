"""Both answers against the tests that a model wrote, in the sandbox, when a shard is committed."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from codepmp_ray.config.engines import EnginesConfig
from codepmp_ray.config.synthesis import SynthesisConfig
from codepmp_ray.errors import SandboxUnavailable
from codepmp_ray.evaluation.sandbox import Executor, Sandbox, TestJob
from codepmp_ray.reject_reasons import RejectReason
from codepmp_ray.synthesis.execution import (
    ENTRY_POINT,
    TRUSTED_TEST,
    judge_outcomes,
    judge_rates,
    programs,
    suites,
)
from codepmp_ray.synthesis.pairs import split_rows
from codepmp_ray.synthesis.rows import Row, refuse


def execute_and_split(
    rows: list[Row], config: SynthesisConfig, engines: EnginesConfig
) -> dict[str, pa.Table]:
    """`split_rows` of what execution left: pairs of which one side passes, or passes more."""
    waiting = [row for row in rows if not row.get("reject_reason")]
    # Threads only wait: each execution is a process of its own.
    with ThreadPoolExecutor(config.sandbox.num_parallel or os.cpu_count() or 1) as pool:
        judged = list(pool.map(lambda row: _execute(row, config), waiting))
    done = {row["snippet_id"]: row for row in judged}
    return split_rows([done.get(row["snippet_id"], row) for row in rows], config, engines)


def _execute(row: Row, config: SynthesisConfig) -> Row:
    try:
        sandbox = Sandbox.detect(config.sandbox)
        outcomes = [
            [[_outcome(sandbox, program) for program in programs(row, tests)] for tests in suite]
            for suite in suites(row, config)
        ]
    except SandboxUnavailable as error:
        return refuse(row, RejectReason.NOT_EXECUTED, str(error))
    if config.construction == "pass_rate":
        return judge_rates(row, outcomes, config.pass_rate)
    return judge_outcomes(row, outcomes[0][0])


def _outcome(sandbox: Executor, program: str) -> tuple[str, str]:
    run = sandbox.run(TestJob(program, ENTRY_POINT, "", TRUSTED_TEST))
    return run.outcome, run.detail
