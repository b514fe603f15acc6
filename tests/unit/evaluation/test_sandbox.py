"""Attacks on the sandbox. Each runs under every mechanism whose tool is installed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from codepmp_ray.config.evaluation import SandboxConfig
from codepmp_ray.errors import SandboxUnavailable
from codepmp_ray.evaluation.code_extraction import build_program
from codepmp_ray.evaluation.problems import load_problems
from codepmp_ray.evaluation.sandbox import Sandbox, TestJob, canary, mechanisms, runner

CONFIG = SandboxConfig(
    time_limit_s=2, memory_mb=256, max_processes=8, max_file_mb=4, max_output_bytes=10_000
)
CHECK = "def check(candidate):\n    assert candidate(20) == 22\n"
REPORT = "def check(candidate):\n    report(candidate())\n"


def _machine_allows(name: str) -> bool:
    """An independent word on what can be had here, so that faults of our own are not skipped."""
    if name == "bubblewrap":
        return shutil.which("bwrap") is not None
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    command = [
        "unshare",
        *user,
        "--mount",
        "--pid",
        "--net",
        "--fork",
        "mount",
        "--make-rprivate",
        "/",
    ]
    return (
        shutil.which("unshare") is not None
        and subprocess.run(command, capture_output=True, check=False).returncode == 0
    )


_NAMES = [name for name in ("bubblewrap", "namespaces") if _machine_allows(name)]


@pytest.fixture(scope="module", params=_NAMES or ["none"])
def sandbox(request):
    if request.param == "none":
        pytest.skip("neither bubblewrap nor namespaces can be had on this machine")
    found, _ = mechanisms.available_mechanisms()
    made = Sandbox(CONFIG, next(item for item in found if item.name == request.param))
    assert canary.find_breach(made, CONFIG) is None
    return made


def _run(sandbox, program, test=CHECK, entry_point="f"):
    return sandbox.run(TestJob(program, entry_point, "", test))


def _value(sandbox, body):
    """What `body` (of a function) returns inside."""
    lines = "\n".join("    " + line for line in body.splitlines())
    execution = _run(sandbox, f"import os, sys, time\ndef f():\n{lines}\n", REPORT)
    assert execution.outcome == "passed", execution
    return execution.reports[0]


def test_right_and_wrong_answers(sandbox):
    assert _run(sandbox, "def f(x): return x + 2").outcome == "passed"
    wrong = _run(sandbox, "def f(x): return x")
    assert (wrong.outcome, wrong.detail) == ("failed", "AssertionError")
    broken = _run(sandbox, "def f(x: return")
    assert broken.outcome == "failed" and "SyntaxError" in broken.detail
    assert "NameError" in _run(sandbox, "def f(x): return y").detail


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
    assert _run(sandbox, program, test).outcome == "passed"


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
    assert _run(sandbox, program).outcome in ("failed", "killed")


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
    execution = _run(sandbox, program, test)
    assert execution.outcome == "passed" and execution.reports == [{"list": []}]
    seen = _run(sandbox, program, test.replace("c(1)", "c('SECRET-' + '777')"))
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
    assert _value(sandbox, body) == {"list": []}


def test_endless_loops_and_sleeps_time_out(sandbox):
    for body in (
        "while True: pass",
        "import time; time.sleep(60)",
    ):
        execution = _run(sandbox, f"def f(x):\n    {body}")
        assert execution.outcome == "timeout"
        assert 2 <= execution.duration_s < 6


def test_fork_bomb_is_bounded_and_gone_afterwards(sandbox):
    marker = f"{os.getpid()}{time.time_ns()}"
    program = (
        "import os\ndef f(x):\n    while True:\n        try: os.fork()\n"
        f"        except OSError: os.execv('/usr/bin/sleep', ['sleep-{marker}', '60'])\n"
    )
    execution = _run(sandbox, program)
    assert execution.outcome in ("timeout", "failed")
    assert execution.duration_s < 8
    assert not _running(marker)


def test_number_of_processes_is_limited(sandbox):
    body = (
        "count = 0\n"
        "try:\n"
        "    while count < 50:\n"
        "        if os.fork() == 0: time.sleep(60)\n"
        "        count += 1\n"
        "except OSError: pass\n"
        "return count"
    )
    assert 1 <= _value(sandbox, body) <= CONFIG.max_processes


def test_daemon_child_dies_with_the_sandbox(sandbox):
    marker = f"{os.getpid()}{time.time_ns()}"
    program = (
        "import os, time\n"
        "def f(x):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        if os.fork() == 0:\n"
        f"            os.execv('/usr/bin/sleep', ['sleep-{marker}', '60'])\n"
        "        os._exit(0)\n"
        "    time.sleep(0.3)\n"
        "    return 22\n"
    )
    assert _run(sandbox, program).outcome == "passed"
    assert not _running(marker)


def test_endless_printer_is_killed(sandbox):
    execution = _run(sandbox, "def f(x):\n    while True: print('x' * 1000)")
    assert execution.outcome == "killed" and "max_output_bytes=10000" in execution.detail
    assert execution.duration_s < 2


def test_memory_is_limited_for_one_process_and_for_all_together(sandbox):
    one = _run(sandbox, "def f(x):\n    return len(bytearray(1 << 30))")
    assert one.outcome == "failed" and "MemoryError" in one.detail
    several = (
        "import os, time\n"
        "def f(x):\n"
        "    for _ in range(4):\n"
        "        if os.fork() == 0:\n"
        "            hold = bytearray(os.urandom(1 << 20)) * 100; time.sleep(60)\n"
        "    time.sleep(60)\n"
    )
    execution = _run(sandbox, several)
    assert execution.outcome == "killed" and "MB > 256" in execution.detail


def test_huge_files_and_huge_results_are_refused(sandbox):
    body = (
        "written = 0\n"
        "try:\n"
        "    with open('/tmp/big', 'wb') as file:\n"
        "        while written < 100 << 20: written += file.write(bytes(1 << 20))\n"
        "except OSError: pass\n"
        "return written"
    )
    assert _value(sandbox, body) <= CONFIG.max_file_mb << 20
    many = body.replace("'/tmp/big'", "'/tmp/big%d' % written")
    assert _value(sandbox, many) <= CONFIG.max_file_mb << 20
    assert _run(sandbox, "def f(x): return 'x' * (40 << 20)").outcome in ("killed", "failed")


def test_nothing_on_disk_can_be_changed(sandbox, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("here")
    body = (
        "import shutil\n"
        f"for root in ('/etc', '/dev', '/root', '/home', sys.prefix + '/bin', {str(tmp_path)!r}):\n"
        "    shutil.rmtree(root, ignore_errors=True)\n"
        "written = []\n"
        "for folder, inner, _ in os.walk('/'):\n"
        "    if folder.count('/') > 3 or folder.startswith(('/proc', '/tmp')): inner.clear()\n"
        "    elif os.access(folder, os.W_OK): written.append(folder)\n"
        "    try: open(folder + '/x', 'w')\n"
        "    except OSError: continue\n"
        "    if not folder.startswith('/tmp'): written.append(folder)\n"
        "return [written, os.path.exists(sys.executable)]"
    )
    assert _value(sandbox, body) == {"list": [{"list": []}, True]}
    assert victim.read_text() == "here"


def test_secrets_of_the_host_are_out_of_sight(sandbox, tmp_path, monkeypatch):
    monkeypatch.setenv("CODEPMP_API_KEY", "sk-secret")
    monkeypatch.setenv("HOME", str(tmp_path))
    secret = tmp_path / "key"
    secret.write_text("sk-secret")
    paths = ["/etc/shadow", "/etc/passwd", str(secret), runner.__file__, "/proc/1/environ"]
    body = (
        "seen = [value for value in os.environ.values() if 'sk-' in value]\n"
        f"for path in {paths!r}:\n"
        "    try: open(path).read(); seen.append(path)\n"
        "    except OSError: pass\n"
        "return seen"
    )
    assert _value(sandbox, body) == {"list": []}


def test_no_network_and_no_new_namespace(sandbox):
    body = (
        "import ctypes, socket\n"
        "reached = []\n"
        "for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):\n"
        "    for address in ('127.0.0.1', '192.0.2.1', '8.8.8.8'):\n"
        "        try:\n"
        "            with socket.socket(socket.AF_INET, kind) as s: s.connect((address, 53))\n"
        "            reached.append(address)\n"
        "        except OSError: pass\n"
        "libc = ctypes.CDLL(None)\n"
        "return [reached, libc.unshare(0x10000000), libc.mount(b't', b'/tmp', b'tmpfs', 0, b'')]"
    )
    assert _value(sandbox, body) == {"list": [{"list": []}, -1, -1]}


def test_the_host_process_cannot_be_signalled(sandbox):
    body = f"""
