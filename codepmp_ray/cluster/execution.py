"""Both answers against the tests that a model wrote, in the sandbox, when a shard is committed."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from codepmp_ray.config.engines import EnginesConfig
from codepmp_ray.config.synthesis import SynthesisConfig
from codepmp_ray.errors import SandboxUnavailable
from codepmp_ray.evaluation.sandbox import Sandbox, TestJob
from codepmp_ray.reject_reasons import RejectReason
from codepmp_ray.synthesis.execution import ENTRY_POINT, TRUSTED_TEST, judge_outcomes, programs
from codepmp_ray.synthesis.pairs import split_rows
from codepmp_ray.synthesis.rows import Row, refuse


def execute_and_split(
    rows: list[Row], config: SynthesisConfig, engines: EnginesConfig
) -> dict[str, pa.Table]:
    """`split_rows` of what execution left: pairs of which exactly one side passes."""
    waiting = [row for row in rows if not row.get("reject_reason")]
    # Threads only wait: each execution is a process of its own.
    with ThreadPoolExecutor(config.sandbox.num_parallel or os.cpu_count() or 1) as pool:
        judged = list(pool.map(lambda row: _execute(row, config), waiting))
    done = {row["snippet_id"]: row for row in judged}
    return split_rows([done.get(row["snippet_id"], row) for row in rows], config, engines)


def _execute(row: Row, config: SynthesisConfig) -> Row:
    try:
        sandbox = Sandbox.detect(config.sandbox)
        executions = [
            sandbox.run(TestJob(program, ENTRY_POINT, "", TRUSTED_TEST))
            for program in programs(row)
        ]
    except SandboxUnavailable as error:
        return refuse(row, RejectReason.NOT_EXECUTED, str(error))
    return judge_outcomes(row, [(run.outcome, run.detail) for run in executions])
