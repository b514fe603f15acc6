"""Verdicts of the sandbox, and answers that try to reach them. Under every mechanism."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from codepmp_ray.errors import ConfigError
from codepmp_ray.evaluation.code_extraction import build_program
from codepmp_ray.evaluation.problems import load_problems
from codepmp_ray.evaluation.sandbox import Sandbox, TestJob
from tests.sandbox_machine import MECHANISMS
from tests.unit.evaluation.sandbox_support import (
    CHECK,
    CONFIG,
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
    if not sandbox.mechanism.has_proc:
        assert value_in(sandbox, "return os.path.exists('/proc')") is False
        return
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
    problems = list(load_problems("humaneval").values())
    problems = problems if sandbox.mechanism.name == MECHANISMS[0] else problems[:20]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        results = list(pool.map(run, problems))
    assert {result.outcome for result in results} == {"passed"}


IN_A_FILE = [
    ("from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n"
     "def f(x): return P(x).x + 2", "passed"),
    ("from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass P:\n"
     "    x: Later\nclass Later: pass\ndef f(x): return P(x).x + 2", "passed"),
    ("def f(x: Nope) -> List[int]: return x + 2", "failed"),
    ("def f(x: int): return x + 2 if f.__annotations__['x'] is int else 0", "passed"),
    ("import sys\ndef g(x): return x + 2\ndef f(x): return sys.modules[__name__].g(x)", "passed"),
    ("import pickle\nclass A:\n    def __init__(s, v): s.v = v\n"
     "def f(x): return pickle.loads(pickle.dumps(A(x + 2))).v", "passed"),
    ("from typing import NamedTuple\nclass A(NamedTuple):\n    x: int\ndef f(x): return A(x + 2).x",
     "passed"),
    ("import enum\nclass C(enum.Enum):\n    A = 2\ndef f(x): return x + C.A.value", "passed"),
    ("if __name__ == '__main__': raise SystemExit\ndef f(x): return x + 2", "passed"),
]  # fmt: skip


@pytest.mark.parametrize(("program", "outcome"), IN_A_FILE)
def test_code_runs_as_in_a_file_of_its_own(sandbox, program, outcome):
    assert run_in(sandbox, program).outcome == outcome


def test_a_missing_package_is_an_outcome_of_its_own(sandbox):
    for program, test in (
        ("import numpy as np\ndef f(x): return x + 2", CHECK),
        ("def f(x):\n    from numpy.linalg import norm\n    return x + 2", CHECK),
        ("def f(x): return x + 2", "import numpy\n" + CHECK),
    ):
        found = run_in(sandbox, program, test)
        assert (found.outcome, found.detail) == ("missing_package", "numpy")
    assert run_in(sandbox, "import os.nothing\ndef f(x): return x + 2").outcome == "failed"


def test_named_packages_can_be_imported_and_not_changed(sandbox):
    changes = {"packages": ["numpy"], "time_limit_s": 60, "memory_mb": 1024}
    with_numpy = Sandbox(CONFIG.model_copy(update=changes), sandbox.mechanism)
    program = (
        "import numpy as np\ndef f(x):\n    try: open(np.__file__, 'a')\n    except OSError:\n"
        "        return [np.arange(2, 4).tolist(), np.int64(x), np.float64(0.5), np.bool_(1)]"
    )
    test = (
        "import numpy as np\ndef check(c):\n    array, *rest = c(np.int64(20))\n"
        "    assert np.allclose(array, [2, 3]) and rest == [20, 0.5, True]\n"
    )
    assert run_in(with_numpy, program, test).outcome == "passed"
    unknown = CONFIG.model_copy(update={"packages": ["no-such-package"]})
    with pytest.raises(ConfigError, match="'no-such-package', which is not installed"):
        Sandbox(unknown, sandbox.mechanism)


SHARING = [
    ("class P:\n    def __init__(s, a): s.a = a\ndef f(ps): return sum(p.a for p in ps)",
     "def check(c):\n    assert c([P(2), P(3)]) == 5\n"),
    ("def f(xs, kind): return [x for x in xs if not isinstance(x, kind)]",
     "def check(c):\n    assert c([4, 7.5], int) == [7.5]\n"),
    ("def f(g, x): return g(x)", "def check(c):\n    assert c(lambda v: v + 1, 2) == 3\n"),
    ("def f(xs): xs.reverse()",
     "def check(c):\n    xs = [1, 2]\n    c(xs)\n    assert xs == [2, 1]\n"),
]  # fmt: skip


@pytest.mark.parametrize(("program", "test"), SHARING)
def test_tests_that_use_objects_pass_only_where_they_share_the_process(sandbox, program, test):
    assert run_in(sandbox, program, test).outcome == "failed"
    assert sandbox.run(TestJob(program, "f", "", test, shared=True)).outcome == "passed"
    wrong = program.replace("return", "return 7 #").replace("xs.reverse()", "pass")
    assert sandbox.run(TestJob(wrong, "f", "", test, shared=True)).outcome == "failed"


def test_the_walls_stand_around_a_shared_process(sandbox, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("here")
    program = (
        "import os, socket\ndef f():\n    seen = []\n"
        f"    for path in ('/etc/shadow', {str(secret)!r}):\n"
        "        try: open(path); seen.append(path)\n        except OSError: pass\n"
        "    try: socket.create_connection(('127.0.0.1', 53), 1); seen.append('network')\n"
        "    except OSError: pass\n    return seen"
    )
    test = "def check(c):\n    assert c() == []\n"
    assert sandbox.run(TestJob(program, "f", "", test, shared=True)).outcome == "passed"
    ended = sandbox.run(TestJob("import os\ndef f(): os._exit(0)", "f", "", test, shared=True))
    assert ended.outcome == "failed"


def test_a_test_that_calls_nothing_passes_nobody(sandbox):
    found = run_in(sandbox, "def f(x): return x", "def check(c):\n    pass\n")
    assert (found.outcome, found.detail) == ("failed", "the test never called f")
