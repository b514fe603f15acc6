"""Errors of settings and data end a training at once; only what may pass by itself is tried again.

Ray Train starts failed workers anew `max_failures` times, whatever they died of: four times the
loading of a model for a misspelt setting. What a callback of the controller raises is an error of
the controller itself, and these are not tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ray.train import ControllerError, UserCallback

from codepmp_ray.errors import CodePMPError, StorageError


def final_error(worker_exceptions: Mapping[int, BaseException]) -> CodePMPError | None:
    """The error, if a rank raised one, that comes back however often the workers start; by rank.

    StorageError is none: a store answers again, and workers that were cut off raise it when those
    that took their place have written a checkpoint.
    """
    for _, error in sorted(worker_exceptions.items()):
        if isinstance(error, CodePMPError) and not isinstance(error, StorageError):
            return error
    return None


class EndAtFinalErrors(UserCallback):
    """Runs in Ray Train's controller, before that decides whether workers start again."""

    def after_exception(
        self, run_context: Any, worker_exceptions: Mapping[int, BaseException]
    ) -> None:
        """Raise what is final of `worker_exceptions`, those of the ranks."""
        if (error := final_error(worker_exceptions)) is not None:
            raise error


def fit_raising_final_errors(fit: Callable[[], Any]) -> None:
    """Call `fit` of a trainer with that callback; a final error is raised as it was raised."""
    try:
        fit()
    except ControllerError as error:
        if isinstance(error.controller_failure, CodePMPError):
            raise error.controller_failure from error
        raise
