"""Which failures of workers end a training at once, decided as Ray Train's controller does."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from ray.train import ControllerError, FailureConfig, ScalingConfig, WorkerGroupError

from codepmp_ray.cluster import training
from codepmp_ray.cluster.final_errors import (
    EndAtFinalErrors,
    final_error,
    fit_raising_final_errors,
)
from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.errors import (
    CodePMPError,
    ConfigError,
    InputError,
    ModelError,
    StorageError,
    TrainingError,
)
from codepmp_ray.training.task import TrainingTask

CRASH = RuntimeError("Connection closed by peer")


def controller(max_failures: int, attempts: list[dict[int, Exception]]) -> int:
    """Stands in for Ray Train's controller, with its own failure policy; how often it began.

    As there, a callback that raises makes the error the controller's own.
    """
    from ray.train.v2._internal.execution.failure_handling import (
        DefaultFailurePolicy,
        FailureDecision,
    )

    policy = DefaultFailurePolicy(FailureConfig(max_failures=max_failures))
    callback = pickle.loads(pickle.dumps(EndAtFinalErrors()))  # the controller is another process
    for number, failures in enumerate(attempts, start=1):
        if not failures:
            return number
        try:
            callback.after_exception(None, failures)
            error: Any = WorkerGroupError("died", failures)
        except CodePMPError as raised:
            error = ControllerError(raised)
        if policy.make_decision(error) != FailureDecision.RETRY:
            raise pickle.loads(pickle.dumps(error))
    raise AssertionError("more attempts than expected")


@pytest.mark.parametrize("kind", [ConfigError, InputError, ModelError, TrainingError])
def test_errors_of_settings_and_data_end_the_job_at_once(kind: type[CodePMPError]) -> None:
    error = kind("x=3 is too much.", "Lower x.")
    for failures in ({0: error}, {0: CRASH, 1: error}):
        with pytest.raises(kind, match=r"x=3 is too much. Lower x.") as raised:
            fit_raising_final_errors(lambda given=failures: controller(3, [given]))
        assert isinstance(raised.value.__cause__, ControllerError)


@pytest.mark.parametrize("error", [CRASH, StorageError("s3://b does not answer.")])
def test_crashes_and_stores_that_may_answer_again_are_tried_again(error: Exception) -> None:
    assert controller(2, [{0: error}, {1: error}, {}]) == 3
    with pytest.raises(WorkerGroupError):
        fit_raising_final_errors(lambda: controller(1, [{0: error}, {0: error}]))


def test_the_first_rank_speaks_and_other_errors_of_the_controller_stay() -> None:
    first, second = ConfigError("first"), ConfigError("second")
    assert final_error({3: second, 1: first, 0: CRASH}) is first
    assert final_error({0: CRASH}) is None

    def fail() -> None:
        raise ControllerError(CRASH)

    with pytest.raises(ControllerError):
        fit_raising_final_errors(fail)


def test_trainers_have_the_callback(tmp_path, monkeypatch) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(training, "TorchTrainer", lambda *_, **given: seen.update(given))
    task = TrainingTask("finetuning", TrainingConfig(max_failures=5), "m", (), str(tmp_path))
    training._trainer(task, ScalingConfig(num_workers=1), False)
    run = seen["run_config"]
    assert run.failure_config.max_failures == 5
    assert [type(callback) for callback in run.callbacks] == [EndAtFinalErrors]
