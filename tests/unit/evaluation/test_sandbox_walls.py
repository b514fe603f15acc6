"""What an answer cannot see or change, and that holes in the walls are noticed."""

import os
import shutil

import pytest

from codepmp_ray.errors import SandboxUnavailable
from codepmp_ray.evaluation.sandbox import canary, mechanisms, runner
from tests.sandbox_machine import MECHANISMS
from tests.unit.evaluation.sandbox_support import (
    CONFIG,
    value_in,
)


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
    assert value_in(sandbox, body) == {"list": [{"list": []}, True]}
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
    assert value_in(sandbox, body) == {"list": []}


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
    assert value_in(sandbox, body) == {"list": [{"list": []}, -1, -1]}


def test_the_host_process_cannot_be_signalled(sandbox):
    body = f"""
results = []
for pid in ({os.getpid()}, {os.getppid()}, 1):
    try: os.kill(pid, 9); results.append('sent' if pid != 1 else 'ignored')
    except OSError: results.append('refused')
return results[:2]"""
    assert value_in(sandbox, body) == {"list": ["refused", "refused"]}


@pytest.mark.parametrize("weaker", ["--net", "--pid"])
def test_the_canary_refuses_a_mechanism_with_a_hole(monkeypatch, weaker):
    if "namespaces" not in MECHANISMS:
        pytest.skip("namespaces cannot be had on this machine")
    which = {"unshare": shutil.which("unshare")}.get
    monkeypatch.setattr(mechanisms.shutil, "which", which)
    monkeypatch.setattr(runner.mechanisms, "filter_program", lambda: None)
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


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("/.dockerenv", "--security-opt seccomp=unconfined"),
        ("/run/secrets/kubernetes.io", "in this pod"),
    ],
)
def test_the_remedy_is_that_of_the_place(monkeypatch, place, words):
    monkeypatch.setattr(runner.os.path, "exists", lambda path: path == place)
    assert words in runner._remedy() and "evaluation.sandbox.endpoint" in runner._remedy()


def test_without_proc_and_without_a_filter_nothing_runs(monkeypatch):
    monkeypatch.setattr(runner.mechanisms, "filter_program", lambda: None)
    found, _ = mechanisms.available_mechanisms()
    blind = [mechanism for mechanism in found if not mechanism.has_proc]
    monkeypatch.setattr(runner.mechanisms, "available_mechanisms", lambda: (blind, []))
    with pytest.raises(SandboxUnavailable, match="without /proc: needs libseccomp"):
        runner._detect.__wrapped__(CONFIG.model_dump_json())


def test_root_that_may_make_no_namespaces_starts_the_tool_as_another_user(monkeypatch):
    found, _ = mechanisms.available_mechanisms()
    others = [mechanism for mechanism in found if mechanism.starts_as_other]
    assert bool(others) == (os.geteuid() == 0 and bool(MECHANISMS))
    # Others must be able to read the interpreter, which may lie in a private folder.
    monkeypatch.setattr(mechanisms, "interpreter", lambda: ("/usr/bin/python3", "/usr"))
    for mechanism in others:
        if os.path.exists("/usr/bin/python3"):
            sandbox = runner.Sandbox(CONFIG, mechanism)
            assert canary.find_breach(sandbox, CONFIG) is None
            assert value_in(sandbox, "return os.getuid()") == 0  # of its own namespace
        else:
            with pytest.raises(SandboxUnavailable, match="python3"):
                canary.find_breach(runner.Sandbox(CONFIG, mechanism), CONFIG)


def test_a_prefix_that_holds_the_home_folder_is_refused(monkeypatch):
    monkeypatch.setattr(mechanisms.sys, "base_prefix", os.path.expanduser("~"))
    with pytest.raises(SandboxUnavailable, match="home directory"):
        mechanisms.interpreter()
