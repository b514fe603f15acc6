"""scripts/setup.sh says in one line what a machine lacks, before it changes anything."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import PATIENCE_S

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
_TOOLS = ("bash", "dirname", "awk", "sed", "head", "flock", "rm", "mv", "grep", "env", "xargs")
# Not the interpreter of this environment: setup looks through environments.
_PYTHON = getattr(sys, "_base_executable", sys.executable)
_GOOD_DISK = "echo h; echo 'disk 1 1 99999999 1% /'"


class Machine:
    """A checkout in a folder with a space in its name, on a machine with chosen programs only."""

    def __init__(self, root: Path) -> None:
        self.checkout = root / "a checkout"
        (self.checkout / "scripts").mkdir(parents=True)
        shutil.copy(ROOT / "scripts/setup.sh", self.checkout / "scripts/setup.sh")
        for name in ("pyproject.toml", "constraints.txt", "overrides.txt", "overrides-cpu.txt"):
            shutil.copy(ROOT / name, self.checkout)
        self.bin = root / "bin"
        self.bin.mkdir()
        for tool in _TOOLS:
            if found := shutil.which(tool):
                (self.bin / tool).symlink_to(found)
        self.program("cc", "exit 0")
        self.program("df", _GOOD_DISK)
        self.program("python3", f'exec "{_PYTHON}" "$@"')

    def program(self, name: str, script: str) -> None:
        file = self.bin / name
        file.unlink(missing_ok=True)
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)

    def setup(self, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [shutil.which("bash") or "bash", str(self.checkout / "scripts/setup.sh")],
            env={"PATH": str(self.bin), "HOME": str(self.bin), **environment},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def refusal(self, **environment: str) -> str:
        """The one line that setup ends with."""
        done = self.setup(**environment)
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith("setup: ")
        assert not (self.checkout / ".venv").exists()
        return done.stderr


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_python_is_absent(machine: Machine) -> None:
    (machine.bin / "python3").unlink()
    assert "Python 3.11, 3.12 or 3.13 is needed (python3.11 is absent" in machine.refusal()


def test_python_is_too_old(machine: Machine) -> None:
    # Refuses the version check, answers the question that follows.
    machine.program("python3", 'case "$2" in *exit*) exit 1;; *) echo " is 3.9.2";; esac')
    assert "python3 is 3.9.2" in machine.refusal()


def test_the_python_that_was_named_is_taken_or_refused(machine: Machine) -> None:
    machine.program("a named one", 'case "$2" in *exit*) exit 1;; *) echo " is 3.10.1";; esac')
    line = machine.refusal(PYTHON=str(machine.bin / "a named one"))
    assert "a named one is 3.10.1" in line and "python3 " not in line


def test_the_venv_module_is_absent(machine: Machine) -> None:
    machine.program("python3", f'case "$2" in *ensurepip*) exit 1;; esac; exec "{_PYTHON}" "$@"')
    assert "no venv module" in machine.refusal()


def test_there_is_no_compiler(machine: Machine) -> None:
    (machine.bin / "cc").unlink()
    assert "a C compiler is needed" in machine.refusal()


def test_the_disk_is_full(machine: Machine) -> None:
    machine.program("df", "echo h; echo 'disk 1 1 3145728 1% /'")
    assert "6 GB of free disk space are needed at ., there are 3." in machine.refusal()


def test_a_gpu_machine_needs_more_space(machine: Machine) -> None:
    machine.program("nvidia-smi", "echo 'GPU 0: something'")
    machine.program("df", "echo h; echo 'disk 1 1 10485760 1% /'")
    assert "16 GB of free disk space are needed at ., there are 10." in machine.refusal()


def test_an_unknown_accelerator(machine: Machine) -> None:
    assert "CODEPMP_ACCELERATOR=tpu" in machine.refusal(CODEPMP_ACCELERATOR="tpu")


def test_an_unfinished_venv_is_built_anew_and_a_closed_registry_is_named(machine: Machine) -> None:
    leftover = machine.checkout / ".venv/lib/half-installed"
    leftover.mkdir(parents=True)
    done = machine.setup(PIP_INDEX_URL="http://127.0.0.1:9/simple", PIP_CONFIG_FILE="/dev/null")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("setup: uv cannot be installed: no network")
    assert not leftover.exists()
    assert not (machine.checkout / ".venv/.complete").exists()


def test_an_activated_environment_is_not_what_the_next_one_is_made_from(machine: Machine) -> None:
    old = machine.checkout / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(old)], check=True)
    (machine.bin / "python3").unlink()
    done = machine.setup(
        PATH=f"{old / 'bin'}:{machine.bin}",
        PIP_INDEX_URL="http://127.0.0.1:9/simple",
        PIP_CONFIG_FILE="/dev/null",
    )
    # The new environment was made, which its own interpreter, removed before, could not have done.
    assert done.stderr.splitlines()[-1].startswith("setup: uv cannot be installed"), done.stderr
    assert (old / "bin/python").exists()


@pytest.fixture
def sharing(machine: Machine) -> Machine:
    """A machine on which everything can be installed, by programs that do nothing."""
    for tool in ("tar", "mkdir", "cat", "chmod", "echo"):
        (machine.bin / tool).symlink_to(str(shutil.which(tool)))
    inner = f"""case "$*" in
        *"pip --dis"*install*) echo '#!/bin/sh' > .venv/bin/uv; chmod 755 .venv/bin/uv;;
        *"-m pip"*) ;;
        *) exec "{_PYTHON}" "$@";;
    esac"""
    machine.program("inner", inner)
    outer = f"""case "$*" in
        *"-m venv"*) mkdir -p .venv/bin; cat "{machine.bin}/inner" > .venv/bin/python
            chmod 755 .venv/bin/python;;
        *) exec "{_PYTHON}" "$@";;
    esac"""
    machine.program("python3", outer)
    return machine


def test_what_one_machine_has_built_another_unpacks(sharing: Machine, tmp_path: Path) -> None:
    shared = tmp_path / "shared folder"
    built = sharing.setup(CODEPMP_ENVIRONMENTS=str(shared / "environments"))
    assert built.returncode == 0 and "building" in built.stderr and not shared.exists()
    shared.mkdir()
    shutil.rmtree(sharing.checkout / ".venv")
    built = sharing.setup(CODEPMP_ENVIRONMENTS=str(shared / "environments"))
    (archive,) = (shared / "environments").iterdir()  # and nothing half-written
    assert built.returncode == 0 and "building" in built.stderr and archive.suffix == ".tar"
    shutil.rmtree(sharing.checkout / ".venv")
    unpacked = sharing.setup(CODEPMP_ENVIRONMENTS=str(shared / "environments"))
    assert unpacked.returncode == 0, unpacked.stderr
    assert "unpacking" in unpacked.stderr and "building" not in unpacked.stderr
    assert (sharing.checkout / ".venv/.complete").exists()
    assert not sharing.setup(CODEPMP_ENVIRONMENTS=str(shared / "environments")).stderr
    # Another accelerator or other extras are another environment.
    other = sharing.setup(CODEPMP_ENVIRONMENTS=str(shared / "environments"), CODEPMP_EXTRAS="s3")
    assert "building" in other.stderr and len([*(shared / "environments").iterdir()]) == 2
    archive.write_bytes(archive.read_bytes()[:700])
    shutil.rmtree(sharing.checkout / ".venv")
    damaged = sharing.setup(CODEPMP_ENVIRONMENTS=str(shared / "environments"))
    assert damaged.returncode == 0 and "cannot be used here; building" in damaged.stderr