results = []
for pid in ({os.getpid()}, {os.getppid()}, 1):
    try: os.kill(pid, 9); results.append('sent' if pid != 1 else 'ignored')
    except OSError: results.append('refused')
return results[:2]"""
    assert _value(sandbox, body) == {"list": ["refused", "refused"]}


def test_killing_the_caller_leaves_nothing_behind(sandbox):
    marker = f"{os.getpid()}{time.time_ns()}"
    script = f"""
from codepmp_ray.config.evaluation import SandboxConfig
from codepmp_ray.evaluation.code_extraction import build_program
from codepmp_ray.evaluation.problems import load_problems
from codepmp_ray.evaluation.sandbox import Sandbox, TestJob, mechanisms
config = SandboxConfig(time_limit_s=60)
found = [m for m in mechanisms.available_mechanisms()[0] if m.name == {sandbox._mechanism.name!r}]
body = "import os\\ndef f(x): os.execv('/usr/bin/sleep', ['sleep-{marker}', '60'])"
Sandbox(config, found[0]).run(TestJob(body, "f", "", {CHECK!r}))
"""
    caller = subprocess.Popen([sys.executable, "-c", script])
    try:
        assert _wait(lambda: _running(marker), 20), "the answer's process never appeared"
    finally:
        caller.send_signal(signal.SIGKILL)
        caller.wait()
    assert _wait(lambda: not _running(marker), 10)


def _running(marker: str) -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(f"sleep-{marker}".encode()):
                return True
        except OSError:
            continue
    return False


def _wait(condition, limit_s: float) -> bool:
    end_s = time.monotonic() + limit_s
    while time.monotonic() < end_s:
        if condition():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("weaker", ["--net", "--pid"])
def test_the_canary_refuses_a_mechanism_with_a_hole(monkeypatch, weaker):
    if "namespaces" not in _NAMES:
        pytest.skip("namespaces cannot be had on this machine")
    which = {"unshare": shutil.which("unshare")}.get
    monkeypatch.setattr(mechanisms.shutil, "which", which)
    monkeypatch.setattr(runner.seccomp, "filter_program", lambda: None)
    make = mechanisms._unshare_command
    monkeypatch.setattr(
        mechanisms, "_unshare_command", lambda *a: [x for x in make(*a) if x != weaker]
    )
    with pytest.raises(SandboxUnavailable, match="bubblewrap: no bwrap on PATH; namespaces: "):
        runner._detect.__wrapped__(CONFIG.model_dump_json())


def test_without_any_tool_the_message_names_what_to_install(monkeypatch):
    monkeypatch.setattr(mechanisms.shutil, "which", lambda name: None)
    with pytest.raises(SandboxUnavailable, match=r"not executed.*unshare.*apt install bubblewrap"):
        runner._detect.__wrapped__(CONFIG.model_dump_json())


def test_a_prefix_that_holds_the_home_folder_is_refused(monkeypatch):
    monkeypatch.setattr(mechanisms.sys, "base_prefix", os.path.expanduser("~"))
    with pytest.raises(SandboxUnavailable, match="home directory"):
        mechanisms.interpreter()


def test_concurrent_runs_do_not_share_process_limits(sandbox):
    program = (
        "import os, time\n"
        "def spawn():\n"
        "    if os.fork() == 0: time.sleep(30)\n"
        "def f(x):\n"
        "    for _ in range(6): spawn()\n"
        "    time.sleep(0.3)\n"
        "    return 22\n"
    )
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: _run(sandbox, program), range(4)))
    assert [result.outcome for result in results] == ["passed"] * 4


def test_a_test_that_never_ends_is_stopped_from_outside(sandbox, monkeypatch):
    monkeypatch.setattr(runner, "_GRACE_S", 0.5)
    execution = _run(sandbox, "def f(x): return 1", "def check(c):\n    while True: pass")
    assert execution.outcome == "timeout" and execution.duration_s < 6


def test_all_canonical_solutions_pass(sandbox):
    def run(problem):
        program = build_program(problem, problem.canonical_answer)
        return sandbox.run(TestJob(program, problem.entry_point, problem.stub, problem.test))

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        results = list(pool.map(run, load_problems("humaneval").values()))
    assert [result.outcome for result in results].count("passed") == 164
