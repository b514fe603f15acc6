"""Join the running Ray cluster, or start one in this process and take it down afterwards."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from codepmp_ray.cluster.own_terminal import own_terminal
from codepmp_ray.cluster.process_guard import guard_future_processes
from codepmp_ray.cluster.space_free import use_space_free_interpreter
from codepmp_ray.errors import ResourceError


@contextmanager
def connect() -> Iterator[Path | None]:
    """Ray for the time of the block. Nested use keeps the outer connection.

    RAY_ADDRESS decides where it is set (as inside `ray job submit`); otherwise a cluster started
    on this machine is joined, and without one Ray starts in process, on loopback. Yields the file
    of what Ray and other libraries write on the terminal meanwhile, which is there afterwards if
    anything is in it; None in nested use and with CODEPMP_LOG_TO_DRIVER=1, which leaves that and
    the workers' output on the terminal.
    """
    if ray.is_initialized():
        yield None
        return
    to_driver = os.environ.get("CODEPMP_LOG_TO_DRIVER", "0") == "1"
    with nullcontext() if to_driver else own_terminal() as others, _connection(to_driver):
        yield others


@contextmanager
def _connection(to_driver: bool) -> Iterator[None]:
    # Ray Data and Serve narrate at INFO; the jobs print their own progress. Logs stay in files.
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    # Ray's C++ core reports on stderr what Ray Data does by design (restartable actors).
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    terminate = signal.getsignal(signal.SIGTERM)
    use_space_free_interpreter()
    # A driver that is killed must not leave its embedded cluster behind. A cluster that is joined
    # inherits nothing from here, so nothing of it is touched.
    guard_future_processes()
    try:
        ray.init(log_to_driver=to_driver, logging_level=logging.WARNING)
    except (ConnectionError, RuntimeError) as error:
        raise ResourceError(
            f"Cannot join or start Ray ({str(error).splitlines()[0]}).",
            "Check RAY_ADDRESS and RAY_AUTH_TOKEN, or unset RAY_ADDRESS to run on this machine.",
        ) from error
    if callable(terminate) and threading.current_thread() is threading.main_thread():
        # Ray's native handler aborts on SIGTERM: what `with` blocks would clean up stays behind.
        signal.signal(signal.SIGTERM, terminate)
    _quiet_libraries()
    try:
        yield
    finally:
        ray.shutdown()


def beside_driver() -> NodeAffinitySchedulingStrategy:
    """Where an actor is to run that is gone when the job is gone, and only then.

    Ray puts an actor without resources on any node, and ends it with that node.
    """
    here = ray.get_runtime_context().get_node_id()
    return NodeAffinitySchedulingStrategy(here, soft=False)


def owns_cluster() -> bool:
    """Whether Ray was started in this process: no node comes or goes then."""
    return any(child.name().startswith("gcs_server") for child in psutil.Process().children())


def _quiet_libraries() -> None:
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.issue_detectors_config.detectors = []
    for name in ("ray.data", "ray.train", "ray.serve"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # The error itself follows, and the job says it in one line.
    name = "ray.data._internal.execution.streaming_executor_state"
    logging.getLogger(name).setLevel(logging.CRITICAL)
    # It warns that the progress bars are off, which is what was asked for.
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
