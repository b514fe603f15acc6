"""What grading one answer may cost: itself, and nothing more."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from codepmp_ray.config.evaluation import GraderConfig
from codepmp_ray.evaluation.graders import Reference
from codepmp_ray.evaluation.graders.pool import GradingPool
from tests.processes import PATIENCE_S, is_alive
from tests.unit.evaluation import hostile_references as hostile
from tests.unit.evaluation.sandbox_support import wait_until

pytestmark = pytest.mark.slow

CONFIG = GraderConfig(time_limit_s=0.5, memory_mb=512, num_parallel=2)
# Choices need no library that takes seconds to import, in every process anew.
RIGHT = ("choice", Reference("a", ("a", "b")), "a")
WRONG = ("choice", Reference("a", ("a", "b")), "b")


@pytest.fixture(scope="module")
def pool():
    made = GradingPool(CONFIG)
    yield made
    made.close()


def outcomes(pool, *jobs):
    return [str(verdict.outcome) for verdict in pool.grade(jobs)]


def test_verdicts_come_in_the_order_of_the_answers(pool):
    jobs = [RIGHT if index % 3 else WRONG for index in range(500)]
    assert [verdict.passed for verdict in pool.grade(jobs)] == [bool(i % 3) for i in range(500)]
    assert pool.grade([]) == []


def test_errors_and_endless_loops_cost_themselves_only(pool):
    jobs = [RIGHT] * 140
    jobs[3] = ("choice", hostile.Raises(), "a")
    jobs[130] = ("choice", hostile.Loops(), "a")
    found = pool.grade(jobs)
    assert [str(found[i].outcome) for i in (2, 3, 4, 130, 131)] == [
        "passed", "error", "passed", "timeout", "passed"
    ]  # fmt: skip
    assert "RecursionError: too deep" in found[3].detail
    assert "time_limit_s=0.5" in found[130].detail and found[130].duration_s >= 0.5
    assert not found[3].passed and not found[130].passed
    assert [verdict.outcome for verdict in found].count("passed") == 138


def test_dead_processes_are_replaced_and_the_culprits_named(pool):
    jobs = [RIGHT] * 150
    jobs[10] = ("choice", hostile.LoopsInC(), "a")
    jobs[11] = ("choice", hostile.Crashes(), "a")
    jobs[140] = ("choice", hostile.LoopsAndCatches(), "a")
    found = pool.grade(jobs)
    bad = {i: str(v.outcome) for i, v in enumerate(found) if v.outcome != "passed"}
    assert bad == {10: "killed", 11: "killed", 140: "timeout"}
    assert "the grading process died" in found[10].detail
    assert outcomes(pool, RIGHT, WRONG) == ["passed", "failed"]


def test_memory_is_bounded(pool):
    job = ("choice", hostile.Allocates(), "a")
    assert outcomes(pool, RIGHT, job, RIGHT) == ["passed", "killed", "passed"]


def test_a_process_that_died_idle_is_nobodys_fault(pool):
    assert outcomes(pool, RIGHT) == ["passed"]
    for pid in list(pool._executor._processes):
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.5)
    assert outcomes(pool, RIGHT, WRONG) == ["passed", "failed"]


def test_sleeping_is_bounded_by_the_clock():
    process = multiprocessing.get_context("spawn").Process(target=hostile.sleep_under_limits)
    process.start()
    process.join(PATIENCE_S)
    assert process.exitcode == -signal.SIGALRM


def test_answers_that_are_numbers_of_a_billion_digits_end(pool):
    texts = ["\\boxed{9^{9^{9^{9}}}}", "\\boxed{(10^{10})!}", "\\boxed{" + "{" * 5000 + "}"]
    jobs = [("latex", Reference("2"), text) for text in texts]
    assert not any(verdict.passed for verdict in pool.grade(jobs))


def test_grading_processes_end_with_the_one_that_started_them():
    script = (
        "from codepmp_ray.config.evaluation import GraderConfig\n"
        "from codepmp_ray.evaluation.graders import Reference\n"
        "from codepmp_ray.evaluation.graders.pool import GradingPool\n"
        "if __name__ == '__main__':\n"
        "    import time\n"
        "    pool = GradingPool(GraderConfig(num_parallel=1))\n"
        "    pool.grade([('choice', Reference('a', ('a', 'b')), 'a')])\n"
        "    print(*pool._executor._processes, flush=True)\n"
        "    time.sleep(60)\n"
    )
    caller = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert caller.stdout is not None
    pids = caller.stdout.readline().split()
    caller.kill()
    caller.wait()
    caller.stdout.close()
    assert pids
    assert wait_until(lambda: not any(is_alive(int(pid)) for pid in pids), 20)
