"""Files that go past the page cache hold what was written, wherever that is possible."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from codepmp_ray.training import direct_files
from codepmp_ray.training.direct_files import DirectFile

MIB = 1 << 20


def written(path: Path, pieces: list[bytes]) -> bytes:
    with DirectFile(path) as file:
        for piece in pieces:
            assert file.write(piece) == len(piece)
        assert file.tell() == sum(map(len, pieces))
    return path.read_bytes()


@pytest.mark.parametrize(
    "sizes",
    [[], [1], [4096], [4095, 2], [MIB], [MIB, 0, 1], [3 * MIB + 17, 5, MIB - 22], [MIB // 2] * 5],
)
def test_every_byte_arrives_in_order(sizes: list[int], tmp_path: Path) -> None:
    pieces = [os.urandom(size) for size in sizes]
    assert written(tmp_path / "a file", pieces) == b"".join(pieces)


@pytest.mark.parametrize("phase", [0, 1, 64, 511])
@pytest.mark.parametrize("num_before", [0, 3, 700])
def test_placed_pieces_are_taken_from_where_they_lie(
    phase: int, num_before: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[int] = []
    gather = DirectFile._gather
    monkeypatch.setattr(
        DirectFile, "_gather", lambda self, part: (copied.append(len(part)), gather(self, part))[1]
    )
    memory = np.frombuffer(os.urandom(3 * MIB), dtype=np.uint8)
    begin = -memory.ctypes.data % 512 + phase
    large = memory[begin : begin + 2 * MIB + 777]
    with DirectFile(tmp_path / "a file") as file:
        file.write(b"first")
        file.place(large.ctypes.data, len(large), num_before)
        start = file.tell()
        file.write(b"x" * num_before)
        copied.clear()
        file.write(large.data)
        assert sum(copied) < 2 * 4096
        file.write(b"last")
    content = (tmp_path / "a file").read_bytes()
    assert content.startswith(b"first") and start < 5 + 4096
    assert content[start:] == b"x" * num_before + large.tobytes() + b"last"


def test_a_disk_that_takes_nothing_lent_gets_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain_write, refused = os.write, []

    def write(descriptor: int, data: memoryview) -> int:
        if len(data) > MIB:  # more than the buffer holds
            refused.append(len(data))
            raise OSError(errno.EINVAL, "Invalid argument")
        return plain_write(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    large = np.frombuffer(os.urandom(3 * MIB), dtype=np.uint8)
    with DirectFile(tmp_path / "a file") as file:
        for _ in range(2):
            file.place(large.ctypes.data, len(large), 0)
            start = file.tell()
            file.write(large.data)
    content = (tmp_path / "a file").read_bytes()
    assert content[:start].endswith(large.tobytes()) and content[start:] == large.tobytes()
    assert len(refused) == 1


def test_a_file_system_without_direct_writes_gets_ordinary_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain_open, refused = os.open, []

    def without(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_DIRECT:
            refused.append(path)
            raise OSError(errno.EINVAL, "Invalid argument")
        return plain_open(path, flags, mode)

    monkeypatch.setattr(os, "open", without)
    assert written(tmp_path / "a file", [b"a" * (MIB + 3)]) == b"a" * (MIB + 3)
    assert refused


@pytest.mark.parametrize("phase", [0, 16])
def test_a_full_disk_is_an_error_and_leaves_no_descriptor_open(phase: int) -> None:
    memory = np.zeros(2 * MIB + 1024, dtype=np.uint8)  # lent from a sector's border, else copied
    begin = -memory.ctypes.data % 512 + phase
    before = len(os.listdir("/proc/self/fd"))
    with (
        pytest.raises(OSError, match="No space left") as caught,
        DirectFile(Path("/dev/full")) as f,
    ):
        f.write(memory[begin : begin + 2 * MIB].data)
    assert caught.value.errno == errno.ENOSPC
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        DirectFile(tmp_path / "nowhere" / "a file")


def test_the_disk_is_asked_for_direct_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    plain_open = os.open
    monkeypatch.setattr(os, "open", lambda p, f, m=0o777: seen.append(f) or plain_open(p, f, m))
    written(tmp_path / "a file", [b"a"])
    assert seen[0] & direct_files._O_DIRECT
