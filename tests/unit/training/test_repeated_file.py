"""A file that is written again from the same memory holds what the memory holds then."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
import torch

from codepmp_ray.training import direct_files, repeated_file
from codepmp_ray.training.repeated_file import RepeatedFile
from tests.processes import PATIENCE_S

KIB = 1 << 10


def random_bytes(num_bytes: int, phase: int = 0) -> torch.Tensor:
    """From `phase` bytes after the border of a sector."""
    memory = torch.randint(256, (num_bytes + 1024,), dtype=torch.uint8)
    begin = -memory.data_ptr() % 512 + phase
    return memory[begin : begin + num_bytes]


def placed(sizes: list[int], phase: int = 0, gap: int = 0) -> list[tuple[int, torch.Tensor]]:
    """Pieces one after another, large ones where the disk can take them."""
    found, end = [], 0
    for size in sizes:
        data = random_bytes(size, phase)
        start = end + gap
        if size >= 256 * KIB:
            start += -(start + (-data.data_ptr() % 512)) % 4096
        found.append((start, data))
        end = start + size
    return found


def content(pieces: list[tuple[int, torch.Tensor]]) -> bytes:
    whole = bytearray(max((start + len(data) for start, data in pieces), default=0))
    for start, data in pieces:
        whole[start : start + len(data)] = data.numpy().tobytes()
    return bytes(whole)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeated_file, "_CHUNK_BYTES", 512 * KIB)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("phase", [0, 7, 64])
@pytest.mark.parametrize(
    "sizes",
    [[], [0], [1], [4096], [300 * KIB], [3, 700 * KIB, 5, 0, 2000 * KIB], [900 * KIB] * 3 + [1]],
)
def test_each_writing_is_of_the_memory_at_its_time(
    sizes: list[int], phase: int, tmp_path: Path
) -> None:
    pieces = placed(sizes, phase, gap=9)
    file = RepeatedFile(pieces)
    for number in range(3):
        for _, data in pieces:
            data.add_(1)
        file.start()
        file.write(tmp_path / str(number))
        assert (tmp_path / str(number)).read_bytes() == content(pieces)
    assert (tmp_path / "0").read_bytes() != (tmp_path / "1").read_bytes() or not sum(sizes)


def test_the_disk_takes_large_pieces_from_where_they_lie(tmp_path: Path, monkeypatch) -> None:
    pieces = placed([10, 2048 * KIB, 10], phase=16)
    large = pieces[1][1]
    taken, real = [], direct_files.write_parts

    def write(descriptor, parts):
        taken.extend((part.ctypes.data, len(part)) for part in parts)
        return real(descriptor, parts)

    monkeypatch.setattr(direct_files, "write_parts", write)
    RepeatedFile(pieces).write(tmp_path / "a file")
    begin = large.data_ptr()
    inside = [num for address, num in taken if begin <= address < begin + len(large)]
    assert sum(inside) > len(large) - 2 * 4096


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("num_written_before", [0, 1, 3])
def test_what_is_released_may_change(num_written_before: int, tmp_path: Path, monkeypatch) -> None:
    pieces = placed([100, 3000 * KIB, 100, 300 * KIB, 100])
    file = RepeatedFile(pieces)
    for _ in range(2):  # the second writes over the first's copies
        calls: list[int] = []
        may_write, is_there, real = threading.Event(), threading.Event(), direct_files.write_parts

        def write(descriptor, parts, calls=calls, may=may_write, there=is_there, real=real):
            if len(calls) == num_written_before:
                there.set()
                assert may.wait(PATIENCE_S)
            calls.append(len(parts))
            return real(descriptor, parts)

        with monkeypatch.context() as patch:
            patch.setattr(direct_files, "write_parts", write)
            before = content(pieces)
            file.start()
            writing = threading.Thread(target=file.write, args=(tmp_path / "a file",))
            writing.start()
            assert is_there.wait(PATIENCE_S)
            releasing = threading.Thread(target=file.release)
            releasing.start()
            releasing.join(0.2)
            assert releasing.is_alive()  # for what the disk is taking just now
            may_write.set()
            releasing.join(PATIENCE_S)
            for _, data in pieces:
                data.add_(1)
            writing.join(PATIENCE_S)
            assert (tmp_path / "a file").read_bytes() == before


@pytest.mark.usefixtures("small_chunks")
def test_what_is_released_before_the_writing_begins_is_copied(tmp_path: Path) -> None:
    pieces = placed([100, 3000 * KIB, 100])
    file = RepeatedFile(pieces)
    before = content(pieces)
    file.release()
    for _, data in pieces:
        data.zero_()
    file.write(tmp_path / "a file")
    assert (tmp_path / "a file").read_bytes() == before


def test_a_disk_that_takes_little_at_a_time_gets_all(tmp_path: Path, monkeypatch) -> None:
    pieces, real = placed([100, 700 * KIB, 100]), os.writev
    monkeypatch.setattr(
        os, "writev", lambda descriptor, parts: real(descriptor, [parts[0][: 64 * KIB]])
    )
    RepeatedFile(pieces).write(tmp_path / "a file")
    assert (tmp_path / "a file").read_bytes() == content(pieces)


def test_a_disk_that_wants_other_addresses_gets_ordinary_writes(
    tmp_path: Path, monkeypatch
) -> None:
    pieces, real, refused = placed([100, 700 * KIB, 100]), os.writev, []

    def write(descriptor, parts):
        if not refused:
            refused.append(len(parts))
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(descriptor, parts)

    monkeypatch.setattr(os, "writev", write)
    RepeatedFile(pieces).write(tmp_path / "a file")
    assert refused and (tmp_path / "a file").read_bytes() == content(pieces)


def test_a_full_disk_is_an_error_and_an_update_does_not_wait() -> None:
    file = RepeatedFile(placed([100, 700 * KIB]))
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="No space left") as caught:
        file.write(Path("/dev/full"))
    assert caught.value.errno == errno.ENOSPC
    file.release()
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(FileNotFoundError):
        file.write(Path("nowhere") / "a file")
    file.release()
