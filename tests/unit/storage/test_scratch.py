"""Temporary folders: gone with their process, at the latest when the next one is made."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from codepmp_ray.storage.scratch import ScratchFolder

_HOLDS = """
import sys, time
from codepmp_ray.storage.scratch import ScratchFolder
folder = ScratchFolder()
(folder.path / "half a file").write_bytes(b"x" * 1000)
print(folder.path, flush=True)
time.sleep(600)
"""


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_a_folder_is_empty_and_goes(base: Path) -> None:
    with ScratchFolder() as folder:
        assert folder.parent == base and not list(folder.iterdir())
        (folder / "part").mkdir()
    assert not list(base.iterdir())


def test_what_a_killed_process_left_goes_with_the_next_folder(base: Path) -> None:
    holders = [
        subprocess.Popen([sys.executable, "-c", _HOLDS], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        killed, alive = (Path(holder.stdout.readline().strip()) for holder in holders)
        holders[0].send_signal(signal.SIGKILL)
        holders[0].wait()
        assert killed.is_dir()
        with ScratchFolder():
            assert not killed.exists()
            assert (alive / "half a file").is_file()
    finally:
        holders[1].kill()
        holders[1].wait()
    with ScratchFolder():
        pass
    assert not list(base.iterdir())
