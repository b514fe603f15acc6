"""A process that dies at a chosen change of the storage."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from codepmp_ray.storage import LocalStore


class Killed(BaseException):
    pass


@contextmanager
def killed_at(
    monkeypatch: pytest.MonkeyPatch, step: int, methods: tuple[str, ...]
) -> Iterator[None]:
    """The block has to be ended by the `step`-th call of any of the store's `methods`."""
    left = step

    def counted(method: Any) -> Any:
        def call(self: LocalStore, *args: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed
            return method(self, *args)

        return call

    with monkeypatch.context() as patch:
        for name in methods:
            patch.setattr(LocalStore, name, counted(getattr(LocalStore, name)))
        with pytest.raises(Killed):
            yield
