"""Verdicts of the sandbox, and answers that try to reach them. Under every mechanism."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from codepmp_ray.evaluation.code_extraction import build_program
from codepmp_ray.evaluation.problems import load_problems
from codepmp_ray.evaluation.sandbox import TestJob
from tests.unit.evaluation.sandbox_support import (
    patient,
    run_in,
    value_in,
)


def test_right_and_wrong_answers(sandbox):
    assert run_in(sandbox, "def f(x): return x + 2").outcome == "passed"
    wrong = run_in(sandbox, "def f(x): return x")
    assert (wrong.outcome, wrong.detail) == ("failed", "AssertionError")
    broken = run_in(sandbox, "def f(x: return")
    assert broken.outcome == "failed" and "SyntaxError" in broken.detail
    assert "NameError" in run_in(sandbox, "def f(x): return y").detail


def test_results_keep_their_types_and_errors_theirs(sandbox):
    program = (
        "import collections, decimal, fractions\n"
        "def f(n):\n"
        "    if n == 0: raise KeyError('k')\n"
        "    return [(1, 'a\\ud800'), {1: {2.5, None}}, b'x', float('inf'), 10**5000, 1j, True,\n"
        "        collections.Counter('aab'), decimal.Decimal('0.1'), fractions.Fraction(1, 3)]\n"
    )
    test = (
        "import decimal, fractions\n"
        "def check(c):\n"
        "    assert c(1) == [(1, 'a\\ud800'), {1: {2.5, None}}, b'x', float('inf'), 10**5000, 1j,\n"
        "        True, {'a': 2, 'b': 1}, decimal.Decimal('0.1'), fractions.Fraction(1, 3)]\n"
        "    try: c(0)\n"
        "    except KeyError: return\n"
        "    assert False\n"
    )
    assert run_in(sandbox, program, test).outcome == "passed"


@pytest.mark.parametrize(
    "program",
    [
        "import os; os._exit(0)",
        "import sys; sys.exit(0)",
        "def f(x):\n    import os; os._exit(0)",
        "def f(x):\n    raise SystemExit(0)",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "import atexit, os; atexit.register(os._exit, 0); raise KeyboardInterrupt",
        "class E:\n    def __eq__(self, other): return True\n    def __hash__(self): return 1\n"
        "def f(x): return E()",
        "class I(int):\n    def __eq__(self, other): return True\ndef f(x): return I(1)",
        'import os\nfor fd in range(64):\n    try: os.write(fd, b\'{"outcome": "passed"}\')\n'
        "    except OSError: pass\ndef f(x): return 0",
        'print(\'{"outcome": "passed", "detail": ""}\', flush=True)\ndef f(x): return 0',
        'open("/proc/1/fd/1", "w").write(\'{"outcome": "passed", "detail": ""}\')',
        "import os; os.kill(1, 9)\ndef f(x): return 0",
        "import gc, sys\ndef f(x):\n    return [o for o in gc.get_objects() if 'chk' in str(o)][0]",
    ],
)
def test_no_trick_passes_the_check(sandbox, program):
    assert run_in(sandbox, program).outcome in ("failed", "killed")


def test_expected_values_are_not_in_the_answer_s_reach(sandbox):
    program = (
        "import re\n"
        "def f(x):\n"
        "    found = []\n"
        "    for line in open('/proc/self/maps'):\n"
        "        span, mode, *_ = line.split()\n"
        "        if not mode.startswith('r') or '[v' in line: continue\n"
        "        low, high = (int(part, 16) for part in span.split('-'))\n"
        "        with open('/proc/self/mem', 'rb', 0) as memory:\n"
        "            memory.seek(low)\n"
        "            found += re.findall(rb'SECRET-[0-9]+', memory.read(high - low) or b'')\n"
        "    return [item.decode() for item in found]\n"
    )
    test = "def check(c):\n    # SECRET-12345\n    report(c(1))\n"
    execution = run_in(sandbox, program, test)
    assert execution.outcome == "passed" and execution.reports == [{"list": []}]
    seen = run_in(sandbox, program, test.replace("c(1)", "c('SECRET-' + '777')"))
    assert seen.reports[0] != {"list": []}, "the search finds what the worker does have"


def test_the_tester_is_closed_to_the_answer(sandbox):
    body = (
        "opened = []\n"
        "for name in ('mem', 'environ', 'maps', 'fd/0', 'fd/1'):\n"
        "    for mode in ('rb', 'ab'):\n"
        "        try: open('/proc/1/' + name, mode).close(); opened.append(name)\n"
        "        except OSError: pass\n"
        "return opened"
    )
    assert value_in(sandbox, body) == {"list": []}


@pytest.mark.slow
@pytest.mark.slow
def test_all_canonical_solutions_pass(sandbox):
    def run(problem):
        program = build_program(problem, problem.canonical_answer)
        return slow.run(TestJob(program, problem.entry_point, problem.stub, problem.test))

    slow = patient(sandbox)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        results = list(pool.map(run, load_problems("humaneval").values()))
    assert [result.outcome for result in results].count("passed") == 164
