from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch.serialization import get_crc32_options, set_crc32_options

from codepmp_ray.training import saved_tensors
from codepmp_ray.training.saved_tensors import write_tensor


def written(tensor: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    write_tensor(tensor, buffer)
    return buffer.getvalue()


def saved_by_torch(tensor: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    set_crc32_options(False)
    try:
        torch.save(tensor, buffer)
    finally:
        set_crc32_options(True)
    return buffer.getvalue()


@pytest.mark.parametrize("shape", [(), (1,), (7, 5), (3, 1, 2), (0, 4), (1024, 300)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_bytes_are_those_of_torch_save(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    for _ in range(2):  # the second of a shape is written with what was kept of the first
        tensor = (3 * torch.randn(shape)).to(dtype)
        assert written(tensor) == saved_by_torch(tensor)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(12.0).view(3, 4).T,
        torch.arange(12.0)[3:7],
        torch.ones(1).expand(5),
        torch.nn.Parameter(torch.arange(4.0)),
        torch.randn(3, requires_grad=True) * 2,
    ],
    ids=["transposed", "slice", "expanded", "parameter", "of a graph"],
)
def test_values_are_written_wherever_they_lie(
    tensor: torch.Tensor, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if large:  # those go another way
        monkeypatch.setattr(saved_tensors, "_LARGE_BYTES", 1)
    found: Any = torch.load(io.BytesIO(written(tensor)), weights_only=True)
    assert torch.equal(found, tensor) and not found.requires_grad
    assert len(found.untyped_storage()) == found.nbytes  # nothing but the values


def test_others_keep_their_checksums(monkeypatch: pytest.MonkeyPatch) -> None:
    written(torch.zeros(11, 13))
    assert get_crc32_options()
    monkeypatch.setattr(saved_tensors, "_LARGE_BYTES", 1)
    assert written(torch.zeros(11, 13)) == saved_by_torch(torch.zeros(11, 13))
    assert get_crc32_options()
